"""How often a drawn scene's picture shows the object and the colour of its caption, by a judge that also
answers "none" (t2i/probes). Beside it how far the judge can be trusted: what it says of drawn pictures of the same
size, and how often it sees an object where there is none."""

from functools import cache

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.metrics.networks import Settings
from t2i.metrics.sources import Source
from t2i.probes import scenes
from t2i.probes.measure import DRAWN_SEEDS
from t2i.probes.sight import Sight

DRAWN = 200  # pictures for the ceiling and for each floor


def _measure(e: Evidence) -> dict[str, Tensor]:
    """1 or 0 a picture: "probe_object", of those whose colour is told "probe_color", and "probe_both"; and `trust`."""
    judge = e.networks["probe"].itself
    known = [(i, c) for i, c in enumerate(e.captions) if c.object in judge.objects]
    if not known:
        raise UserError("probe: the captions say no object; use those of scenes shards")
    seen = lambda name, names: [dict(enumerate(names)).get(i) for i in e.fake[name].tolist()]  # None: no object
    objects, colors = seen("object", judge.objects), seen("color", judge.colors)
    right = torch.tensor([[objects[i] == c.object, c.color is None or c.color == colors[i]] for i, c in known]).double()
    told = torch.tensor([c.color is not None for _, c in known])
    scores = {"probe_object": right[:, 0], "probe_both": right.prod(1)}
    return scores | ({"probe_color": right[told, 1]} if told.any() else {}) | trust(judge, e.resolution)


@cache
def trust(judge: Sight, side: int) -> dict[str, Tensor]:
    """1 or 0 a picture: "probe_ceiling_object" and "probe_ceiling_both" of drawn scenes of side × side pixels, and
    "probe_floor_noise" and others: whether it sees the object where there is noise, the ground alone, an ellipse …"""

    def right(images: Tensor, objects: list[str], colors: list[str | None]) -> Tensor:
        rows = [
            (seen[0].object == o, seen[0].object == o and c in (None, seen[0].color)) if seen else (False, False)
            for seen, o, c in zip(judge.look(images), objects, colors)
        ]
        return torch.tensor(rows).double()

    ceiling = right(*scenes.real(DRAWN, DRAWN_SEEDS, side, held_out=()))
    floors = scenes.floors(DRAWN, DRAWN_SEEDS, side)
    shares = {"probe_ceiling_object": ceiling[:, 0], "probe_ceiling_both": ceiling[:, 1]}
    return shares | {f"probe_floor_{kind}": right(*shown)[:, 0] for kind, shown in floors.items()}


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
    of_reference=("probe_ceiling", "probe_floor"),
    lacks=says_no_object,
    order=170,
)
