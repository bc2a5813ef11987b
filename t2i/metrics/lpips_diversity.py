"""LPIPS between pictures of one caption (Zhang et al. 2018, 1801.03924): higher is more varied."""

import torch
from torch import Tensor, nn

from t2i.metrics.metric import Metric


def compute(first: Tensor, second: Tensor, distance: nn.Module) -> dict[str, Tensor]:
    """Pictures [N, 3, H, W] in [-1, 1], two of each caption, and a network as lpips_distance.load gives →
    {"lpips_diversity": [N]}.

    0 for a picture and itself.
    """
    with torch.no_grad():
        return {"lpips_diversity": distance(first.float(), second.float()).reshape(-1).double().cpu()}


METRIC = Metric(
    lambda e: {"lpips_diversity": e.fake["lpips_diversity"]},
    networks=("lpips_alex",),
    of_pairs=lambda first, second, networks: compute(first, second, networks["lpips_alex"].itself),
    order=110,
)
