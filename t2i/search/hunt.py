"""The search for one prompt, and the plain samples beside it.

For every evaluation that a search spends a plain sample is drawn: the best of them is what the budget buys without
any search. A second scorer, which nothing optimises, looks at the best of both.
"""

import hashlib
import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from t2i import parallel
from t2i.encoders.clip import Clip
from t2i.errors import UserError
from t2i.model import Model
from t2i.rng import derive_seed
from t2i.search import algorithms, objectives
from t2i.search.algorithms import Told
from t2i.search.distinct import distinct, similarity
from t2i.search.evaluate import Evaluator, Fitting, Looks, Scores, exact
from t2i.search.objectives import Objective, Objectives
from t2i.search.record import Record, number, pack, unpack
from t2i.search.settings import Settings
from t2i.search.spaces import Space

PLAIN = 64  # samples that say what plain ones score, and how they spread
PLATEAU = 0.01  # of the whole gain
FRONT = 8  # pictures along a Pareto front


@dataclass
class Shared:
    """What the hunts of one search have in common."""

    prompts: int
    parts: list[dict[str, float]]
    clips: list[Clip]
    held_out: list[Clip]
    critic: Any  # the discriminator, None where the model folder has none
    objective: Objective | None
    notes: list[str]


@dataclass
class Found:
    """One candidate that a person gets to see."""

    index: int  # in the record
    score: float
    terms: dict[str, float]
    point: np.ndarray
    held_out: float
    norm: float
    truncation: float
    d: float  # the discriminator's logit; NaN where the model folder has none


@dataclass
class Result:
    """What a prompt's budget bought."""

    prompt: str
    found: list[Found]  # the best distinct ones, best first
    baseline: list[Found]  # the same of plain samples, as many as there were evaluations
    plain: dict[str, tuple[float, float]]  # "score" and "held_out" of plain samples: mean, standard deviation
    spent: int
    generations: int
    stopped: str  # why
    bad: int  # candidates whose score was not a number
    latents_alike: float  # mean cosine between latents of `found`
    pictures_alike: float  # and between their CLIP features
    history: list[dict[str, float]]  # after each generation: spent, best, median, held_out, baseline, ...
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)  # "plain", "baseline", "found": [k, 3, H, W]
    # Two objectives: their names, and both of all candidates, [n, 2]; "front": rows of "search", "pictures" of those.
    goals: dict[str, Any] = field(default_factory=dict)
    # MAP-Elites: "cells" [n, 2], rows and columns in its grid, and "pictures" [n, 3, H, W].
    elites: dict[str, Any] = field(default_factory=dict)


def stream(seed: int, prompt: str, what: str) -> int:
    """The seed of one use of random numbers: none depends on another, nor on what other prompts there are."""
    parts = (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) for text in (prompt, what))
    return derive_seed(seed, *parts)


def spaces_of(model: Model, prompt: str, settings: Settings) -> tuple[Space, Space]:
    """The coordinates of plain samples and of searched ones."""
    options = (settings.truncation, settings.noise, stream(settings.seed, prompt, "noise"))
    plain = Space(model, prompt, "z", *options)
    return plain, plain if settings.algorithm == "best_of_n" else Space(model, prompt, settings.space, *options)


def redraw(model: Model, head: dict[str, Any], row: dict[str, Any]) -> torch.Tensor:
    """A candidate of a record (its first line and the candidate's) as a picture [1, 3, H, W] in [-1, 1]."""
    settings = Settings(**{f.name: head[f.name] for f in fields(Settings) if f.name in head})
    plain, searched = spaces_of(model, head["prompts"][row["prompt"]], settings)
    space = plain if row["by"] == "baseline" else searched
    return Evaluator(space, Objectives({}), 1).pictures(unpack(row["point"])[None])


