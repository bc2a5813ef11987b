"""NSGA-II (Deb et al. 2002): the genetic algorithm for two objectives at once, neither traded for the other."""

from pymoo.algorithms.moo.nsga2 import NSGA2

from t2i.search.algorithms import ga


class Search(ga.Search):
    objectives = 2
    kind = NSGA2
