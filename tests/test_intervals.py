"""Intervals cover what they say: sets are drawn many times, and it is counted how often theirs hold the truth."""

import math
from importlib import import_module

import numpy as np
import pytest
import torch

from t2i.metrics import cmmd, frechet, intervals, kid, mmd, ppl, soa
from t2i.metrics.metric import Evidence

inception_score = import_module("t2i.metrics.is")  # no name that Python can import otherwise


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covered(draw, trials, truth=None):
    """How often the interval of draw(trial) → (value, interval) holds the truth; None: the mean of all values."""
    drawn = [draw(t) for t in range(trials)]
    truth = np.mean([value for value, _ in drawn]) if truth is None else truth
    return np.mean([low <= truth <= high for _, (low, high) in drawn])


# ---- values by hand


def test_interval_of_a_mean_is_students():
    low, high = intervals.of_mean(torch.tensor([-10.0, -6, 10]))
    half = 4.302653 * math.sqrt(112) / math.sqrt(3)
    assert (low, high) == pytest.approx((-2 - half, -2 + half))
    assert intervals.of_mean(torch.full((9,), 0.5)) == (0.5, 0.5)


def test_interval_of_a_share_is_wilsons_and_never_sure():
    """Wilson's of 9 of 9 and of 45 of 50, as in tables."""
    assert intervals.of_mean(torch.ones(9)) == pytest.approx((0.7008, 1), abs=1e-4)
    assert intervals.of_mean(torch.tensor([1.0] * 45 + [0.0] * 5)) == pytest.approx((0.7864, 0.9565), abs=1e-4)


def test_several_values_of_a_picture_count_once():
    x = normal(0, 50)
    alone = intervals.of_mean(x)
    assert intervals.of_mean(x.repeat(4), torch.arange(50).repeat(4)) == pytest.approx(alone)
    assert intervals.of_mean(x.repeat(4))[0] > alone[0] + 0.05


def test_jackknife_of_a_mean_is_the_means_and_has_no_bias():
    x = normal(0, 400)
    value = {"mean": float(x.mean())}
    (found, bias) = intervals.of_sets(lambda rows: {"mean": float(x[rows].mean())}, 400, value, 400)
    assert found["mean"] == pytest.approx(intervals.of_mean(x))
    assert bias["mean"] == pytest.approx(0, abs=1e-9)
    biased = lambda rows: {"variance": float(x[rows].var(correction=0))}
    _, bias = intervals.of_sets(biased, 400, biased(torch.arange(400)), 400)
    assert bias["variance"] == pytest.approx(-float(x.var()) / 400)


def test_jackknife_of_moments_that_are_summed_up_once_is_that_of_rows():
    x, real = normal(0, 500, 6), normal(1, 400, 6) + 0.2
    score = lambda e: frechet.compute(e.fake["x"], e.real["x"], "fid")
    e = Evidence({"x": x}, {"x": real}, [], {})
    value = score(e)
    of_rows = intervals.of_sets(lambda rows: score(e.resampled(rows, ["x"])), 500, value, 20, 3)
    without = e.without_parts(intervals.parts_of(500, 20, 3), ["x"])
    found = intervals.jackknife(lambda number: score(without(number)), 20, value)
    for a, b in zip(of_rows, found):
        assert a["fid"] == pytest.approx(b["fid"], rel=1e-7)


def test_cmmds_bias_is_its_difference_from_the_unbiased_estimate():
    x, y = (torch.nn.functional.normalize(normal(s, 60, 8), dim=1) for s in (0, 1))
    off = lambda k: (k.sum() - k.trace()) / (len(k) * (len(k) - 1))
    k = cmmd.kernel
    unbiased = 1000 * float(off(k(x, x)) + off(k(y, y)) - 2 * k(x, y).mean())
    assert cmmd.compute(x, y)["cmmd"] - cmmd.bias(x, y) == pytest.approx(unbiased)


# ---- coverage; chance leaves ±2 % of 600 draws


