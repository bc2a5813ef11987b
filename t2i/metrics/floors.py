"""What scores make of pictures that nobody would take for good ones: their floors. Of real pictures: their ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from t2i.metrics.captions import Caption
from t2i.metrics.sources import Reference, quantised
from t2i.probes.standins import blur
from t2i.rng import SampleRng

# σ of pictures of 64 pixels, and of larger ones in proportion.
KINDS = ("real", "blurred by 1", "blurred by 2", "blurred by 4", "flat colour", "shuffled pixels", "noise")


@dataclass
class Spoilt:
    """Real pictures with their captions, and what is left of them: kind, one of KINDS."""

    held_out: Reference
    captions: list[Caption]
    kind: str = "real"
    captioned = True
    encoding = "lossless"
    resize: int | None = None

    @property
    def resolution(self) -> int:
        return self.held_out.resolution

    def pick(self, numbers: Sequence[int]) -> Tensor:
        return quantised(spoilt(self.held_out.pick(numbers), self.kind, list(numbers)))

    def pairs(self, count: int) -> list[tuple[int, int]]:
        return []

    def describe(self) -> dict[str, Any]:
        return {"pictures": f"{self.held_out.shards}, {self.kind}", "kimg": None, "ema": None, "weights_sha256": None}


def spoilt(images: Tensor, kind: str, seeds: list[int]) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → the same kind of tensor; noise and order of picture n are drawn from seeds[n]."""
    n, _, height, width = images.shape
    if kind == "real":
        return images
    if kind == "flat colour":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if kind == "noise":
        return 2 * SampleRng(seeds).rand(*images.shape) - 1
    if kind == "shuffled pixels":  # the same colours, in as many places
        order = SampleRng(seeds).rand(n, 1, height * width).argsort(2)
        return images.flatten(2).gather(2, order.expand(-1, 3, -1)).view_as(images)
    return blur(images, float(kind.rsplit(" ", 1)[1]) * height / 64)


def table(scores: dict[str, dict[str, float]]) -> str:
    """{kind: {score: value}} for the terminal: a line a kind, a column a score."""
    names = list(dict.fromkeys(name for of_kind in scores.values() for name in of_kind))
    widths = [max(12, len(name) + 2) for name in names]
    lines = [f"{'':<18}" + "".join(f"{name:>{width}}" for name, width in zip(names, widths))]
    for kind, of_kind in scores.items():
        cells = (f"{of_kind[n]:>{w}.4g}" if n in of_kind else f"{'-':>{w}}" for n, w in zip(names, widths))
        lines.append(f"{kind:<18}" + "".join(cells))
    return "\n".join(lines)


def measure(judge: Any, source: Spoilt) -> dict[str, dict[str, float]]:
    """{kind: {score: value}}, what a t2i.metrics.suite.Suite makes of each kind of picture."""
    return {kind: judge.score(replace(source, kind=kind)).scores for kind in KINDS}
