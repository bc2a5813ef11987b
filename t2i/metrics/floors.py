"""What scores make of pictures that nobody would take for good ones: their floors. Of real pictures: their ceiling."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from torch import Tensor

from t2i.metrics.captions import Caption
from t2i.metrics.compare import FORMAT
from t2i.metrics.networks import Settings
from t2i.metrics.request import MOST, Request
from t2i.metrics.sources import Reference, quantised
from t2i.metrics.suite import Result, Suite, choose
from t2i.probes import scenes
from t2i.probes.classifier import SIDE
from t2i.probes.measure import DRAWN_SEEDS
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


@dataclass
class Shown:
    """Drawn scenes, and what stands in for their objects (t2i/probes/standins.py)."""

    images: Tensor  # [N, 3, H, W] in [-1, 1]
    captions: list[Caption]
    kind: str
    captioned = True
    encoding = "lossless"
    resize: int | None = None

    @property
    def resolution(self) -> int:
        return self.images.shape[-1]

    def pick(self, numbers: Sequence[int]) -> Tensor:
        return quantised(self.images[list(numbers)])

    def pairs(self, count: int) -> list[tuple[int, int]]:
        return []

    def describe(self) -> dict[str, Any]:
        return {"pictures": f"drawn scenes, {self.kind}", "kimg": None, "ema": None, "weights_sha256": None}


def sources(held_out: Reference, captions: list[Caption], seed: int) -> list[Spoilt | Shown]:
    """One of each kind; of drawn scenes of 64 pixels also what stands in for their objects."""
    out: list[Spoilt | Shown] = [Spoilt(held_out, captions, kind) for kind in KINDS]
    if held_out.scenes and held_out.resolution == SIDE:
        drawn = {"drawn": scenes.real(len(captions), DRAWN_SEEDS + seed, held_out=())}
        for kind, (images, objects, colors) in (drawn | scenes.floors(len(captions), DRAWN_SEEDS + seed)).items():
            asked = [Caption(f"a {color or ''} {name}", None, name, color) for name, color in zip(objects, colors)]
            out.append(Shown(images, asked, f"drawn, {kind}" if kind != "drawn" else kind))
    return out


def table(results: dict[str, Result]) -> str:
    """{kind: what came of it} for the terminal: a line a kind, a column a score, with its 95 % interval."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.scores))
    rows = [["", *names]]
    for kind, result in results.items():
        rows.append([kind, *(_cell(result, name) for name in names)])
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    return "\n".join("".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in rows)


def _cell(result: Result, name: str) -> str:
    if name not in result.scores:
        return "-"
    value, interval = f"{result.scores[name]:.4g}", result.intervals.get(name)
    return f"{value} [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else value


def judge(r: Request, device: str) -> dict[str, Any]:
    """What score.py --floors does: every score of real pictures, and of what is left of them when they are spoilt."""
    assert r.floors
    assert r.reference
    reference = Reference(r.reference, r.seed)
    held_out = Reference(r.floors, r.seed, setting="floors")
    settings = Settings(r.networks, reference.scenes, r.seed)
    kinds = sources(held_out, held_out.captions(min(r.samples or MOST, held_out.count)), r.seed)
    chosen, left = choose(r.names, settings, reference, kinds[0])
    suite = Suite(chosen, settings, reference, reference_count=r.reference_count, parts=1, device=device)
    if PartialState().is_main_process:
        for reason, lacking in left.items():
            print(f"left out: {', '.join(lacking)}: {reason}", file=sys.stderr)
    results = {source.kind: suite.score(source) for source in kinds}
    if PartialState().is_main_process:
        print(table(results))
    return {
        "format": FORMAT,
        "floors": {kind: result.scores for kind, result in results.items()},
        "intervals": {kind: result.intervals for kind, result in results.items()},
        "protocol": suite.protocol(kinds[0]),
        "subject": {"model": r.floors},
    }
