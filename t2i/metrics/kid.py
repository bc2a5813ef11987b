"""Kernel Inception Distance (Bińkowski et al. 2018, 1801.01401): the squared MMD of a cubic kernel, unbiased."""

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.intervals import Estimate
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.mmd import deviation
from t2i.rng import derive_seed

SUBSETS, SIZE = 100, 1000  # as published


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """[n, C], [m, C] → (a·b / C + 1)³ [n, m]."""
    return (a @ b.T / a.shape[1] + 1).pow_(3)


def mmd(x: Tensor, y: Tensor) -> float:
    """x, y [m, C] → the unbiased estimate (Gretton et al. 2012, lemma 6) in float64.

    May be negative, as an unbiased estimate of something near 0 must.
    """
    x, y = x.double(), y.double()
    m, n = len(x), len(y)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def compute(
    fake: Tensor, real: Tensor, subsets: int = SUBSETS, size: int = SIZE, seed: int = 0, name: str = "kid"
) -> dict[str, Tensor]:
    """fake [N, C], real [M, C] → {name: [subsets] float64}; the score is their mean.

    Each subset draws `size` rows of either set, without replacement; fewer, with a warning, where there are not so
    many. One subset then is all there is where both have the same count.
    """
    most = min(len(fake), len(real))
    if most < 2:
        raise UserError(f"{name}: {len(fake)} and {len(real)} pictures; 2 or more of each")
    if most < size:
        warnings.warn(f"{name}: subsets of {most} pictures, not of {size}: there are no more", stacklevel=2)
    size = min(size, most)
    subsets = 1 if len(fake) == len(real) == size else subsets
    rng = np.random.default_rng(derive_seed(seed, 0x61D))
    pick = lambda x: x[torch.from_numpy(rng.choice(len(x), size, replace=False)).to(x.device)]
    return {name: torch.tensor([mmd(pick(fake), pick(real)) for _ in range(subsets)], dtype=torch.float64)}


def measured(e: Evidence, features: str, name: str) -> dict[str, Estimate]:
    """Of the named features. Subsets overlap, so that their spread says only how far their mean is from the score of
    the whole sets; how far that is from the truth, the kernel says."""
    fake, real = e.fake[features], e.real[features]
    values = compute(fake, real, seed=e.seed, name=name)[name]
    subsets = float(values.var()) / len(values) if len(values) > 1 else 0.0
    whole = deviation(fake, real, kernel, True, e.seed) if min(len(fake), len(real)) > 2 else math.nan
    return {name: Estimate(float(values.mean()), math.sqrt(whole**2 + subsets))}


METRIC = Metric(
    lambda e: measured(e, "inception", "kid"),
    networks=("inception",),
    features=("inception",),
    reference=True,
    lower=True,
    distance=True,
    version=2,  # 1 took the subsets for independent; the score is the same
    settings=lambda samples, reference_count: {"subsets": SUBSETS, "size": min(SIZE, samples, reference_count)},
    order=20,
)
