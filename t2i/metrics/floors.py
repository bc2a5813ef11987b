"""What scores make of pictures that nobody would take for good ones: their floors. Of real pictures: their ceiling."""

import sys
from collections.abc import Callable, Sequence
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
class Shown:
    """Pictures of which it is known how good they are, with captions."""

    captions: list[Caption]
    kind: str
    resolution: int
    of: str  # what they are made from
    look: Callable[[Sequence[int]], Tensor]  # numbers → pictures [N, 3, H, W] in [-1, 1]
    captioned = True
    encoding = "lossless"
    resize: int | None = None

    def pick(self, numbers: Sequence[int]) -> Tensor:
        return quantised(self.look(list(numbers)))

    def pairs(self, count: int) -> list[tuple[int, int]]:
        return []

    def describe(self) -> dict[str, Any]:
        return {"pictures": f"{self.of}, {self.kind}", "kimg": None, "ema": None, "weights_sha256": None}


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


def sources(held_out: Reference, captions: list[Caption], seed: int) -> list[Shown]:
    """Real pictures and what is left of them, one of each of KINDS; of drawn scenes of 64 pixels also what stands in
    for their objects (t2i/probes/standins.py)."""
    look = lambda kind: lambda numbers: spoilt(held_out.pick(numbers), kind, numbers)
    out = [Shown(captions, kind, held_out.resolution, held_out.shards, look(kind)) for kind in KINDS]
    if held_out.scenes and held_out.resolution == SIDE:
        drawn = {"drawn": scenes.real(len(captions), DRAWN_SEEDS + seed, held_out=())}
        for kind, (images, objects, colors) in (drawn | scenes.floors(len(captions), DRAWN_SEEDS + seed)).items():
            asked = [Caption(f"a {color or ''} {name}", None, name, color) for name, color in zip(objects, colors)]
            label = f"drawn, {kind}" if kind != "drawn" else kind
            out.append(Shown(asked, label, SIDE, "drawn scenes", images.__getitem__))
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
