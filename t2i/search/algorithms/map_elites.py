"""MAP-Elites (1504.04909, pyribs): the best picture of every look, on a grid of two measures of how pictures look.

Children lie beside one elite on the line to another (Iso+LineDD, 1804.03906).
"""

import numpy as np

from t2i.search.algorithm import Algorithm, Evaluations, Task

CELLS, REACH = 16, 2.5  # a side at most; standard deviations of plain samples on either side of their mean
ISO_SIGMA, LINE_SIGMA = 0.2, 0.2  # standard deviations of a child about its elite and along the line


class Search(Algorithm):
    needs_measures = True

    def __init__(self, task: Task):
        super().__init__(task)
        from ribs.archives import GridArchive  # takes seconds to import
        from ribs.emitters import IsoLineEmitter

        seeds = [int(s) for s in self.rng.integers(2**31, size=2)]
        self.grid = GridArchive(solution_dim=task.dim, dims=[CELLS] * 2, ranges=[(-REACH, REACH)] * 2, seed=seeds[0])
        self.emitter = IsoLineEmitter(
            self.grid, iso_sigma=ISO_SIGMA, line_sigma=LINE_SIGMA, initial_solutions=self.sample(task.population),
            batch_size=task.population, seed=seeds[1],
        )  # fmt: skip

    def ask(self) -> np.ndarray:
        return self.emitter.ask()

    def archive(self) -> tuple[np.ndarray, np.ndarray]:
        data = self.grid.data(["solution", "index"])
        return data["solution"], self.grid.int_to_grid_index(data["index"])

    def tell(self, evaluations: Evaluations) -> None:
        assert evaluations.measures is not None
        self.grid.add(evaluations.points, evaluations.score, evaluations.measures)
