"""KD: KID's distance on the features of another network than Inception, as KD_DINOv2 (Stein et al. 2023, 2306.04675).

The protocol says which network and at what size; KID's figures have nothing to do with these, nor those of two
networks with each other.
"""

from t2i.metrics import kid
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: kid.measured(e, "trunk", "kd"),
    networks=("trunk",),
    features=("trunk",),
    reference=True,
    lower=True,
    distance=True,
    settings=kid.METRIC.settings,
    order=22,
)
