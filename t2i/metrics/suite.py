"""Scores of pictures: each network looks at each picture once, and all metrics share what it saw.

One process or several (accelerate launch): blocks of pictures are dealt out and their features gathered in order on
the first process, which computes the scores. The pictures are the same ones, bit for bit, however many there are.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from tqdm import tqdm

from t2i.errors import UserError
from t2i.metrics import bootstrap, fid, swd
from t2i.metrics.networks import Files, hashed, load, missing, sentences
from t2i.metrics.sources import Generated, Reference, Source, digest
from t2i.metrics.table import METRICS, MODEL, PAIRS, Evidence, known

BLOCK = 50  # pictures a process looks at together
RETRIEVAL = 1000  # real pictures among which the CLIP of the CLIP score must find the right ones


@dataclass
class Result:
    """Scores, and all that is needed to know what they may be compared with."""

    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %
    protocol: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a reader must know


def choose(
    names: Sequence[str] | None, files: Files, reference: Reference | None, source: Source
) -> tuple[list[str], dict[str, list[str]]]:
    """The metrics to compute of a source's pictures, and why → those that are left out.

    names: those asked for, each of which must be computable, or UserError says what it lacks; None: all that are.
    """
    check_resolution(reference, source)
    scenes = reference is not None and reference.scenes
    drawn = any(c.object for c in source.captions)
    side = source.resolution

    def lacks(name: str) -> str | None:
        metric = METRICS[name]
        if metric.reference and reference is None:
            return "needs real pictures: --reference SHARDS"
        if metric.of == "model" and not isinstance(source, Generated):
            return "needs the generator itself, not its pictures"
        if isinstance(source, Generated) and (without := [p for p in metric.parts if not _has(source, p)]):
            return f"the {source.model.config.model.name} generator has no {without[0]}"
        if metric.of == "pairs" and not source.pairs(1):
            return "needs two pictures of a caption"
        if name == "swd" and (side < swd.SMALLEST or side & (side - 1)):
            return f"needs pictures whose side is a power of two from {swd.SMALLEST} up"
        if name in ("eq_t", "eq_r") and side < 32:
            return "needs pictures of 32 pixels or more"
        reason = next((m for n in metric.networks if (m := missing(n, files, scenes))), None)
        if not reason and not drawn and (name == "probe" or (name == "soa" and not files.detector)):
            return "the captions do not say what should be seen: take those of scenes shards"
        return reason

    if names is not None:
        chosen = known(names)
        for name in chosen:
            if reason := lacks(name):
                raise UserError(f"--metrics {name}: {reason}")
        return chosen, {}
    reasons = {name: "only when asked for by name" if m.costly else lacks(name) for name, m in METRICS.items()}
    chosen = [name for name, reason in reasons.items() if not reason]
    if not chosen:
        raise UserError("no metric can be computed: " + "; ".join(f"{n}: {r}" for n, r in reasons.items()))
    left: dict[str, list[str]] = {}
    for name, why in reasons.items():
        if why:
            left.setdefault(why, []).append(name)
    return chosen, left


def check_resolution(reference: Reference | None, source: Source) -> None:
    """UserError where real pictures have another size than those to be judged: resizing either would be a score of
    the resizing."""
    if reference and reference.resolution != source.resolution:
        has, want = reference.resolution, source.resolution
        raise UserError(
            f"--reference {reference.shards}: its pictures are {has}×{has}, those to be judged {want}×{want}; "
            f"make the reference with --size {want}"
        )


class Suite:
    """Metrics with their networks, and the reference as they see it, which is looked at once."""

    def __init__(
        self,
        metrics: Sequence[str],
        files: Files,
        reference: Reference | None = None,
        *,
        reference_count: int | None = None,
        pairs: int = 500,
        resamples: int = 20,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: bool = True,
    ):
        """metrics: names that `choose` returned. resamples: how often scores of whole sets are computed again for
        their intervals; 0: no intervals at all."""
        self.metrics, self.reference, self.device = list(metrics), reference, torch.device(device)
        self.pairs, self.resamples, self.seed, self.progress = pairs, resamples, seed, progress
        self.reference_count = min(reference_count or reference.count, reference.count) if reference else 0
        self.real: dict[str, Any] | None = None
        self.notes: list[str] = []
        scenes = reference is not None and reference.scenes
        with noting(self.notes):
            names = dict.fromkeys(n for m in self.metrics for n in METRICS[m].networks)
            self.networks = {n: load(n, files, self.device, scenes, seed) for n in names}
        self.preprocessing = files.preprocessing

    def score(self, source: Source) -> Result:
        """Judges a source's pictures. On other processes than the first the result has no scores.

        UserError where the reference has another resolution, or a metric cannot be computed of these pictures.
        """
        check_resolution(self.reference, source)
        real = self._look_at_reference()
        fake = self._look_at(source)
        captions = source.captions
        result = Result({}, protocol=self.protocol(source), subject=source.describe(), notes=list(self.notes))
        if not PartialState().is_main_process:
            return result
        evidence = Evidence(fake, real, captions, self.networks, self.seed)
        with noting(result.notes), self._bar(len(self.metrics), "metric") as bar:
            for name in self.metrics:
                bar.set_description(name)
                self._measure(name, evidence, result)
                bar.update()
        result.notes[:] = dict.fromkeys(result.notes)
        return result

    def _bar(self, total: int, unit: str) -> tqdm:
        return tqdm(total=total, unit=unit, leave=False, disable=None if self.progress else True)

    def _measure(self, name: str, evidence: Evidence, result: Result) -> None:
        metric = METRICS[name]
        if self.device.type == "cuda":  # others count in float64 slowly or not at all
            evidence = evidence.on(self.device, metric.features)
        values = metric.measure(evidence)
        rows = {k: v for k, v in values.items() if isinstance(v, Tensor)}
        result.scores |= {k: float(v.double().mean()) if k in rows else float(v) for k, v in values.items()}
        if not self.resamples:
            return
        result.intervals |= {k: bootstrap.of_mean(v, self.seed) for k, v in rows.items() if len(v) > 1}
        if metric.whole and self.resamples > 1:
            again = lambda rows: metric.measure(evidence.resampled(rows, metric.features))
            numbers = {k: float(v) for k, v in values.items()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said once already
                result.intervals |= bootstrap.of_sets(again, len(evidence.captions), numbers, self.resamples, self.seed)

    def _look_at_reference(self) -> dict[str, Any]:
        """Features of real pictures, kept from the first call on."""
        if self.real is None:
            self.real = {}
            wanted = [m for m in self.metrics if METRICS[m].reference]
            features = {f for m in wanted for f in METRICS[m].features}
            rows = {f for m in wanted for f in METRICS[m].features if not METRICS[m].moments}
            pairs = min(RETRIEVAL, self.reference_count) if "clip_score" in self.metrics else 0
            count = self.reference_count if wanted else pairs
            if self.reference and count:
                reference, captions = self.reference, self.reference.captions(pairs)
                names = {n for m in wanted for n in METRICS[m].networks} | ({"clip"} if pairs else set())

                def work(numbers: range) -> dict[str, Tensor]:
                    seen = self._see(reference.pick(numbers), numbers, names)
                    kept = {k: v for k, v in seen.items() if k in features}
                    if numbers.start < pairs:
                        n = min(len(numbers), pairs - numbers.start)
                        texts = [c.text for c in captions[numbers.start : numbers.start + n]]
                        clip = self.networks["clip"].of
                        kept |= {"pair_image": seen["clip"][:n], "pair_text": sentences(texts, clip)}
                    return kept

                self.real = spread(count, work, "reference", self.progress, features - rows)
        return self.real

    def _look_at(self, source: Source) -> dict[str, Any]:
        """Features of the judged pictures, and what is measured on pairs of them and on paths between them."""
        names = {n for m in self.metrics if METRICS[m].of == "pictures" for n in METRICS[m].networks}
        used = {f for m in self.metrics for f in METRICS[m].features}
        fake: dict[str, Any] = {}

        def look(numbers: range) -> dict[str, Tensor]:
            seen = self._see(source.pick(numbers), numbers, names)
            if "clip_text" in used:
                texts = [source.captions[n].text for n in numbers]
                seen["clip_text"] = sentences(texts, self.networks["clip"].of)
            return {k: v for k, v in seen.items() if k in used}

        if names:
            fake |= spread(len(source.captions), look, "pictures", self.progress)
        if both := [m for m in self.metrics if METRICS[m].of == "pairs"]:
            pairs = source.pairs(self.pairs)
            if not pairs:
                raise UserError(f"--metrics {both[0]}: no caption has two pictures")

            def compare(numbers: range) -> dict[str, Tensor]:
                a, b = (source.pick([pairs[n][side] for n in numbers]).to(self.device) for side in (0, 1))
                return {k: v for m in both for k, v in PAIRS[m](a, b, self.networks).items()}

            fake |= spread(len(pairs), compare, "pairs", self.progress)
        for name in self.metrics:
            if METRICS[name].of == "model":
                assert isinstance(source, Generated)
                ask = partial(MODEL[name], source, self.networks)
                fake |= spread(len(source.captions), ask, name, self.progress)
        return fake

    def _see(self, images: Tensor, numbers: range, names: set[str]) -> dict[str, Tensor]:
        images = images.to(self.device)
        out: dict[str, Tensor] = {}
        with torch.no_grad():
            for name in names:
                if name != "patches" or numbers.start < swd.PICTURES:
                    out |= self.networks[name].see(images, numbers)
        return out

    def protocol(self, source: Source) -> dict[str, Any]:
        """The fingerprint: what two scores must have in common to be compared."""
        fields: dict[str, Any] = {
            "resolution": source.resolution,
            "samples": len(source.captions),
            "captions": digest(source.captions),
            "seed": self.seed,
            "truncation": source.truncation if isinstance(source, Generated) else None,
            "noise": source.noise if isinstance(source, Generated) else None,
        }
        if self.reference:
            fields |= self.reference.describe(self.reference_count)
        fields |= {name: network.fingerprint for name, network in self.networks.items()}
        if "vgg" in self.networks:
            fields["vgg"] += f" {self.preprocessing}"
        if any(METRICS[m].of == "pairs" for m in self.metrics):
            fields["pairs"] = len(source.pairs(self.pairs))
        return fields


def relevant(score_names: Sequence[str]) -> set[str]:
    """The fields of a fingerprint that some metrics' scores depend on."""
    out = {"resolution", "samples", "captions", "seed", "truncation", "noise"}
    for name in score_names:
        metric = METRICS[name]
        out |= set(metric.networks) | ({"pairs"} if metric.of == "pairs" else set())
        if metric.reference:
            out |= {"resize", "reference", "reference_count"}
    return out


