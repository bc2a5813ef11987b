"""Precision, recall, density and coverage as prdc.py has them, on the features of another network than Inception.

Features are brought to unit length. As they are, those of noise and of flat colours lie near 0, inside the balls of
nearly all photographs: EfficientNet-Lite2 would give them a precision of 1, where real pictures have 0.78
(docs/results.md has the floors).
"""

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor

from t2i.metrics import prdc
from t2i.metrics.metric import Evidence, Metric


def _measure(e: Evidence) -> dict[str, Tensor | float]:
    unit = lambda features: features | {"trunk": F.normalize(features["trunk"].double(), dim=1)}
    return prdc.measured(replace(e, fake=unit(e.fake), real=unit(e.real)), "trunk", "trunk_")


METRIC = Metric(
    _measure,
    networks=("trunk",),
    features=("trunk",),
    reference=True,
    settings=lambda samples, count: prdc.settings(samples, count) | {"features": "of unit length"},
    scores=("trunk_precision", "trunk_recall", "trunk_density", "trunk_coverage"),
    distance=True,  # nor is density ever below 0
    order=42,
)
