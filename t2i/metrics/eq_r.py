"""EQ-R: does a turned input give the turned picture? (See equivariance.py.)"""

from t2i.metrics import equivariance
from t2i.metrics.metric import Metric

METRIC = Metric(
    lambda e: equivariance.decibels(e, "eq_r"),
    of_model=equivariance.squared_errors({"EQ-R": "eq_r"}),
    smallest=equivariance.SMALLEST,
    lacks=equivariance.lacks,
    costly=True,
    order=140,
)
