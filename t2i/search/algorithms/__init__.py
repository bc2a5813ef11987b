"""The algorithms of the search, one a file: a class `Search` that proposes points (ask) and learns their scores (tell).

A point has `dim` coordinates, each N(0, 1) in plain samples; t2i/search/spaces.py turns points into pictures. Adding
an algorithm is adding a file here; its name is then known to --search.
"""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from t2i.errors import UserError, closest

GRADIENT = 3  # evaluations that one with its gradient counts as: a backward pass takes as long as two forward ones


@dataclass(frozen=True)
class Task:
    """What an algorithm knows before it starts."""

    dim: int
    population: int
    budget: int  # evaluations it may expect to have; more or fewer may come
    seed: int
    objectives: int = 1  # columns of Told.objectives


@dataclass(frozen=True)
class Told:
    """What is learnt about the points of one ask, all float64 and finite."""

    points: np.ndarray  # [n, dim] as asked, but where plain samples lie (Space.project)
    score: np.ndarray  # [n] higher is better
    objectives: np.ndarray  # [n, objectives] the same for algorithms that keep several objectives apart
    gradient: np.ndarray | None = None  # [n, dim] of the score, where `gradients` asked for it
    measures: np.ndarray | None = None  # [n, 2] what a picture looks like, N(0, 1) in plain samples; by `measures`


class Search:
    """The interface, and what an algorithm needs unless it says otherwise."""

    smallest = 1  # population
    objectives = 1
    gradients = False  # whether the points of the next ask need gradients; each then costs GRADIENT evaluations
    measures = False

    def __init__(self, task: Task):
        self.task = task
        self.rng = np.random.default_rng(task.seed)

    @property
    def size(self) -> int:
        """How many points the next ask gives."""
        return self.task.population

    def ask(self) -> np.ndarray:
        """Points to be evaluated, [size, dim] float64."""
        raise NotImplementedError

    def tell(self, told: Told) -> None:
        """The scores of the points last asked."""

    def plain(self, count: int) -> np.ndarray:
        """Points of plain sampling, [count, dim]."""
        return self.rng.standard_normal((count, self.task.dim))


def known() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def find(name: str) -> type[Search]:
    """The class of a named algorithm; UserError with the names there are."""
    if name not in known():
        raise UserError(f"--search {name}: no such algorithm; {closest(name, known())}")
    return import_module(f"{__name__}.{name}").Search
