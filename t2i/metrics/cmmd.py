"""CMMD (Jayasumana et al. 2024, 2401.09603): the MMD of a Gaussian kernel on CLIP's image features.

It hardly notices pictures that have all become alike: never report it alone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.intervals import Estimate
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.mmd import deviation

SIGMA, SCALE = 10.0, 1000.0  # as published


def compute(
    fake: Tensor, real: Tensor, sigma: float = SIGMA, scale: float = SCALE, chunk: int = 512
) -> dict[str, float]:
    """fake [N, C], real [M, C], brought to unit length here → {"cmmd": scale · MMD² ≥ 0}, in float64.

    k(a, b) = exp(−|a − b|² / 2σ²); the estimate with the least variance, which counts every pair, also of a picture
    with itself, as the paper's code does. Memory grows with `chunk`.
    """
    if not len(fake) or not len(real):
        raise UserError("cmmd: no pictures were given")
    x, y = F.normalize(fake.double(), dim=1), F.normalize(real.double(), dim=1)

    def mean(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for part in a.split(chunk):
            total += float(kernel(part, b, sigma).sum())
        return total / (len(a) * len(b))

    return {"cmmd": max(scale * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), 0.0)}


def bias(fake: Tensor, real: Tensor, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """What is in `compute` because it counts pictures with themselves: two sets of one distribution have so much."""
    bias = 0.0
    for rows in (fake, real):
        unit = F.normalize(rows.double(), dim=1)
        few = unit[:: len(unit) // 2000 + 1]  # its mean over pairs is known well enough
        k = kernel(few, few, sigma)
        others = (float(k.sum()) - len(few)) / (len(few) * max(len(few) - 1, 1))
        bias += scale * (1 - others) / len(unit)
    return bias


def kernel(a: Tensor, b: Tensor, sigma: float = SIGMA) -> Tensor:
    """Of vectors of unit length, whose |a − b|² is 2 − 2 a·b."""
    return torch.exp((a @ b.T - 1) / sigma**2)


def _measure(e: Evidence) -> dict[str, Estimate | float]:
    fake, real = e.fake["clip"], e.real["clip"]
    value, few = compute(fake, real)["cmmd"], min(len(fake), len(real))
    x, y = (F.normalize(rows.double(), dim=1) for rows in (fake, real))
    spread = SCALE * deviation(x, y, kernel, False, e.seed) if few > 2 else math.nan
    return {"cmmd": Estimate(value, spread), "cmmd_bias": bias(fake, real)}


METRIC = Metric(
    _measure,
    networks=("clip",),
    features=("clip",),
    reference=True,
    beside=("cmmd_bias",),
    lower=True,
    distance=True,
    order=70,
)
