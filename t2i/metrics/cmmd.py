"""CMMD (Jayasumana et al. 2024, 2401.09603): the MMD of a Gaussian kernel on CLIP's image features.

It hardly notices pictures that have all become alike: never report it alone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Metric


def compute(
    fake: Tensor, real: Tensor, sigma: float = 10.0, scale: float = 1000.0, chunk: int = 512
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
            total += float(torch.exp((part @ b.T - 1) / sigma**2).sum())  # unit length: |a − b|² = 2 − 2 a·b
        return total / (len(a) * len(b))

    return {"cmmd": max(scale * (mean(x, x) + mean(y, y) - 2 * mean(x, y)), 0.0)}


METRIC = Metric(
    lambda e: compute(e.fake["clip"], e.real["clip"]),
    networks=("clip",),
    features=("clip",),
    reference=True,
    lower=True,
    whole=True,
    order=70,
)
