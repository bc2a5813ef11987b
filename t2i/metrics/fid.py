"""FID: the Fréchet distance of Inception's features (Heusel et al. 2017, 1706.08500)."""

from t2i.metrics import frechet
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: frechet.compute(e.fake["inception"], e.real["inception"], "fid"),
    networks=("inception",),
    features=("inception",),
    reference=True,
    moments=True,
    lower=True,
    distance=True,
    whole=True,
    no_interval=lambda e: frechet.no_interval(e.fake["inception"]),
    order=10,
)