def spread(
    count: int,
    work: Callable[[range], dict[str, Tensor]],
    label: str,
    progress: bool = True,
    moments: Sequence[str] | set[str] = (),
) -> dict[str, Any]:
    """work(numbers) → {name: rows} of each block of `count`, dealt to all processes; on the first all rows in order,
    on others nothing. Of the names in `moments` only fid.Moments are kept, whose memory does not grow."""
    state = PartialState()
    blocks = [range(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]
    kept: dict[str, list[Tensor]] = {}
    sums: dict[str, fid.Moments] = {}
    hidden = None if progress and state.is_main_process else True
    with tqdm(total=count, unit="picture", desc=label, leave=False, disable=hidden) as bar:
        for first in range(0, len(blocks), state.num_processes):
            mine = first + state.process_index
            made = {k: v.cpu() for k, v in work(blocks[mine]).items()} if mine < len(blocks) else None
            everyone = gather_object([made]) if state.num_processes > 1 else [made]
            for name, rows in ((n, r) for part in everyone if part and state.is_main_process for n, r in part.items()):
                if name in moments:
                    sums[name] = sums[name].add(rows) if name in sums else fid.moments(rows)
                else:
                    kept.setdefault(name, []).append(rows)
            bar.update(sum(len(b) for b in blocks[first : first + state.num_processes]))
    return {name: torch.cat(rows) for name, rows in kept.items()} | sums


def _has(source: Generated, part: str) -> bool:
    try:
        return attrgetter(part)(source.model.generator) is not None
    except AttributeError:
        return False


@contextmanager
def noting(notes: list[str]):
    """Warnings of metrics and networks become lines of `notes`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


def trained_with(source: Source, suite: Suite) -> list[str]:
    """A line where the CLIP that judges is one that the model was trained with."""
    if not isinstance(source, Generated) or "clip" not in suite.networks:
        return []
    encoders, judge = source.model.config.encoders, suite.networks["clip"].of
    reads_alike = hashed(source.model.text_encoder.network) == hashed(judge.text.network)
    if judge.name not in (encoders.text, encoders.clip) and not reads_alike:
        return []
    return [f"clip: {judge.name} was used in training this model, so its scores flatter it; name another, --clip"]
