"""Plain sampling for a third of the budget, then Adam from the best distinct points (FuseDream, 2112.01573)."""

import numpy as np

from t2i.search.algorithm import Algorithm, Evaluations, Task
from t2i.search.algorithms import adam
from t2i.search.distinct import distinct


class Search(Algorithm):
    def __init__(self, task: Task):
        super().__init__(task)
        self.points, self.scores = np.empty((0, task.dim)), np.empty(0)
        self.ascent: adam.Search | None = None

    @property
    def needs_gradients(self) -> bool:  # type: ignore[override]
        return self.ascent is not None

    @property
    def size(self) -> int:
        return self.task.population if self.ascent is None else self.ascent.size

    def ask(self) -> np.ndarray:
        return self.sample(self.task.population) if self.ascent is None else self.ascent.ask()

    def tell(self, evaluations: Evaluations) -> None:
        if self.ascent is not None:
            self.ascent.tell(evaluations)
            return
        self.points = np.concatenate([self.points, evaluations.points])
        self.scores = np.concatenate([self.scores, evaluations.score])
        if len(self.points) + self.task.population > max(self.task.budget // 3, self.task.population):
            count = adam.count_chains(self.task.population, self.task.budget - len(self.points))
            self.ascent = adam.Search(self.task, self.points[distinct(self.points, self.scores, count)])
