"""The candidates of a prompt, searched ones or plain samples: where they lie, what they scored, the best so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from t2i.errors import UserError
from t2i.search.evaluate import Evaluator, HeldOutScorer, Scores
from t2i.search.record import Record, from_json, pack, to_json, unpack

Row = dict[str, Any]  # a candidate as the record has it


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate's place in the record, and what it scored."""

    index: int
    score: float
    terms: dict[str, float | None]


class Pool:
    """Candidates of one kind. by: "search" or "baseline", as the record says it."""

    def __init__(self, by: str, evaluate: Evaluator, held_out: HeldOutScorer):
        self.by, self.evaluate, self.space, self.held_out = by, evaluate, evaluate.space, held_out
        self.generations: list[np.ndarray] = []  # points [n, dim] of each
        self.scored: list[Scored] = []
        self.best, self.best_held_out = -math.inf, math.nan

    @property
    def points(self) -> np.ndarray:
        """All of them, [n, dim]."""
        return np.concatenate(self.generations)

    def rows(self, points: np.ndarray, scores: Scores, score: np.ndarray, about: Row) -> list[Row]:
        """Points [n, dim] and what they scored (score [n] for all objectives together), as the record keeps them."""
        rows = []
        for i, point in enumerate(points):
            row: Row = about | {"by": self.by, "score": to_json(score[i])}
            row["terms"] = {name: to_json(scores.terms[i, k]) for k, name in enumerate(self.evaluate.objectives.terms)}
            if self.by == "search" and scores.objectives.shape[1] > 1:
                row["objectives"] = [to_json(x) for x in scores.objectives[i]]
            if scores.gradient is not None:
                row["gradient"] = pack(scores.gradient[i])
            if scores.measures is not None:
                row["measures"] = [to_json(x) for x in scores.measures[i]]
            rows.append(row | {"point": pack(point)})
        return rows

    def keep_best(self, rows: Sequence[Row], points: np.ndarray, new: bool) -> None:
        """Takes note of a generation's best; the held-out scorer looks at it if it is `new` and the best of all."""
        scores = np.array([from_json(row["score"]) for row in rows])
        if not np.isfinite(scores).any():
            return
        i = int(np.nanargmax(scores))
        if scores[i] <= self.best:
            return
        self.best = float(scores[i])
        if new and self.held_out.objective is not None:
            rows[i]["held_out"] = to_json(self.held_out(self.evaluate.images_one_by_one(points[i : i + 1]))[0])
        self.best_held_out = from_json(rows[i].get("held_out"))

    def add(self, rows: Sequence[Row], points: np.ndarray) -> None:
        """A generation that the record has closed."""
        self.generations.append(points)
        self.scored += [Scored(row["index"], from_json(row["score"]), row["terms"]) for row in rows]


def check_recorded(record: Record, generation: int, rows: Sequence[Row], points: np.ndarray) -> None:
    """The record's candidates are the ones that this program asks for."""
    if len(rows) != len(points) or any(not np.array_equal(unpack(r["point"]), p) for r, p in zip(rows, points)):
        raise UserError(
            f"{record.path}: generation {generation} was made by other versions of the program or its "
            "libraries (see its first line), so it cannot go on; choose another --out"
        )
