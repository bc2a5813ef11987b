"""How far the shapes of drawn scenes' objects are from those of drawn ones: KID's distance between their features, as
shape.py cuts them out, whatever was asked for. All pictures count, so that twenty are enough to tell scribbles."""

import math

from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.intervals import Estimate
from t2i.metrics.kid import kernel
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.mmd import deviation
from t2i.metrics.probe import says_no_object


def compute(fake: Tensor, drawn: Tensor, seed: int = 0) -> Estimate:
    """fake [N, C], drawn [M, C] → the unbiased MMD² (Gretton et al. 2012, lemma 6) of sets of any sizes, KID's kernel.

    Its deviation is that over draws of both. UserError for fewer than two pictures.
    """
    if min(len(fake), len(drawn)) < 2:
        raise UserError(f"shape_kd: {len(fake)} and {len(drawn)} pictures; 2 or more of each")
    x, y = fake.double(), drawn.double()

    def within(a: Tensor) -> float:
        k = kernel(a, a)
        return float(k.sum() - k.trace()) / (len(a) * (len(a) - 1))

    value = within(x) + within(y) - 2 * float(kernel(x, y).mean())
    return Estimate(value, deviation(x, y, kernel, True, seed) if min(len(x), len(y)) > 2 else math.nan)


METRIC = Metric(
    lambda e: {"shape_kd": _measure(e)},
    networks=("shapes",),
    features=("shape",),
    lacks=says_no_object,
    lower=True,
    distance=True,
    order=174,
)


def _measure(e: Evidence) -> Estimate:
    return compute(e.fake["shape"], e.networks["shapes"].itself.shapes.to(e.fake["shape"].device), e.seed)
