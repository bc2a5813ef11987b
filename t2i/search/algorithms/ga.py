"""A genetic algorithm (pymoo): winners of tournaments are mixed and shaken, and the best of old and new live on."""

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.algorithm import Algorithm as PymooAlgorithm
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from t2i.search.algorithm import Algorithm, Evaluations, Task

MUTATION = 0.1  # share of a child's deviation that is new


def rank(pop: Population) -> np.ndarray:
    """Indices, the best first."""
    return np.argsort(pop.get("F")[:, 0], kind="stable")


class Mating(InfillCriterion):
    """Children of two: each coordinate from either, then x ← √(1-b²)·x + b·ε, which leaves N(0, 1) as it is.

    A parent is the better of two random ones. pymoo's own operators need bounds and take 150 ms for 1,000 points of
    512 coordinates.
    """

    def __init__(self, order):
        super().__init__()
        self.order = order

    def _do(self, problem, pop, n_offsprings, random_state=None, **options):
        contest = random_state.integers(0, len(pop), (n_offsprings, 2, 2))
        winners = self.order(pop)[contest.min(2)]  # [n, 2]
        x = pop.get("X").astype(np.float32)
        dim = x.shape[1]
        bits = random_state.integers(0, 256, (n_offsprings, -(-dim // 8)), np.uint8)
        first = np.unpackbits(bits, axis=1, count=dim).view(bool)  # [n, dim]
        children = np.where(first, x[winners[:, 0]], x[winners[:, 1]])
        children *= np.float32(np.sqrt(1 - MUTATION**2))
        children += np.float32(MUTATION) * random_state.standard_normal(children.shape, np.float32)
        return Population.new("X", children)


class Search(Algorithm):
    min_population = 4
    kind: type[PymooAlgorithm] = GA
    order = staticmethod(rank)

    def __init__(self, task: Task):
        super().__init__(task)
        seed = int(self.rng.integers(2**31))
        first = self.sample(task.population)
        self.algorithm = self.kind(pop_size=task.population, sampling=first, eliminate_duplicates=False, seed=seed)
        self.algorithm.mating = Mating(self.order)
        problem = Problem(n_var=task.dim, n_obj=task.objectives)
        self.algorithm.setup(problem, termination=NoTermination())

    def ask(self) -> np.ndarray:
        self.asked = self.algorithm.ask()
        return self.asked.get("X").astype(np.float64)

    def tell(self, evaluations: Evaluations) -> None:
        self.asked.set("X", evaluations.points)
        self.asked.set("F", -evaluations.objectives)  # pymoo minimises
        self.algorithm.tell(infills=self.asked)
