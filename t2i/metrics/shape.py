"""Shape: how often a drawn scene's picture has an object whose shape is that of the object asked for.

The object is cut out, without colour and ground (networks/shapes.py), and the three most similar of 600 drawn ones
must all be of the kind that was asked for. That is true of 99 % of unseen drawn objects, and of 4 to 12 % of ellipses,
boxes and scribbles of the right colour in the right place (docs/results.md). How far shapes are from drawn ones
altogether, shape_kd says.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.prdc import distances
from t2i.metrics.probe import says_no_object

AGREE = 3  # drawn ones, the nearest, that must be what was asked for


def compute(
    shapes: Tensor, seen: Tensor, asked: Sequence[str | None], drawn: Tensor, objects: Sequence[str]
) -> dict[str, Tensor]:
    """Features of objects [N, C], whether there is one [N], what was asked for; features of drawn ones [M, C], and what
    they are → {"shape": 1 or 0 for each picture of which a drawn object was asked}."""
    known = [i for i, name in enumerate(asked) if name in set(objects)]
    if not known:
        raise UserError("shape: the captions say no object; use those of scenes shards")
    unit = lambda x: F.normalize(x.double(), dim=1)
    right = []
    for rows, far in distances(unit(shapes[known]), unit(drawn), 256):
        nearest = far.topk(AGREE, 1, largest=False).indices.tolist()
        right += [bool(seen[i]) and {objects[n] for n in found} == {asked[i]} for found, i in zip(nearest, known[rows])]
    return {"shape": shapes.new_tensor(right).cpu()}


def _measure(e: Evidence) -> dict[str, Tensor]:
    drawn = e.networks["shapes"].itself
    asked = [c.object for c in e.captions]
    shapes = e.fake["shape"]
    return compute(shapes, e.fake["shape_seen"], asked, drawn.shapes.to(shapes.device), drawn.objects)


METRIC = Metric(
    _measure,
    networks=("shapes",),
    features=("shape", "shape_seen"),
    lacks=says_no_object,
    settings=lambda samples, reference_count: {"agree": AGREE},
    order=172,
)
