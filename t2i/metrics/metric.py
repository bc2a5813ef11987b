"""What a metric's file exports, and how metrics are found by their names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from importlib import import_module
from typing import Any

from torch import Tensor

from t2i import metrics
from t2i.metrics.captions import Caption
from t2i.metrics.frechet import Moments, moments
from t2i.metrics.networks import Network, Settings
from t2i.metrics.sources import Generated, Source

Networks = Mapping[str, Network]


@dataclass(frozen=True)
class Evidence:
    """What metrics are computed from: features of the judged pictures and of the reference, row by row."""

    fake: dict[str, Any]  # name → [N, ...], or Moments
    real: dict[str, Any]
    captions: Sequence[Caption]  # [N]
    networks: Networks
    seed: int = 0
    captioned: dict[str, Any] = field(default_factory=dict)  # of some real pictures, and of a caption of each
    resolution: int = 0  # side of the judged pictures

    def on(self, device: Any, names: Sequence[str]) -> "Evidence":
        """The same with the named features, rows or moments, on a device."""
        move = lambda features: features | {n: features[n].to(device) for n in names if n in features}
        return replace(self, fake=move(self.fake), real=move(self.real))

    def resampled(self, rows: Tensor, names: Sequence[str]) -> "Evidence":
        """The same with these rows of the named features of judged pictures."""
        return replace(self, fake=self.fake | {n: self.fake[n][rows.to(self.fake[n].device)] for n in names})

    def without_parts(self, parts: Sequence[Tensor], names: Sequence[str]) -> Callable[[int], "Evidence"]:
        """The number of a part of the rows → the same without it, with moments in place of the named features' rows:
        each row is looked at once, however many parts there are."""
        each = [{n: moments(self.fake[n][rows.to(self.fake[n].device)]) for n in names} for rows in parts]

        def without(number: int) -> "Evidence":
            kept = each[:number] + each[number + 1 :]
            return replace(self, fake=self.fake | {n: reduce(Moments.join, (one[n] for one in kept)) for n in names})

        return without


@dataclass(frozen=True)
class Metric:
    """What it looks through, what it needs, which way is better, its scores."""

    # → numbers; numbers that know their deviation (intervals.Estimate); or one value a picture, whose mean is the score
    # and whose spread gives its interval
    measure: Callable[[Evidence], dict[str, Any]]
    networks: tuple[str, ...] = ()  # files of networks/ that it looks through
    features: tuple[str, ...] = ()  # of those that they give: what `measure` reads row by row
    reads: bool = False  # its networks read the captions too
    captioned: int = 0  # so many real pictures, with a caption each, it wants to see beside, where there is a reference
    # Those that look at two pictures of a caption, [N, 3, H, W] each, or ask the generator itself (of the captions
    # with these numbers), rather than at pictures one by one: → {name: rows}, which `measure` finds in Evidence.fake.
    of_pairs: Callable[[Tensor, Tensor, Networks], dict[str, Tensor]] | None = None
    of_model: Callable[[Generated, Networks, Sequence[int]], dict[str, Tensor]] | None = None

    reference: bool = False  # needs real pictures
    moments: bool = False  # of which only mean and covariance are kept
    smallest: int = 1  # side of pictures that it can judge
    power_of_two: bool = False  # that their side must be
    lacks: Callable[[Source, Settings], str | None] = lambda source, settings: None  # what else is lacking, and remedy
    costly: bool = False  # computed only when asked for by name

    # Of its definition, one more whenever its numbers change: scores of two versions are not compared.
    version: int = 1
    # What else decides its scores of so many judged and real pictures, by the words of the protocol.
    settings: Callable[[int, int], dict[str, Any]] = lambda samples, reference_count: {}

    scores: tuple[str, ...] = ()  # the main ones; others begin like one of them. Empty: one, of the file's name
    beside: tuple[str, ...] = ()  # how those begin of which neither a high nor a low value is better
    of_reference: tuple[str, ...] = ()  # and of these, those of real pictures alone: no training changes them
    lower: bool = False  # is better
    distance: bool = False  # never below 0: neither are the ends of intervals
    whole: bool = False  # only a whole set has a score: its interval takes computing it again
    # Of such a score: why there is no interval that could be believed, and what to do; None where there is one.
    no_interval: Callable[[Evidence], str | None] = lambda evidence: None
    order: int = 1000  # its place in tables, from the top; of several, the first score decides what eval keeps as best
    name: str = ""  # of its file

    def gives(self, score: str) -> bool:
        """Whether a score is one of its own: "precision", "swd_64", "VGG relu1_2"."""
        begins = tuple(f"{name}{mark}" for name in self.scores for mark in "_ ")
        return score in self.scores or score.startswith((*begins, *self.beside, *self.of_reference))

    def better(self, score: str) -> str:
        """ "lower" or "higher"; nothing for what is only told beside a score."""
        if score.startswith((*self.beside, *self.of_reference)):
            return ""
        return "lower" if self.lower else "higher"


@cache
def find(name: str) -> Metric:
    """A metric by the name of its file. UserError with the closest for one that is not there."""
    metrics.check([name])
    found = import_module(f"t2i.metrics.{name}").METRIC
    return replace(found, name=name, scores=found.scores or (name,))


def every() -> list[Metric]:
    """All metrics, in the order of tables."""
    return named(metrics.known())


def named(names: Sequence[str]) -> list[Metric]:
    """Metrics by their names, each once, in the order of tables."""
    return sorted({name: find(name) for name in names}.values(), key=lambda metric: (metric.order, metric.name))


def owner(score: str) -> Metric | None:
    """The metric that gives a score; the one that has exactly this name before those whose scores only begin so."""
    exact = (m for m in every() if score in m.scores)
    return next(exact, None) or next((m for m in every() if m.gives(score)), None)


def of_reference(score: str) -> bool:
    """Whether a score is of real pictures alone, told beside another."""
    metric = owner(score)
    return metric is not None and score.startswith(metric.of_reference)
