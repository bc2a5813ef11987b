"""Inception Score (Salimans et al. 2016, 1606.03498). It looks at no real picture, and says little about COCO."""

import math

import numpy as np
import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Metric
from t2i.rng import derive_seed

SPLITS = 10


def compute(logits: Tensor, splits: int = SPLITS, seed: int = 0) -> dict[str, Tensor]:
    """logits [N, K] without bias, as the published code has them → {"is": [splits] float64}; the score is their mean.

    exp of the mean KL divergence of p(y|x) from its mean over the split, in 1..K. The splits are drawn by the seed:
    runs of rows would be of one class each in a folder that is sorted by class, and score 1.
    """
    splits = min(splits, len(logits))
    if not splits:
        raise UserError("is: no pictures were given")
    order = np.random.default_rng(derive_seed(seed, 0x15)).permutation(len(logits))
    scores = []
    for part in logits[torch.from_numpy(order).to(logits.device)].tensor_split(splits):
        log_p = part.double().log_softmax(1)  # [n, K]
        log_mean = torch.logsumexp(log_p, 0) - math.log(len(part))
        scores.append((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
    return {"is": torch.stack(scores).cpu()}


METRIC = Metric(
    lambda e: compute(e.fake["logits"], seed=e.seed),
    networks=("inception",),
    features=("logits",),
    version=2,  # 1 took the pictures in their order
    settings=lambda samples, reference_count: {"splits": SPLITS},
    order=30,
)
