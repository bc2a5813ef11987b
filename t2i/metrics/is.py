"""Inception Score (Salimans et al. 2016, 1606.03498). It looks at no real picture, and says little about COCO."""

import math

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Metric


def compute(logits: Tensor, splits: int = 10) -> dict[str, Tensor]:
    """logits [N, K] without bias, as the published code has them → {"is": [splits] float64}; the score is their mean.

    exp of the mean KL divergence of p(y|x) from its mean over the split, in 1..K. The splits are runs of rows.
    """
    splits = min(splits, len(logits))
    if not splits:
        raise UserError("is: no pictures were given")
    scores = []
    for part in logits.tensor_split(splits):
        log_p = part.double().log_softmax(1)  # [n, K]
        log_mean = torch.logsumexp(log_p, 0) - math.log(len(part))
        scores.append((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
    return {"is": torch.stack(scores).cpu()}


METRIC = Metric(lambda e: compute(e.fake["logits"]), networks=("inception",), features=("logits",), order=30)
