"""Scores while training: the averaged generator is judged every so often, and its best state so far is kept.

All processes make their part of the pictures. Nothing is drawn from the random numbers of training, so that a run
with evaluation, or resumed in the middle of it, trains as one without.
"""

import json
import logging
import math
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from t2i import metrics, stages
from t2i.config import Eval
from t2i.errors import UserError, closest
from t2i.interfaces import Stage
from t2i.metrics import networks
from t2i.metrics.captions import Caption
from t2i.metrics.compare import better
from t2i.metrics.metric import of_reference
from t2i.metrics.networks import Settings
from t2i.metrics.sources import Generated, Reference, overlap
from t2i.metrics.suite import Suite, choose, noting
from t2i.model import Model, save_model
from t2i.run import Run

SCORE = "score.json"

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """Judges a run; the networks and what they see of the reference stay in memory."""

    suite: Suite
    captions: list[Caption]
    best: str  # the score that decides which state is kept
    folder: Path  # of the run

    def __call__(self, run: Run) -> tuple[dict[str, float], float]:
        """Scores of the averaged generator, named "eval/...", and the seconds it took. Empty on other processes than
        the first, which also keeps the best state in <run>/best, and while pictures have yet to grow."""
        start = time.monotonic()
        if run.stage.resolution < run.settings.model.resolution:
            return {}, 0.0
        with isolated(run.device):
            result = self.suite.score(generated(run, self.captions, self.folder, run.stage))
        for name, reason in result.left_out.items():
            log.warning("left out: %s: %s", name, reason)
        scores = result.scores
        scores = {k: v for k, v in scores.items() if not of_reference(k)}  # they never change
        if scores:
            self.keep(run, scores)
        return {f"eval/{name}": value for name, value in scores.items()}, time.monotonic() - start

    def keep(self, run: Run, scores: dict[str, float]) -> None:
        """Makes <run>/best, a model folder with its score beside it, hold the better of this state and that one."""
        target, spare = self.folder / "best", self.folder / ".best-before"
        if spare.is_dir() and not target.is_dir():  # killed between the two renames below
            spare.rename(target)
        value, lower = scores.get(self.best, math.nan), better(self.best) == "lower"  # nan where it was left out
        before = _read(target / SCORE, self.best)
        if not math.isfinite(value) or (before is not None and (value >= before if lower else value <= before)):
            return
        partial = self.folder / ".best-partial"
        for left in (partial, spare):
            shutil.rmtree(left, ignore_errors=True)
        try:
            save_model(partial, run.G_ema.state_dict(), run.settings, run.text_encoder.dim, run.kimg, run.stage)
            text = json.dumps({"best": self.best, "step": run.step, "scores": scores}, indent=2)
            (partial / SCORE).write_text(text + "\n", encoding="utf-8")
            if target.is_dir():
                target.rename(spare)
            partial.rename(target)
        except OSError as error:
            raise UserError(f"{target} not written ({error.strerror}); free space, then resume") from None
        shutil.rmtree(spare, ignore_errors=True)


def _read(path: Path, score: str) -> float | None:
    """The kept state's score; None where there is none of this name."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["scores"][score])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(run: Run, folder: Path) -> Evaluation | None:
    """What `eval` of the configuration asks for; None where it asks for nothing.

    Loads every network, so that what is missing stops the run before it starts rather than hours later.
    """
    e = run.config.eval
    if e.every <= 0:
        return None
    metrics.check(e.metrics)
    networks.check(e.networks, spell)
    with isolated(run.device):
        reference = Reference(e.reference, e.seed, run.config.data.cache, spell=spell)
        settings = Settings(e.networks, reference.scenes, e.seed, spell)
        if e.samples > reference.count:
            raise UserError(f"eval.samples={e.samples}: {e.reference} has {reference.count} pictures; at most so many")
        captions = reference.captions(e.samples)
        source = generated(run, captions, folder, Stage(run.settings.model.resolution))
        chosen, _ = choose(e.metrics or None, settings, reference, source)
        scores = [score for metric in chosen for score in metric.scores]
        best = e.best or scores[0]
        if best not in scores:
            raise UserError(f"eval.best={best}: not a score of eval.metrics; {closest(best, scores)}")
        suite = Suite(chosen, settings, reference, pairs=min(500, e.samples), parts=0, device=run.device)
        if run.rank == 0:
            notes = suite.trained_with(source) + suite.notes
            if stages.resolutions(run.settings):
                notes.append(f"eval: pictures are judged from model.resolution={run.settings.model.resolution} on")
            with noting(notes):
                overlap(run.config.data.shards, reference)
            for line in notes:
                log.warning("%s", line)
        return Evaluation(suite, captions, best, folder)


def generated(run: Run, captions: list[Caption], folder: Path, stage: Stage) -> Generated:
    """The averaged generator's pictures at a stage."""
    model = Model(run.G_ema, run.text_encoder, run.settings, run.kimg, folder, run.device, stage)
    return Generated(model, captions, run.config.eval.seed)


def isolated(device: torch.device):
    """The random numbers of training are what they were when this is over."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def spell(setting: str) -> str:
    """How a run's configuration spells what score.py takes as an option: eval.reference, eval.networks.lpips_alex."""
    own = setting in {f.name for f in fields(Eval)}
    return f"eval.{setting}" if own else f"eval.networks.{setting}"
