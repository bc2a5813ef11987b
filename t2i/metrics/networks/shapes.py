"""Objects of drawn scenes, cut out of their pictures: their outline and what is drawn in it, without colour or ground,
as an ImageNet network sees them; and as many drawn ones to hold them against.

Where the object is, the scenes' judge says (t2i/probes/sight.py), which marks what stands in an object's place too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from t2i.metrics.networks import Network, Setting, Settings, trunk

DRAWN, DRAWN_SEEDS = 600, 9_000_000  # pictures to hold against, and from which seed on: none of a generator's training
SIZE = 160  # pixels of a crop
MARGIN = 0.15  # of the object's longer side, around it
LEAST = 6  # places of 32×32 that an object takes up; with fewer there is none
GREY = (0.299, 0.587, 0.114)  # Rec. 601

SETTINGS: dict[str, Setting] = {}


@dataclass(frozen=True)
class Drawn:
    """Drawn objects."""

    shapes: Any  # [M, C]
    objects: list[str]  # [M]


def missing(settings: Settings) -> str | None:
    if not settings.scenes:
        return "only drawn scenes say what shape an object has"
    from t2i.encoders.trunk import missing as absent

    return absent(trunk.DEFAULT)


def load(settings: Settings, device: Any) -> Network:
    """ "shape" [N, C], and "shape_seen" [N] bool: whether there is anything."""
    import torch

    from t2i.encoders.trunk import load_trunk
    from t2i.metrics.protocol import hashed
    from t2i.probes import scenes

    judge, network = scenes.load().to(device), load_trunk(trunk.DEFAULT, device)

    @torch.no_grad()
    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        crops, seen = cut_out(images.float(), judge)
        return {"shape": network.features(crops).float(), "shape_seen": seen}

    images, objects, _ = scenes.real(DRAWN, DRAWN_SEEDS, held_out=())
    drawn = torch.cat([see(part.to(device), [])["shape"].cpu() for part in images.split(50)])
    fingerprint = f"{trunk.DEFAULT} {hashed(network)}, places by {hashed(judge)}, {DRAWN} drawn"
    return Network(see, fingerprint, Drawn(drawn, objects))


def cut_out(images: Any, judge: Any) -> tuple[Any, Any]:
    """Pictures [N, 3, H, W] in [-1, 1] → the object of each, grey on mid-grey, in the middle of a square
    [N, 3, 160, 160] in [-1, 1]; and whether there is one [N]: without, the square is of the whole picture."""
    import torch
    import torch.nn.functional as F

    from t2i.encoders.clip import resample
    from t2i.probes.classifier import fit

    images = fit(images)
    there = judge(images)[2][:, :1].sigmoid()  # [N, 1, 32, 32]; behind it lie the objects' cores
    places = there[:, 0] > 0.5
    seen = places.flatten(1).sum(1) >= LEAST
    spans = [_span(places.any(along)) for along in (2, 1)]  # of rows, of columns: [N, 2] each, in 0..1
    longest = torch.stack([span[:, 1] - span[:, 0] for span in spans]).amax(0)
    side = ((1 + 2 * MARGIN) * longest).clamp(0.2, 1).where(seen, 1)
    middle = torch.stack([span.mean(1) for span in spans], 1)  # [N, 2]
    corner = (middle - side[:, None] / 2).clamp(min=0).minimum(1 - side[:, None])
    grey = (images * images.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)
    alone = grey * F.interpolate(there, images.shape[-2:], mode="bilinear")
    return resample(alone.expand(-1, 3, -1, -1), SIZE, side, corner), seen


def _span(there: Any) -> Any:
    """Rows of bool [N, L] → where the first True of each begins and the last ends, in 0..1 [N, 2]; of none all."""
    import torch

    length = there.shape[1]
    first = there.float().argmax(1)
    last = length - there.flip(1).float().argmax(1)
    return torch.stack((first, last), 1) / length
