"""MAP-Elites (1504.04909, pyribs): the best picture of every look, on a grid of two measures of how pictures look.

Children lie beside one elite on the line to another (Iso+LineDD, 1804.03906).
"""

import numpy as np

from t2i.search import algorithms
from t2i.search.algorithms import Told

CELLS, REACH = 16, 2.5  # a side at most; standard deviations of plain samples on either side of their mean
VISITS = 20  # evaluations a cell at least, or few cells would ever improve
AROUND, ALONG = 0.2, 0.2  # standard deviations of a child about its elite and along the line


class Search(algorithms.Search):
    measures = True

    def __init__(self, task: algorithms.Task):
        super().__init__(task)
        from ribs.archives import GridArchive  # takes seconds to import
        from ribs.emitters import IsoLineEmitter

        seeds = [int(s) for s in self.rng.integers(2**31, size=2)]
        self.archive = GridArchive(solution_dim=task.dim, dims=[CELLS] * 2, ranges=[(-REACH, REACH)] * 2, seed=seeds[0])
        self.emitter = IsoLineEmitter(
            self.archive, iso_sigma=AROUND, line_sigma=ALONG, initial_solutions=self.plain(task.population),
            batch_size=task.population, seed=seeds[1],
        )  # fmt: skip

    def ask(self) -> np.ndarray:
        return self.emitter.ask()

    def elites(self) -> tuple[np.ndarray, np.ndarray]:
        """The archive: points [n, dim] and their cells [n, 2]."""
        data = self.archive.data(["solution", "index"])
        return data["solution"], self.archive.int_to_grid_index(data["index"])

    def tell(self, told: Told) -> None:
        assert told.measures is not None
        self.archive.add(told.points, told.score, told.measures)
