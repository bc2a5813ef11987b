"""Scores of pictures: each network looks at each picture once, and all metrics share what it saw.

One process or several (accelerate launch): blocks of pictures are dealt out and their features gathered in order on
the first process, which computes the scores. The pictures are the same ones, bit for bit, however many there are.
"""

import math
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from t2i.errors import UserError
from t2i.metrics import frechet, intervals, networks, protocol
from t2i.metrics.metric import Evidence, Metric, every, named
from t2i.metrics.networks import Network, Settings
from t2i.metrics.references import AnyReference, Statistics
from t2i.metrics.rows import Rows
from t2i.metrics.sources import Generated, Source

BLOCK = 50  # pictures a process looks at together


@dataclass
class Result:
    """Scores, and all that is needed to know what they may be compared with."""

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %
    protocol: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a reader must know
    left_out: dict[str, str] = field(default_factory=dict)  # metric → why it could not be computed of these pictures


def choose(
    names: Sequence[str] | None, settings: Settings, reference: AnyReference | None, source: Source
) -> tuple[list[Metric], dict[str, list[str]]]:
    """The metrics to compute of a source's pictures, and why → those that are left out.

    names: those asked for, each of which must be computable, or UserError says what it lacks; None: all that are.
    """
    check_resolution(reference, source)
    chosen: list[Metric] = []
    left: dict[str, list[str]] = {}
    for metric in every() if names is None else named(names):
        reason = lacks(metric, settings, reference, source, names is not None)
        if names is None and metric.costly:
            reason = "only when asked for by name"
        if reason and names is not None:
            raise UserError(f"{settings.spell('metrics')} {metric.name}: {reason}")
        if reason:
            left.setdefault(reason, []).append(metric.name)
        else:
            chosen.append(metric)
    if not chosen:
        told = "; ".join(f"{', '.join(lacking)}: {reason}" for reason, lacking in left.items())
        raise UserError(f"no metric can be computed: {told}")
    return chosen, left


def lacks(
    metric: Metric, settings: Settings, reference: AnyReference | None, source: Source, by_name: bool = True
) -> str | None:
    """Why a metric cannot be computed of a source's pictures; None where it can be. by_name: it was asked for so."""
    side = source.resolution
    if metric.reference and reference is None:
        return f"needs real pictures: {settings.spell('reference')} SHARDS"
    if metric.reference and isinstance(reference, Statistics):
        absent = reference.lacks(metric.features, metric.moments, by_name)
        if absent:
            return absent
    if metric.of_model and not isinstance(source, Generated):
        return "needs the generator itself, not its pictures"
    if (metric.reads or metric.of_pairs) and not source.captioned:
        return "needs captions: --captions FILE"
    if metric.of_pairs and not source.pairs(1):
        return "needs two pictures of a caption"
    if metric.power_of_two and (side < metric.smallest or side & (side - 1)):
        return f"needs pictures whose side is a power of two from {metric.smallest} up"
    if side < metric.smallest:
        return f"needs pictures of {metric.smallest} pixels or more"
    absent = next((reason for n in metric.networks if (reason := networks.missing(n, settings))), None)
    return absent or metric.lacks(source, settings)


def check_resolution(reference: AnyReference | None, source: Source) -> None:
    """UserError where real pictures have another size than those to be judged: resizing either would be a score of
    the resizing."""
    if reference and reference.resolution not in (None, source.resolution):
        has, want = reference.resolution, source.resolution
        raise UserError(
            f"{reference.said}: its pictures are {has}×{has}, those to be judged {want}×{want}; "
            f"make the reference with --size {want}{'' if isinstance(source, Generated) else f', or --resize {has}'}"
        )


