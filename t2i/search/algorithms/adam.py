"""Gradient ascent on the score from several plain samples at once, by torch's Adam (FuseDream, 2112.01573)."""

import numpy as np
import torch

from t2i.search.algorithm import GRADIENT_COST, Algorithm, Evaluations, Task

LEARNING_RATE = 0.05  # of coordinates whose standard deviation is 1
STEPS = 100  # a chain should be able to take


class Search(Algorithm):
    needs_gradients = True

    def __init__(self, task: Task, starts: np.ndarray | None = None):
        """starts: [n, dim], else plain samples: at most the population, and few enough for STEPS steps each."""
        super().__init__(task)
        if starts is None:
            starts = self.sample(count_chains(task.population, task.budget))
        self.points = torch.from_numpy(starts.copy()).requires_grad_()
        self.adam = torch.optim.Adam([self.points], lr=LEARNING_RATE)

    @property
    def size(self) -> int:
        return len(self.points)

    def ask(self) -> np.ndarray:
        return self.points.detach().numpy().copy()

    def tell(self, evaluations: Evaluations) -> None:
        assert evaluations.gradient is not None
        with torch.no_grad():
            self.points.copy_(torch.from_numpy(evaluations.points))  # the step starts from where the picture was made
        self.points.grad = torch.from_numpy(-evaluations.gradient)
        self.adam.step()


def count_chains(population: int, budget: int) -> int:
    return max(min(population, budget // (GRADIENT_COST * STEPS)), 1)
