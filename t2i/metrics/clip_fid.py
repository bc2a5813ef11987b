"""CLIP-FID: the Fréchet distance of CLIP's features (Kynkäänniemi et al. 2022, 2203.06026)."""

from t2i.metrics import frechet
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: frechet.compute(e.fake["clip"], e.real["clip"], "clip_fid"),
    networks=("clip",),
    features=("clip",),
    reference=True,
    moments=True,
    lower=True,
    distance=True,
    whole=True,
    no_interval=lambda e: frechet.no_interval(e.fake["clip"]),
    order=60,
)
