"""NSGA-II (Deb et al. 2002): the genetic algorithm for two objectives at once, neither traded for the other."""

import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.population import Population

from t2i.search.algorithms import ga


def rank(pop: Population) -> np.ndarray:
    """Indices by front, and within one the loneliest first."""
    return np.lexsort((-pop.get("crowding").astype(float), pop.get("rank").astype(int)))


class Search(ga.Search):
    objectives = 2
    kind = NSGA2
    order = staticmethod(rank)
