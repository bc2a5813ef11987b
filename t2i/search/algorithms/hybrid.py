"""Plain sampling for a third of the budget, then Adam from the best distinct points (FuseDream, 2112.01573)."""

import numpy as np

from t2i.search import algorithms
from t2i.search.algorithms import Told, adam
from t2i.search.distinct import distinct


class Search(algorithms.Search):
    def __init__(self, task: algorithms.Task):
        super().__init__(task)
        self.points, self.scores = np.empty((0, task.dim)), np.empty(0)
        self.climb: adam.Search | None = None

    @property
    def gradients(self) -> bool:  # type: ignore[override]
        return self.climb is not None

    @property
    def size(self) -> int:
        return self.task.population if self.climb is None else self.climb.size

    def ask(self) -> np.ndarray:
        return self.plain(self.task.population) if self.climb is None else self.climb.ask()

    def tell(self, told: Told) -> None:
        if self.climb is not None:
            self.climb.tell(told)
            return
        self.points = np.concatenate([self.points, told.points])
        self.scores = np.concatenate([self.scores, told.score])
        if len(self.points) + self.task.population > max(self.task.budget // 3, self.task.population):
            count = adam.chains(self.task.population, self.task.budget - len(self.points))
            self.climb = adam.Search(self.task, self.points[distinct(self.points, self.scores, count)])