class Suite:
    """Metrics with their networks, and the reference as they see it, which is looked at once."""

    def __init__(
        self,
        metrics: Sequence[Metric],
        settings: Settings,
        reference: AnyReference | None = None,
        *,
        reference_count: int | None = None,
        pairs: int = 500,
        parts: int = 20,
        device: torch.device | str = "cpu",
        progress: bool = True,
        load: Callable[[str, Settings, Any], Network] = networks.load,
    ):
        """metrics: those that `choose` returned. parts: how many parts of the pictures are left out in turn, for
        the intervals of whole sets' scores; 0: no intervals at all. load: how networks are had."""
        self.metrics, self.settings, self.reference = list(metrics), settings, reference
        self.device, self.pairs, self.parts, self.progress = torch.device(device), pairs, parts, progress
        self.reference_count = min(reference_count or reference.count, reference.count) if reference else 0
        if isinstance(reference, Statistics) and reference_count:
            said = f"{settings.spell('reference_count')} {reference_count}"
            raise UserError(f"{said}: {reference.said} has statistics, which are of all their pictures")
        self.real: dict[str, Any] | None = None
        self.captioned: dict[str, Any] = {}
        self.notes: list[str] = []
        if reference and (reference_count or 0) > reference.count:
            said = f"{settings.spell('reference_count')} {reference_count}"
            self.notes.append(f"{said}: {reference.said} has {reference.count} pictures, and all are taken")
        with noting(self.notes):
            names = dict.fromkeys(n for m in self.metrics for n in m.networks)
            self.networks = {n: load(n, settings, self.device) for n in names}

    def score(self, source: Source) -> Result:
        """Judges a source's pictures. On other processes than the first the result has no scores.

        A metric that cannot be computed of these pictures is left out, and the result says why. UserError where none
        can be, or the reference has another resolution.
        """
        check_resolution(self.reference, source)
        real = self.look_at_reference()
        fake = self._look_at(source)
        result = Result({}, protocol=self.protocol(source), subject=source.describe(), notes=list(self.notes))
        if not PartialState().is_main_process:
            return result
        evidence = Evidence(
            fake, real, source.captions, self.networks, self.settings.seed, self.captioned, source.resolution
        )
        bar = tqdm(total=len(self.metrics), unit="metric", leave=False, disable=None if self.progress else True)
        with noting(result.notes), bar:
            for metric in self.metrics:
                bar.set_description(metric.name)
                try:
                    self._measure(metric, evidence, result)
                except (UserError, RuntimeError) as error:  # RuntimeError: torch's, of linear algebra or memory
                    reason = " ".join(str(error).split())[:300].removeprefix(f"{metric.name}: ")
                    result.left_out[metric.name] = reason
                bar.update()
        if not result.scores:
            told = "; ".join(f"{name}: {reason}" for name, reason in result.left_out.items())
            raise UserError(f"no metric can be computed of these pictures: {told}")
        result.notes[:] = dict.fromkeys(result.notes)
        return result

    def protocol(self, source: Source) -> dict[str, Any]:
        """What two scores must have in common to be compared."""
        return protocol.describe(
            source, self.metrics, self.networks, self.reference, self.reference_count, self.pairs, self.settings.seed
        )

    def trained_with(self, source: Source) -> list[str]:
        """A line for each network that judges though the model was trained with it."""
        if not isinstance(source, Generated):
            return []
        return [
            f"{name}: {network.title} was used in training this model, so its scores flatter it; name another, "
            f"{self.settings.spell(name)}"
            for name, network in self.networks.items()
            if network.used_in_training(source.model)
        ]

    def _measure(self, metric: Metric, evidence: Evidence, result: Result) -> None:
        if self.device.type == "cuda":  # others count in float64 slowly or not at all
            evidence = evidence.on(self.device, metric.features)
        if metric.moments and metric.reference:  # summed up once, not for every part that is left out
            evidence = replace(
                evidence, real=evidence.real | {f: frechet.moments(evidence.real[f]) for f in metric.features}
            )
        values = metric.measure(evidence)
        rows = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        estimates = {k: v for k, v in values.items() if isinstance(v, intervals.Estimate)}
        numbers = {k: float(v) for k, v in values.items() if k not in rows and k not in estimates}
        numbers |= {k: float(v.double().mean()) for k, v in rows.items()} | {k: v.value for k, v in estimates.items()}
        result.scores |= {k: numbers[k] for k in values}
        if not self.parts:
            return
        found = {k: intervals.of_mean(v) for k, v in rows.items() if len(v) > 1}
        found |= {k: v.interval for k, v in estimates.items() if math.isfinite(v.deviation)}
        if metric.whole and self.parts > 1:
            if reason := metric.no_interval(evidence):
                warnings.warn(f"{metric.name}: no interval: {reason}", stacklevel=2)
            else:
                found |= self._of_parts(metric, evidence, numbers)
        at_least = lambda end: max(end, 0.0) if metric.distance else end
        result.intervals |= {k: (at_least(found[k][0]), at_least(found[k][1])) for k in values if k in found}

    def _of_parts(self, metric: Metric, evidence: Evidence, numbers: dict[str, float]) -> dict[str, intervals.Interval]:
        """Intervals of a whole set's scores. What of a distance is bias becomes a note."""
        count = len(evidence.captions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said once already
            if metric.moments:
                split = intervals.parts_of(count, self.parts, self.settings.seed)
                without = evidence.without_parts(split, metric.features)
                found, bias = intervals.jackknife(lambda n: metric.measure(without(n)), len(split), numbers)
            else:
                again = lambda rows: metric.measure(evidence.resampled(rows, metric.features))
                found, bias = intervals.of_sets(again, count, numbers, self.parts, self.settings.seed)
        if metric.moments:
            name = next(iter(numbers))
            warnings.warn(
                f"{name}: about {bias[name]:.3g} of it is because {count} generated pictures are few; few real ones "
                "add more: compare only distances of equally many",
                stacklevel=3,
            )
        return found

    def look_at_reference(self) -> dict[str, Any]:
        """Features of real pictures, kept from the first call on: of all, for metrics that compare with them, and of
        the first few with their captions."""
        if self.real is not None:
            return self.real
        self.real = {}
        compared, read = [m for m in self.metrics if m.reference], [m for m in self.metrics if m.captioned]
        few = min(max((m.captioned for m in read), default=0), self.reference_count)
        few = few if self.reference and self.reference.captioned else 0
        count = self.reference_count if compared else few
        if not (self.reference and count):
            return self.real
        if isinstance(self.reference, Statistics):
            seen = {f: self.networks[m.networks[0]].fingerprint for m in compared for f in m.features}
            self.real |= {f: self.reference.of(f, fingerprint) for f, fingerprint in seen.items()}
            return self.real
        reference, captions = self.reference, self.reference.captions(few) if few else []
        rows = features_of(m for m in compared if not m.moments)
        wanted, wanted_few, readers = features_of(compared), features_of(read), networks_of(read)
        names = networks_of(compared) | (readers if few else set())

        def look(numbers: range) -> dict[str, Tensor]:
            seen = self._see(reference.pick(numbers), numbers, names)
            kept = {k: v for k, v in seen.items() if k in wanted}
            if numbers.start < few:
                n = min(len(numbers), few - numbers.start)
                seen |= self._read([c.text for c in captions[numbers.start : numbers.start + n]], readers)
                kept |= {f"captioned {k}": v[:n] for k, v in seen.items() if k in wanted_few}
            return kept

        for name, value in in_blocks(count, look, "reference", self.progress, wanted - rows).items():
            into = self.captioned if name.startswith("captioned ") else self.real
            into[name.removeprefix("captioned ")] = value
        return self.real

    def _look_at(self, source: Source) -> dict[str, Any]:
        """Features of the judged pictures, and what is measured on pairs of them and asked of the generator."""
        single = [m for m in self.metrics if not m.of_pairs and not m.of_model]
        names, readers = networks_of(single), networks_of(m for m in single if m.reads)
        wanted = features_of(single)
        fake: dict[str, Any] = {}

        def look(numbers: range) -> dict[str, Tensor]:
            seen = self._see(source.pick(numbers), numbers, names)
            seen |= self._read([source.captions[n].text for n in numbers], readers)
            return {k: v for k, v in seen.items() if k in wanted}

        if names:
            fake |= in_blocks(len(source.captions), look, "pictures", self.progress)
        if both := {m.name: m.of_pairs for m in self.metrics if m.of_pairs}:
            pairs = source.pairs(self.pairs)
            if not pairs:
                raise UserError(f"{self.settings.spell('metrics')} {next(iter(both))}: no caption has two pictures")

            def compare(numbers: range) -> dict[str, Tensor]:
                a, b = (source.pick([pairs[n][side] for n in numbers]).to(self.device) for side in (0, 1))
                return {k: v for measure in both.values() for k, v in measure(a, b, self.networks).items()}

            fake |= in_blocks(len(pairs), compare, "pairs", self.progress)
        for metric in self.metrics:
            if metric.of_model:
                assert isinstance(source, Generated)
                ask = partial(metric.of_model, source, self.networks)
                fake |= in_blocks(len(source.captions), ask, metric.name, self.progress)
        return fake

    @torch.no_grad()
    def _see(self, images: Tensor, numbers: range, names: Collection[str]) -> dict[str, Tensor]:
        images = images.to(self.device)
        out: dict[str, Tensor] = {}
        for network in (self.networks[name] for name in names):
            if numbers.start < network.most:
                out |= network.see(images, numbers)
        return out

    def _read(self, captions: Sequence[str], names: Collection[str]) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        for name in names:
            out |= self.networks[name].read(captions)
        return out


def networks_of(metrics: Iterable[Metric]) -> set[str]:
    return {name for metric in metrics for name in metric.networks}


def features_of(metrics: Iterable[Metric]) -> set[str]:
    return {name for metric in metrics for name in metric.features}


def in_blocks(
    count: int,
    work: Callable[[range], dict[str, Tensor]],
    label: str,
    progress: bool = True,
    moments: Collection[str] = (),
) -> dict[str, Any]:
    """work(numbers) → {name: rows} of each block of `count`, dealt to all processes; on the first all rows in order,
    on others nothing. Of the names in `moments` only frechet.Moments are kept, whose memory does not grow."""
    state = PartialState()
    blocks = [range(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]
    kept: dict[str, Rows] = {}
    sums: dict[str, frechet.Moments] = {}
    hidden = None if progress and state.is_main_process else True
    with tqdm(total=count, unit="picture", desc=label, leave=False, disable=hidden) as bar:
        for first in range(0, len(blocks), state.num_processes):
            mine = first + state.process_index
            made = {k: v.cpu() for k, v in work(blocks[mine]).items()} if mine < len(blocks) else None
            everyone = gather_object([made]) if state.num_processes > 1 else [made]
            for name, rows in ((n, r) for part in everyone if part and state.is_main_process for n, r in part.items()):
                if name in moments:
                    sums[name] = sums[name].add(rows) if name in sums else frechet.moments(rows)
                else:
                    kept.setdefault(name, Rows(count)).append(rows)
            bar.update(sum(len(b) for b in blocks[first : first + state.num_processes]))
    return {name: rows.whole() for name, rows in kept.items()} | sums


@contextmanager
def noting(notes: list[str]):
    """Warnings of metrics and networks become lines of `notes`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
