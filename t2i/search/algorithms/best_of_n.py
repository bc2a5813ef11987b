"""Plain sampling: the best of N. What every other algorithm has to beat."""

import numpy as np

from t2i.search import algorithms


class Search(algorithms.Search):
    def ask(self) -> np.ndarray:
        return self.plain(self.task.population)
