"""EQ-T, EQ-T frac: does a shifted input give the shifted picture? By whole pixels, and by any (see equivariance.py)."""

from t2i.metrics import equivariance
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: equivariance.decibels(e, "eq_t", "eq_t_frac"),
    of_model=equivariance.squared_errors({"EQ-T": "eq_t", "EQ-T frac": "eq_t_frac"}),
    smallest=equivariance.SMALLEST,
    lacks=equivariance.lacks,
    costly=True,
    scores=("eq_t", "eq_t_frac"),
    order=130,
)