class Hunt:
    """The search for one prompt, a generation at a time."""

    def __init__(self, model: Model, prompt: str, number_: int, settings: Settings, shared: "Shared", record: Record):
        self.model, self.prompt, self.number, self.settings, self.record = model, prompt, number_, settings, record
        self.shared = shared
        self.same = settings.algorithm == "best_of_n"  # is its own baseline
        self.plain_space, self.space = spaces_of(model, prompt, settings)
        self.rng = np.random.default_rng(stream(settings.seed, prompt, "plain"))
        plain = self.plain_space.project(self._plain(PLAIN))
        self.plain_pictures = Evaluator(self.plain_space, Objectives({}), settings.batch).images(plain)
        if shared.objective is not None:
            goals = Objectives({"objective": shared.objective})
        else:
            goals = objectives.build(
                shared.parts, model, prompt, shared.clips, shared.critic, settings.views, self.plain_pictures,
                stream(settings.seed, "", "views"),
            )  # fmt: skip
        kind = algorithms.find(settings.algorithm)
        self.terms = list(goals.terms)
        self.evaluate = Evaluator(
            self.space, goals, settings.batch, Looks(self.plain_pictures) if kind.measures else None
        )
        self.evaluate_plain = Evaluator(self.plain_space, goals, settings.batch)
        self.fitting = Fitting(settings.batch, model.device)  # the held-out scorer's own
        self.held_out: Objective | None = (
            objectives.clip_similarity(shared.held_out, prompt) if shared.held_out else None
        )
        scores = self.evaluate_plain(plain).objectives  # [PLAIN, objectives]
        self.units = np.array([_spread(column) if scores.shape[1] > 1 else (0, 1) for column in scores.T])
        self.plain = {"score": _spread(self._score(scores)), "held_out": _spread(self._look(self.plain_pictures))}
        seed = stream(settings.seed, prompt, "search")
        task = algorithms.Task(self.space.dim, settings.population, settings.budget, seed, len(goals.parts))
        self.algorithm = kind(task)
        self.rng = np.random.default_rng(stream(settings.seed, prompt, "plain"))  # from the start: those of above again
        self.points: dict[str, list[np.ndarray]] = {"search": [], "baseline": []}
        self.rows: dict[str, list[tuple[int, float, dict[str, Any]]]] = {"search": [], "baseline": []}
        self.best = {"search": -math.inf, "baseline": -math.inf}
        self.seen = {"search": math.nan, "baseline": math.nan}  # held-out score of the best
        self.worst: np.ndarray | float = math.inf
        self.generation = self.spent = self.bad = 0
        self.stopped = ""
        self.history: list[dict[str, float]] = []

    @torch.no_grad()
    def _look(self, pictures: torch.Tensor) -> np.ndarray:
        """Held-out scores of pictures [n, 3, H, W]; NaN without a held-out scorer."""
        if self.held_out is None:
            return np.full(len(pictures), np.nan)
        with exact():
            return self.fitting(pictures.to(self.model.device), self.held_out).double().cpu().numpy()

    @property
    def cost(self) -> int:
        """Evaluations of the next generation."""
        return self.algorithm.size * (algorithms.GRADIENT if self.algorithm.gradients else 1)

    def step(self) -> None:
        """One generation, evaluated or read from the record."""
        cost, gradients = self.cost, self.algorithm.gradients
        asked = self.plain_space.project(self._plain(cost)) if self.same else self.space.project(self.algorithm.ask())
        asked = parallel.broadcast(torch.from_numpy(asked).to(self.model.device)).cpu().numpy()
        beside = cost if self.settings.baseline and not self.same else 0
        points = {"search": asked, "baseline": self.plain_space.project(self._plain(beside))}
        rows = self.record.known.pop((self.number, self.generation), None)
        new = rows is None
        if rows is None:
            rows = self._rows("search", asked, self.evaluate(asked, gradients))
            rows += self._rows("baseline", points["baseline"], self.evaluate_plain(points["baseline"]))
        mine = {by: [row for row in rows if row["by"] == by] for by in points}
        self.spent += cost
        for by in points:
            if not new:
                self._check(mine[by], points[by])
            self._note(by, mine[by], points[by], new)
        if self.same:
            self.best["baseline"], self.seen["baseline"] = self.best["search"], self.seen["search"]
        self._tell(asked, mine["search"])
        scores = _finite([row["score"] for row in mine["search"]])
        facts = {
            "spent": self.spent, "best": self.best["search"], "held_out": self.seen["search"],
            "median": float(np.median(scores)) if len(scores) else math.nan,
            "baseline": self.best["baseline"], "baseline_held_out": self.seen["baseline"],
        }  # fmt: skip
        self.history.append(facts)
        if new:
            self.record.close_generation(self.number, self.generation, rows, {k: number(v) for k, v in facts.items()})
        for by in points:
            self.points[by].append(points[by])
            self.rows[by] += [(row["index"], _float(row["score"]), row["terms"]) for row in mine[by]]
        self.generation += 1
        self._stop()

    def _plain(self, count: int) -> np.ndarray:
        return self.rng.standard_normal((count, self.model.generator.latent_dim))

    def _score(self, objectives: np.ndarray) -> np.ndarray:
        """[n, objectives] → [n]: the one, or the mean of several, each in standard deviations of plain samples."""
        return ((objectives - self.units[:, 0]) / np.maximum(self.units[:, 1], 1e-12)).mean(1)

    def _rows(self, by: str, points: np.ndarray, scores: Scores) -> list[dict[str, Any]]:
        rows, score = [], self._score(scores.objectives)
        for i, point in enumerate(points):
            row: dict[str, Any] = {"prompt": self.number, "generation": self.generation, "by": by}
            row["score"] = number(score[i])
            row["terms"] = {name: number(scores.terms[i, k]) for k, name in enumerate(self.terms)}
            if by == "search" and scores.objectives.shape[1] > 1:
                row["objectives"] = [number(x) for x in scores.objectives[i]]
            if scores.gradient is not None:
                row["gradient"] = pack(scores.gradient[i])
            if scores.measures is not None:
                row["measures"] = [number(x) for x in scores.measures[i]]
            rows.append(row | {"point": pack(point)})
        return rows

    def _check(self, rows: list[dict[str, Any]], points: np.ndarray) -> None:
        """The record's candidates are the ones that this program asks for."""
        if len(rows) != len(points) or any(not np.array_equal(unpack(r["point"]), p) for r, p in zip(rows, points)):
            raise UserError(
                f"{self.record.path}: generation {self.generation} was made by other versions of the program or its "
                "libraries (see its first line), so it cannot go on; choose another --out"
            )

    def _note(self, by: str, rows: list[dict[str, Any]], points: np.ndarray, new: bool) -> None:
        """Keeps the best of a generation; the held-out scorer looks at a new best."""
        scores = np.array([_float(row["score"]) for row in rows])
        if not np.isfinite(scores).any():
            return
        i = int(np.nanargmax(scores))
        if scores[i] <= self.best[by]:
            return
        self.best[by] = float(scores[i])
        if new and self.held_out is not None:
            evaluate = self.evaluate if by == "search" else self.evaluate_plain
            rows[i]["held_out"] = number(self._look(evaluate.pictures(points[i : i + 1]))[0])
        self.seen[by] = _float(rows[i].get("held_out"))

    def _tell(self, points: np.ndarray, rows: list[dict[str, Any]]) -> None:
        """Scores to the algorithm, what is not a number as the worst that ever was."""
        goals = np.array([[_float(x) for x in row.get("objectives", [row["score"]])] for row in rows])
        bad = ~np.isfinite(goals).all(1)
        self.bad += int(bad.sum())
        if bad.all() and self.generation == 0:
            raise UserError(
                f"prompt {self.prompt!r}: no score of the first generation is a number; check the model "
                "(python scripts/generate.py without --search) and the scorer"
            )
        if not bad.all():
            low = goals[~bad].min(0)
            self.worst = np.minimum(self.worst, low)  # [objectives]
        goals[bad] = self.worst
        gradient = measures = None
        if "gradient" in rows[0]:
            gradient = np.stack([unpack(row["gradient"]) for row in rows]).astype(np.float64)
            gradient[bad | ~np.isfinite(gradient).all(1)] = 0
        if "measures" in rows[0]:
            measures = np.nan_to_num(np.array([[_float(x) for x in row["measures"]] for row in rows]))
        self.algorithm.tell(Told(points.astype(np.float64), self._score(goals), goals, gradient, measures))

    def _stop(self) -> None:
        """Target and plateau, which depend on scores alone: a resumed search stops where the whole one does."""
        settings = self.settings
        if settings.target is not None and self.best["search"] >= settings.target:
            self.stopped = "target reached"
        share = settings.plateau if settings.plateau is not None else PLATEAU * (self.shared.prompts > 1)
        if share and self.spent >= max(2000, settings.budget // 10):
            past = [h["best"] for h in self.history if h["spent"] <= 0.75 * self.spent]
            if past and self.best["search"] - past[-1] <= share * (self.best["search"] - past[0]):
                self.stopped = "plateau"

    def result(self) -> Result:
        found = self._found("search", self.space, self.evaluate)
        plain = found if self.same else self._found("baseline", self.plain_space, self.evaluate_plain)
        pictures = {"plain": self.plain_pictures[: self.settings.top_k].cpu(), "found": _stack(found, self.evaluate)}
        pictures["baseline"] = pictures["found"] if self.same else _stack(plain, self.evaluate_plain)
        alike = math.nan
        if self.shared.clips:
            with torch.no_grad():
                features = self.shared.clips[0].image_features(pictures["found"].to(self.model.device))
            alike = similarity(features.cpu().numpy())
        latents = np.stack([f.point for f in found])[:, : self.space.size]
        return Result(
            self.prompt, found, plain, self.plain, self.spent, self.generation, self.stopped or "budget spent",
            self.bad, similarity(latents), alike, self.history, pictures, self._goals(), self._elites(),
        )  # fmt: skip

    def _goals(self) -> dict[str, Any]:
        """Of a search for two objectives: all candidates, the Pareto front and pictures along it."""
        parts = self.evaluate.objectives.parts
        if len(parts) < 2:
            return {}
        names = ["+".join((f"{w:g}*" if w != 1 else "") + term for term, w in part.items()) for part in parts]
        both = {
            by: np.array([[sum(w * _float(t[k]) for k, w in p.items()) for p in parts] for _, _, t in rows])
            for by, rows in self.rows.items()
        }
        front = pareto(both["search"])
        shown = front[np.unique(np.linspace(0, len(front) - 1, min(len(front), FRONT)).round().astype(int))]
        pictures = self.evaluate.pictures(np.concatenate(self.points["search"])[shown])
        return {"names": names, **both, "front": front, "shown": shown, "pictures": pictures}

    def _elites(self) -> dict[str, Any]:
        if not hasattr(self.algorithm, "elites"):
            return {}
        points, cells = self.algorithm.elites()
        return {"cells": cells, "pictures": self.evaluate.images(points.astype(np.float32)).cpu()}

    def _found(self, by: str, space: Space, evaluate: Evaluator) -> list[Found]:
        """The best distinct candidates, with what is known of each."""
        if not self.rows[by]:
            return []
        points = np.concatenate(self.points[by])
        scores = np.array([score for _, score, _ in self.rows[by]])
        chosen = distinct(points[:, : space.size], scores, self.settings.top_k)
        pictures = evaluate.pictures(points[chosen])
        seen, logits = self._look(pictures), np.full(len(chosen), np.nan)
        if self.shared.critic is not None:
            judge = objectives.discriminator_logit(self.shared.critic, self.model.text_encoder([self.prompt]))
            with torch.no_grad(), exact():
                logits = judge(pictures.to(self.model.device)).double().cpu().numpy()
        found = []
        for i, held_out, d in zip(chosen, seen, logits):
            index, score, terms = self.rows[by][i]
            known = {name: _float(x) for name, x in terms.items()}
            place = space.describe(points[i])
            found.append(Found(index, score, known, points[i], float(held_out), d=float(d), **place))
        return found


def pareto(values: np.ndarray) -> np.ndarray:
    """Rows of [n, 2] that no other is at least as good as in both, by the first column, the highest first."""
    chosen, most = [], -math.inf
    for i in np.lexsort((-values[:, 1], -values[:, 0])):
        if np.isfinite(values[i]).all() and values[i, 1] > most:
            chosen.append(i)
            most = values[i, 1]
    return np.array(chosen, int)


def _stack(found: list[Found], evaluate: Evaluator) -> torch.Tensor:
    return evaluate.pictures(np.stack([f.point for f in found])) if found else torch.empty(0)


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _finite(values: Any) -> np.ndarray:
    values = np.array([_float(v) for v in values])
    return values[np.isfinite(values)]


def _spread(values: np.ndarray) -> tuple[float, float]:
    values = _finite(values)
    return (float(values.mean()), float(values.std())) if len(values) else (math.nan, math.nan)
