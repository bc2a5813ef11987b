"""FD: the Fréchet distance on the features of another network than Inception, as FD_DINOv2 (Stein et al. 2023,
2306.04675). The protocol says which network and at what size; FID's figures have nothing to do with these."""

from t2i.metrics import frechet
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: frechet.compute(e.fake["trunk"], e.real["trunk"], "fd"),
    networks=("trunk",),
    features=("trunk",),
    reference=True,
    moments=True,
    lower=True,
    distance=True,
    whole=True,
    no_interval=lambda e: frechet.no_interval(e.fake["trunk"]),
    order=24,
)
