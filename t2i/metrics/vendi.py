"""Vendi score (Friedman & Dieng 2023, 2210.02410): how many different pictures a set amounts to; and its Rényi orders
(Pasarkar & Dieng 2023, 2310.12952), of which those below 1 heed the rare ones and those above 1 the common ones.

It grows with the count of pictures, and stays below it: only sets of equally many compare, so that as many real
pictures are counted beside. It does not ask whether pictures are good: noise is varied too.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.frechet import CHUNK
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.prdc import equally_many

ORDERS = (1.0, 0.5, 2.0, math.inf)


def compute(features: Tensor, orders: Sequence[float] = ORDERS) -> dict[float, float]:
    """features [N, C] → order q → the score, 1..N, of the kernel of cosines: exp of the Rényi entropy of order q of the
    eigenvalues of K/N [N, N], which are those of XᵀX/N [C, C] too. q = 1 is Shannon's. In float64.

    UserError where there are no pictures.
    """
    if not len(features):
        raise UserError("vendi: no pictures were given")
    scatter = torch.zeros(features.shape[1], features.shape[1], dtype=torch.float64, device=features.device)
    for part in features.split(CHUNK):
        x = F.normalize(part.double(), dim=1)
        scatter += x.T @ x
    share = torch.linalg.eigvalsh(scatter / len(features))
    share = share[share > 1e-12]  # rounding leaves small ones, whose low powers would count
    return {q: math.exp(_entropy(share / share.sum(), q)) for q in orders}


def _entropy(share: Tensor, q: float) -> float:
    if q == 1:
        return float(-(share * share.log()).sum())
    if math.isinf(q):
        return float(-share.max().log())
    return float((share**q).sum().log()) / (1 - q)


def _measure(e: Evidence) -> dict[str, float]:
    fake, real = equally_many(e.fake["trunk"], e.real["trunk"], e.seed)
    name = lambda q: "" if q == 1 else f"_{q:g}"
    scores = {f"vendi{name(q)}": value for q, value in compute(fake).items()}
    return scores | {f"real_vendi{name(q)}": value for q, value in compute(real).items()}


METRIC = Metric(
    _measure,
    networks=("trunk",),
    features=("trunk",),
    reference=True,
    settings=lambda samples, reference_count: {"of each": min(samples, reference_count)},
    of_reference=("real_vendi",),
    order=44,
)
