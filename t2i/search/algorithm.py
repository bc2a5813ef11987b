"""What a search algorithm is: proposes points (ask), and learns what they are worth (tell).

A point has `dim` coordinates, each N(0, 1) in plain samples; t2i/search/spaces.py turns points into pictures.
"""

from dataclasses import dataclass

import numpy as np

GRADIENT_COST = 3  # evaluations that one with its gradient counts as: a backward pass takes as long as two forward ones


@dataclass(frozen=True)
class Task:
    """What an algorithm knows before it starts."""

    dim: int
    population: int
    budget: int  # evaluations it may expect to have; more or fewer may come
    seed: int
    objectives: int = 1  # columns of Evaluations.objectives


@dataclass(frozen=True)
class Evaluations:
    """What is learnt about the points of one ask, all float64 and finite."""

    points: np.ndarray  # [n, dim] as asked, but where plain samples lie (Space.project)
    score: np.ndarray  # [n] higher is better
    objectives: np.ndarray  # [n, objectives] the same for algorithms that keep several objectives apart
    gradient: np.ndarray | None = None  # [n, dim] of the score, where `needs_gradients`
    measures: np.ndarray | None = None  # [n, 2] what a picture looks like, N(0, 1) in plain samples; `needs_measures`


class Algorithm:
    """The interface, and what an algorithm needs unless it says otherwise."""

    min_population = 1
    objectives = 1
    needs_gradients = False  # for the points of the next ask; each then costs GRADIENT_COST evaluations
    needs_measures = False

    def __init__(self, task: Task):
        self.task = task
        self.rng = np.random.default_rng(task.seed)

    @property
    def size(self) -> int:
        """How many points the next ask gives."""
        return self.task.population

    @property
    def cost(self) -> int:
        """Evaluations that the next ask takes."""
        return self.size * (GRADIENT_COST if self.needs_gradients else 1)

    def ask(self) -> np.ndarray:
        """Points to be evaluated, [size, dim] float64."""
        raise NotImplementedError

    def tell(self, evaluations: Evaluations) -> None:
        """What the points last asked are worth."""

    def archive(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of an algorithm that keeps the best of every look: points [n, dim] and their cells [n, 2] in its grid."""
        return None

    def sample(self, count: int) -> np.ndarray:
        """Points of plain sampling, [count, dim]."""
        return self.rng.standard_normal((count, self.task.dim))
