"""A genetic algorithm (pymoo's tournament and survival): parents are mixed, shaken, and the best of all live on."""

import numpy as np
from pymoo.algorithms.soo.nonconvex.ga import GA
from pymoo.core.algorithm import Algorithm
from pymoo.core.infill import InfillCriterion
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.core.termination import NoTermination

from t2i.search import algorithms
from t2i.search.algorithms import Told

SHAKE = 0.1  # share of a child's deviation that is new


class Mating(InfillCriterion):
    """Children of two: each coordinate from either, then x ← √(1-b²)·x + b·ε, which leaves N(0, 1) as it is.

    pymoo's own operators need bounds and take 150 ms for 1,000 points of 512 coordinates.
    """

    def __init__(self, selection):
        super().__init__()
        self.selection = selection

    def _do(self, problem, pop, n_offsprings, random_state=None, **options):
        pairs = self.selection(
            problem, pop, n_offsprings, n_parents=2, to_pop=False, random_state=random_state, **options
        )
        parents = pop.get("X")[np.asarray(pairs).reshape(n_offsprings, 2)]  # [n, 2, dim]
        first = random_state.integers(0, 2, (n_offsprings, parents.shape[2]), np.uint8).astype(bool)
        children = np.where(first, parents[:, 0], parents[:, 1])
        new = random_state.standard_normal(children.shape, np.float32)
        return Population.new("X", np.sqrt(1 - SHAKE**2) * children + SHAKE * new)


class Search(algorithms.Search):
    smallest = 4
    kind: type[Algorithm] = GA

    def __init__(self, task: algorithms.Task):
        super().__init__(task)
        seed = int(self.rng.integers(2**31))
        first = self.plain(task.population)
        self.algorithm = self.kind(pop_size=task.population, sampling=first, eliminate_duplicates=False, seed=seed)
        self.algorithm.mating = Mating(self.algorithm.mating.selection)
        problem = Problem(n_var=task.dim, n_obj=task.objectives)
        self.algorithm.setup(problem, termination=NoTermination())

    def ask(self) -> np.ndarray:
        self.asked = self.algorithm.ask()
        return self.asked.get("X")

    def tell(self, told: Told) -> None:
        self.asked.set("X", told.points)
        self.asked.set("F", -told.objectives)  # pymoo minimises
        self.algorithm.tell(infills=self.asked)
