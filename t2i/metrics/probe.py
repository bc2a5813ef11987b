"""How often a drawn scene's picture shows the object and the colour of its caption, by a judge that also
answers "none" (t2i/probes)."""

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.networks import Settings
from t2i.metrics.sources import Source


def _measure(e: Evidence) -> dict[str, Tensor]:
    """1 or 0 a picture: "probe_object", of those whose colour is told "probe_color", and "probe_both"."""
    judge = e.networks["probe"].itself
    known = [(i, c) for i, c in enumerate(e.captions) if c.object in judge.objects]
    if not known:
        raise UserError("probe: the captions say no object; use those of scenes shards")
    seen = lambda name, names: [dict(enumerate(names)).get(i) for i in e.fake[name].tolist()]  # None: no object
    objects, colors = seen("object", judge.objects), seen("color", judge.colors)
    right = torch.tensor([[objects[i] == c.object, c.color is None or c.color == colors[i]] for i, c in known]).double()
    told = torch.tensor([c.color is not None for _, c in known])
    scores = {"probe_object": right[:, 0], "probe_both": right.prod(1)}
    return scores | ({"probe_color": right[told, 1]} if told.any() else {})


def says_no_object(source: Source, settings: Settings) -> str | None:
    """What is lacking where captions come without the objects that a drawn scene's have."""
    if any(caption.object for caption in source.captions):
        return None
    return "the captions do not say what should be seen: take those of scenes shards"


METRIC = Metric(
    _measure,
    networks=("probe",),
    features=("object", "color"),
    scores=("probe_object", "probe_color", "probe_both"),
    lacks=says_no_object,
    order=170,
)
