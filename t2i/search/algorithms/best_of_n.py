"""Plain sampling: the best of N. What every other algorithm has to beat."""

import numpy as np

from t2i.search.algorithm import Algorithm


class Search(Algorithm):
    def ask(self) -> np.ndarray:
        return self.sample(self.task.population)
