"""CMA-ES with a diagonal covariance matrix (Ros & Hansen 2008): a Gaussian that moves to where scores are high."""

import cma
import numpy as np

from t2i.search.algorithm import Algorithm, Evaluations, Task

NORM_PENALTY = 7.0  # standard deviations of the first scores, for a point at twice the norm of plain samples


class Search(Algorithm):
    min_population = 4

    def __init__(self, task: Task):
        super().__init__(task)
        self.score_std: float | None = None
        self.asked = np.empty((0, task.dim))
        options = {
            "CMA_diagonal": True,
            "popsize": task.population,
            # Its default step-size rule expects mirrored points, which other evaluations than its own would upset.
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "randn": lambda *shape: self.rng.standard_normal(shape),  # else NumPy's global numbers, for all to disturb
            "seed": np.nan,
            "verbose": -10,
            "verb_log": 0,
        }
        self.es = cma.CMAEvolutionStrategy(np.zeros(task.dim), 1.0, options)  # starts with plain samples

    def ask(self) -> np.ndarray:
        self.asked = np.array(self.es.ask())
        return self.asked

    def tell(self, evaluations: Evaluations) -> None:
        # A picture may not depend on a point's norm (normalised z), which then wanders off until steps mean nothing.
        # The points keep their own norm here and pay for it; evaluations.points would cost twice the time.
        if self.score_std is None:
            self.score_std = float(evaluations.score.std())
        norm = np.linalg.norm(self.asked, axis=1) / np.sqrt(self.task.dim)
        fitness = evaluations.score - NORM_PENALTY * self.score_std * (norm - 1) ** 2
        self.es.tell(list(self.asked), (-fitness).tolist())