def within(found):
    return 0.925 <= found <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 40, 400])
def test_coverage_of_means(count):
    assert within(covered(lambda t: (0, intervals.of_mean(normal(t, count))), 1000, 0.0))


@pytest.mark.slow
@pytest.mark.parametrize(("count", "share"), [(40, 0.5), (200, 0.9), (500, 0.99)])
def test_coverage_of_shares(count, share):
    draw = lambda t: torch.rand(count, generator=torch.Generator().manual_seed(t)) < share
    assert 0.92 <= covered(lambda t: (0, intervals.of_mean(draw(t).double())), 1000, share) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("count", [150, 400])
def test_coverage_of_kid(shift, count, monkeypatch):
    """Also where the subsets overlap and where both distributions are one; the truth is that of very many."""
    c = 8
    real, fake = (lambda t, n=count: normal(2 * t, n, c)), (lambda t, n=count: normal(2 * t + 1, n, c) + shift)
    truth = kid.mmd(fake(10**6, 12000), real(10**6, 12000)) if shift else 0.0

    def draw(t):
        x, y = fake(t), real(t)
        values = kid.compute(x, y, 30, 100, seed=t)["kid"]
        spread = math.hypot(mmd.deviation(x, y, kid.kernel, True), float(values.std()) / math.sqrt(30))
        return 0, intervals.Estimate(float(values.mean()), spread).interval

    # Too wide only where both distributions are one: what is near 0 there is not normally distributed.
    assert 0.9 <= covered(draw, 400, truth) <= (0.98 if shift else 0.995)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_coverage_of_cmmd(shift):
    """Against one reference, of the mean of as many pictures."""
    unit = lambda x: torch.nn.functional.normalize(x, dim=1)
    real = unit(normal(1, 300, 16))

    def draw(t):
        x = unit(normal(t + 2, 200, 16) + shift * torch.eye(16, dtype=torch.float64)[0])
        spread = 1000 * mmd.deviation(x, real, cmmd.kernel, False)
        value = cmmd.compute(x, real)["cmmd"]
        return value, intervals.Estimate(value, spread).interval

    assert 0.9 <= covered(draw, 400) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.3, 1.2), (3.0, 0.8)])
def test_coverage_of_frechet_distances(shift, scale):
    """From the pictures a feature on from which an interval is printed."""
    features = 12
    count = frechet.ENOUGH * features
    assert frechet.no_interval(torch.zeros(count - 1, features))
    real = frechet.moments(normal(1, 1000, features))

    def draw(t):
        x = shift / math.sqrt(features) + scale * normal(t + 2, count, features)
        score = lambda rows: frechet.compute(x[rows], real, "fid")
        value = score(torch.arange(count))
        return value["fid"], intervals.of_sets(score, count, value, 20, t)[0]["fid"]

    assert 0.9 <= covered(draw, 300) <= 0.985


@pytest.mark.slow
def test_coverage_of_the_inception_score():
    """Of the score of a split, which is what the published number is."""

    def draw(t):
        values = inception_score.compute(2 * normal(t, 1000, 10), seed=t)["is"]
        return float(values.mean()), intervals.of_mean(values)

    assert within(covered(draw, 400))


@pytest.mark.slow
def test_coverage_of_trimmed_path_lengths():
    def draw(t):
        found = ppl.compute(normal(t, 600).exp())["ppl"]
        return found.value, found.interval

    assert within(covered(draw, 600))


@pytest.mark.slow
def test_coverage_of_classes_of_unlike_frequency():
    shares, counts = [0.2, 0.5, 0.9, 0.99], [5, 20, 100, 40]

    def draw(t):
        rng = np.random.default_rng(t)
        asked = [{str(i)} for i, n in enumerate(counts) for _ in range(n)]
        found = [a if rng.random() < shares[int(next(iter(a)))] else set() for a in asked]
        score = soa.compute(asked, found)["soa_c"]
        return score.value, score.interval

    assert 0.9 <= covered(draw, 600, np.mean(shares)) <= 0.975
