"""The algorithms of the search, by what they reach; and what counts as distinct."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from t2i.search import algorithms
from t2i.search.algorithm import Evaluations, Task
from t2i.search.distinct import distinct, similarity

# ---- algorithms


def climb(name: str, seed: int, generations: int = 40, population: int = 16, dim: int = 10) -> np.ndarray:
    """The best scores so far of a search for the direction (1, ..., 1), with points kept on the sphere."""
    kind = algorithms.find(name)
    algorithm = kind(Task(dim, population, population * generations, seed, kind.objectives))
    target, best, spent = np.ones(dim) / math.sqrt(dim), [], 0
    while spent < population * generations:
        size, cost = algorithm.size, algorithm.cost
        points = algorithm.ask()
        assert points.shape == (size, dim)
        points = points * (math.sqrt(dim) / np.linalg.norm(points, axis=1, keepdims=True))
        score = points @ target / math.sqrt(dim)  # cosine
        both = np.stack([score, -np.abs(points[:, 0])], 1)[:, : kind.objectives]
        algorithm.tell(Evaluations(points, score, both, np.tile(target, (size, 1)), points[:, :2]))
        spent += cost
        best.append(max(score.max(), best[-1] if best else -1))
    return np.array(best)


@pytest.mark.parametrize("name", algorithms.known())
def test_every_algorithm_beats_plain_sampling(name):
    before = np.random.get_state()[1].copy()
    generations = 300 if name == "map_elites" else 40  # it fills a whole grid
    best = climb(name, 1, generations)
    assert (np.random.get_state()[1] == before).all()  # not the numbers that all share
    if name != "best_of_n":
        plain = climb("best_of_n", 1, generations)
        assert best[-1] > plain[-1] + 0.05
    again = climb(name, 1, 20)
    np.testing.assert_array_equal(climb(name, 1, 20), again)
    assert not np.array_equal(climb(name, 2, 20), again)


def test_adam_takes_fewer_chains_rather_than_too_few_steps():
    sizes = [algorithms.find("adam")(Task(4, 50, budget, 0)).size for budget in (10, 600, 10**6)]
    assert sizes == [1, 2, 50]


def test_hybrid_climbs_from_the_best_distinct_samples():
    hybrid = algorithms.find("hybrid")(Task(4, 20, 1260, 3))
    seen, scores = [], []
    while not hybrid.needs_gradients:
        points = hybrid.ask()
        seen.append(points)
        scores.append(points[:, 0])
        hybrid.tell(Evaluations(points, points[:, 0], points[:, :1]))
    points, scores = np.concatenate(seen), np.concatenate(scores)
    assert len(points) == 420  # a third of the budget
    np.testing.assert_array_equal(hybrid.ask(), points[distinct(points, scores, 2)])


# ---- distinct


def test_distinct_by_hand():
    points = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0], [0, 3.0]])
    assert distinct(points, np.array([1, 2, 3, 0, 2.9]), 3) == [2, 1, 3]  # 4 is 2 again, 0 is 1 again
    assert distinct(points, np.array([1, np.nan, 3, np.inf, 2.9]), 9) == [2, 0]
    assert similarity(np.array([[1, 0], [5, 0], [0, 2.0]])) == pytest.approx(1 / 3)
    assert math.isnan(similarity(np.ones((1, 2))))


@given_settings(max_examples=30)
@given(arrays.arrays(np.float64, (20, 3), elements=st.floats(-3, 3)), st.integers(1, 8))
def test_distinct_is_distinct_and_best_first(points, count):
    scores = points[:, 0] - points[:, 1]
    chosen = distinct(points, scores, count)
    assert len(chosen) <= count
    assert (np.diff(scores[chosen]) <= 0).all()
    assert scores[chosen[0]] == scores.max()
    unit = points[chosen] / np.maximum(np.linalg.norm(points[chosen], axis=1, keepdims=True), 1e-12)
    assert (np.triu(unit @ unit.T, 1) < 0.9).all()
