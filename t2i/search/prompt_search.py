"""The search for one prompt, a generation at a time.

For every evaluation that it spends a plain sample is drawn: the best of them is what the budget buys without any
search. A second scorer, which nothing optimises, looks at the best of both.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from t2i import parallel
from t2i.errors import UserError, one_line
from t2i.model import Model
from t2i.search import algorithms, objectives
from t2i.search.algorithm import Evaluations, Task
from t2i.search.evaluate import Evaluator, HeldOutScorer
from t2i.search.measures import AppearanceMeasures
from t2i.search.objectives import Objectives
from t2i.search.pool import Pool, Row, check_recorded
from t2i.search.record import Record, from_json, to_json, unpack
from t2i.search.scorers import Scorers
from t2i.search.seeds import seed_for
from t2i.search.settings import Settings
from t2i.search.spaces import prompt_spaces

PLAIN = 64  # samples that say what plain ones score, and how much they differ
MIN_EVALUATIONS = 2000  # before a plateau may stop a prompt


class PromptSearch:
    """One prompt's algorithm, candidates and history."""

    def __init__(self, model: Model, prompt: str, number: int, settings: Settings, scorers: Scorers, record: Record):
        """settings: resolved. number: of the prompt, in the record."""
        self.model, self.prompt, self.number, self.settings = model, prompt, number, settings
        self.scorers, self.record = scorers, record
        self.is_baseline = settings.algorithm == "best_of_n"  # is what the others are compared with
        plain_space, space = prompt_spaces(model, prompt, settings)
        batch, kind = settings.batch, algorithms.find(settings.algorithm)
        self.rng = self._plain_rng()
        plain = plain_space.project(self._sample(PLAIN))
        self.plain_pictures = Evaluator(plain_space, Objectives({}), batch).images_in_batches(plain)
        if scorers.objective is not None:
            goals = Objectives({"objective": scorers.objective})
        else:
            goals = objectives.build(
                scorers.parts, model, prompt, scorers.clips, scorers.critic, settings.views, self.plain_pictures,
                seed_for(settings.seed, "", "views"),
            )  # fmt: skip
        measures = AppearanceMeasures(self.plain_pictures) if kind.needs_measures else None
        held_out = HeldOutScorer(scorers.held_out, prompt, batch, model.device)
        self.baseline = Pool("baseline", Evaluator(plain_space, goals, batch), held_out)
        self.searched = Pool("search", Evaluator(space, goals, batch, measures), held_out)
        plain_scores = self.baseline.evaluate(plain).objectives  # [PLAIN, objectives]
        several = plain_scores.shape[1] > 1
        self.moments = np.array([mean_and_std(column) if several else (0, 1) for column in plain_scores.T])
        self.plain = {
            "score": mean_and_std(self.score(plain_scores)),
            "held_out": mean_and_std(held_out(self.plain_pictures)),
        }
        seed = seed_for(settings.seed, prompt, "search")
        self.algorithm = kind(Task(space.dim, settings.population, settings.budget, seed, len(goals.parts)))
        self.rng = self._plain_rng()  # from the start: the samples of above again
        self.worst: np.ndarray | float = math.inf
        self.generation = self.spent = self.invalid = 0
        self.stopped = ""
        self.history: list[dict[str, float]] = []

    def step(self) -> None:
        """One generation, evaluated or read from the record."""
        searched, baseline = self.searched, self.baseline
        cost, gradients = self.algorithm.cost, self.algorithm.needs_gradients
        asked = searched.space.project(self._sample(cost) if self.is_baseline else self.algorithm.ask())
        asked = parallel.broadcast(torch.from_numpy(asked).to(self.model.device)).cpu().numpy()
        beside = cost if self.settings.baseline and not self.is_baseline else 0
        plain = baseline.space.project(self._sample(beside))
        rows = self.record.known.pop((self.number, self.generation), None)
        new = rows is None
        if rows is None:
            rows = self._evaluate(searched, asked, gradients) + self._evaluate(baseline, plain)
        with nullcontext() if new else damage_is_told(self.record, self.generation):
            generation = [
                (pool, points, [row for row in rows if row["by"] == pool.by])
                for pool, points in ((searched, asked), (baseline, plain))
            ]
            self.spent += cost
            for pool, points, mine in generation:
                if not new:
                    check_recorded(self.record, self.generation, mine, points)
                pool.keep_best(mine, points, new)
            self._tell(asked, generation[0][2])
            facts = self._facts(generation[0][2])
            self.history.append(facts)
            if new:
                self.record.close_generation(
                    self.number, self.generation, rows, {k: to_json(v) for k, v in facts.items()}
                )
            for pool, points, mine in generation:
                pool.add(mine, points)
        self.generation += 1
        self._stop()

    def score(self, objectives: np.ndarray) -> np.ndarray:
        """[n, objectives] → [n]: the one, or the mean of several, each in standard deviations of plain samples."""
        return ((objectives - self.moments[:, 0]) / np.maximum(self.moments[:, 1], 1e-12)).mean(1)

    def _plain_rng(self) -> np.random.Generator:
        return np.random.default_rng(seed_for(self.settings.seed, self.prompt, "plain"))

    def _sample(self, count: int) -> np.ndarray:
        """Plain samples, [count, latent_dim]."""
        return self.rng.standard_normal((count, self.model.generator.latent_dim))

    def _evaluate(self, pool: Pool, points: np.ndarray, gradients: bool = False) -> list[Row]:
        scores = pool.evaluate(points, gradients)
        about = {"prompt": self.number, "generation": self.generation}
        return pool.rows(points, scores, self.score(scores.objectives), about)

    def _tell(self, points: np.ndarray, rows: list[Row]) -> None:
        """Scores to the algorithm, what is not a number as the worst that ever was."""
        values = np.array([[from_json(x) for x in row.get("objectives", [row["score"]])] for row in rows])
        invalid = ~np.isfinite(values).all(1)
        self.invalid += int(invalid.sum())
        if invalid.all() and self.generation == 0:
            raise UserError(
                f"prompt {self.prompt!r}: no score of the first generation is a number; check the model "
                "(python scripts/generate.py without --search) and the scorer"
            )
        if not invalid.all():
            self.worst = np.minimum(self.worst, values[~invalid].min(0))  # [objectives]
        values[invalid] = self.worst
        gradient = measures = None
        if "gradient" in rows[0]:
            gradient = np.stack([unpack(row["gradient"]) for row in rows]).astype(np.float64)
            gradient[invalid | ~np.isfinite(gradient).all(1)] = 0
        if "measures" in rows[0]:
            measures = np.nan_to_num(np.array([[from_json(x) for x in row["measures"]] for row in rows]))
        self.algorithm.tell(Evaluations(points.astype(np.float64), self.score(values), values, gradient, measures))

    def _facts(self, rows: list[Row]) -> dict[str, float]:
        """What the history says of a generation."""
        plain = self.searched if self.is_baseline else self.baseline
        scores = finite([row["score"] for row in rows])
        return {
            "spent": self.spent, "best": self.searched.best, "held_out": self.searched.best_held_out,
            "median": float(np.median(scores)) if len(scores) else math.nan,
            "baseline": plain.best, "baseline_held_out": plain.best_held_out,
        }  # fmt: skip

    def _stop(self) -> None:
        """Target and plateau, which depend on scores alone: a resumed search stops where the whole one does."""
        settings, best, share = self.settings, self.searched.best, self.settings.plateau
        if settings.target is not None and best >= settings.target:
            self.stopped = "target reached"
        if share and self.spent >= max(MIN_EVALUATIONS, settings.budget // 10):
            past = [h["best"] for h in self.history if h["spent"] <= 0.75 * self.spent]
            if past and best - past[-1] <= share * (best - past[0]):
                self.stopped = "plateau"


@contextmanager
def damage_is_told(record: Record, generation: int) -> Iterator[None]:
    """What was read of a record may be of another shape than what is searched."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{record.path}: generation {generation} is damaged ({one_line(error)}); bring the record back, or choose "
            "another --out"
        ) from None


def finite(values: Any) -> np.ndarray:
    """Those of the values, None and NaN among them, that are numbers."""
    values = np.array([from_json(v) for v in values])
    return values[np.isfinite(values)]


def mean_and_std(values: np.ndarray) -> tuple[float, float]:
    values = finite(values)
    return (float(values.mean()), float(values.std())) if len(values) else (math.nan, math.nan)
