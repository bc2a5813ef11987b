"""FID as clean-fid computes it (Parmar et al. 2022, 2104.11222): pictures are resized by Pillow's bicubic, in float.

It is a score of its own: a few tenths to a few points from FID, and comparable with neither it nor other resizings.
Pictures that were resized to a data set's size before have to be so by an antialiased filter too (as shards are).
"""

from t2i.metrics import frechet
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: frechet.compute(e.fake["inception_clean"], e.real["inception_clean"], "clean_fid"),
    networks=("inception_clean",),
    features=("inception_clean",),
    reference=True,
    moments=True,
    lower=True,
    distance=True,
    whole=True,
    no_interval=lambda e: frechet.no_interval(e.fake["inception_clean"]),
    costly=True,  # a second pass through Inception
    order=15,
)
