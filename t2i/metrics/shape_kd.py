"""How far the shapes of drawn scenes' objects are from those of drawn ones: KID's distance between their features, as
networks/shapes.py cuts them out, whatever was asked for. Twenty pictures are enough to tell scribbles from shapes."""

import math

from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.intervals import NORMAL, Estimate, student
from t2i.metrics.kid import kernel
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.probe import says_no_object


def compute(fake: Tensor, drawn: Tensor) -> Estimate:
    """fake [N, C], drawn [M, C] → the unbiased MMD² (Gretton et al. 2012, lemma 6) of sets of any sizes, KID's kernel.

    Its deviation is the jackknife's over draws of fake (the drawn ones are always the same), wider by as much as
    Student's distribution is: mmd.deviation, which takes the noise of its own estimates off, covers 87 % with twenty
    pictures. UserError for fewer than three.
    """
    n, m = len(fake), len(drawn)
    if min(n, m) < 3:
        raise UserError(f"shape_kd: {n} and {m} pictures; 3 or more of each")
    x, y = fake.double(), drawn.double()
    xx, yy, across = kernel(x, x), kernel(y, y), kernel(x, y).mean(1)
    rows = xx.sum(1) - xx.diagonal()  # of each picture with the others
    of_drawn = float(yy.sum() - yy.trace()) / (m * (m - 1))
    value = float(rows.sum()) / (n * (n - 1)) + of_drawn - 2 * float(across.mean())
    without = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2)) - 2 * (across.sum() - across) / (n - 1)  # each left out
    spread = math.sqrt((n - 1) / n * float((without - without.mean()).square().sum()))
    return Estimate(value, spread * student(n - 1) / NORMAL)


def _measure(e: Evidence) -> dict[str, Estimate]:
    shapes = e.fake["shape"]
    return {"shape_kd": compute(shapes, e.networks["shapes"].itself.shapes.to(shapes.device))}


METRIC = Metric(
    _measure,
    networks=("shapes",),
    features=("shape",),
    lacks=says_no_object,
    lower=True,
    distance=True,
    order=174,
)
