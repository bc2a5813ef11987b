"""Are generated pictures copies of training pictures? The training pictures nearest to each, by the features of a
network, to be looked at; and how near that is, beside how near pictures are that nobody trained on.

Distances are those of features of unit length: 0 is the same picture, √2 one that has nothing in common with it. A
network of its kind sees what is shown more than where: a copy that is shifted, mirrored or recoloured is near too.
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics import intervals, networks, protocol
from t2i.metrics.compare import FORMAT
from t2i.metrics.networks import Settings
from t2i.metrics.prdc import distances
from t2i.metrics.request import Request
from t2i.metrics.sources import Generated, Reference, Source, overlap
from t2i.metrics.suite import check_resolution, in_blocks, noting
from t2i.pictures import picture_grid

SHARE = 0.05  # of held-out pictures that lie nearer to the training set than the threshold
NEIGHBOURS = 5
ROWS = {"generated": 8, "held out": 4}  # of the sheet, the nearest first


def neighbours(x: Tensor, training: Tensor, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """x [N, C], training [M, C] → distances to the k nearest training pictures, nearest first, and their numbers,
    [N, k] each. own [N]: training numbers of x themselves, which do not count."""
    near, numbers = [], []
    for rows, far in distances(x, training, 256):
        if own is not None:
            far[torch.arange(len(far)), own[rows]] = torch.inf
        found = far.topk(k, 1, largest=False)
        near.append(found.values)
        numbers.append(found.indices)
    return torch.cat(near), torch.cat(numbers)


def compute(fake: Tensor, held_out: Tensor, training: Tensor) -> dict[str, Tensor]:
    """Features [N, C], [H, C] and [M, C] → one value a picture:

    "nearest_copies" [N]: 1 where it is nearer to a training picture than all but 5 % of held-out pictures are; that
    share is 0.05 of a model that copies no more than chance does. "nearest_authentic" [N]: 1 where the training picture
    nearest to it has another training picture nearer still (Alaa et al. 2022, 2102.08921, section 3.3). "nearest" [N]:
    the distance. Of the held-out ones "held_out_nearest_authentic" and "held_out_nearest" [H].

    UserError for fewer than 20 held-out pictures, of which 5 % is less than one.
    """
    if len(held_out) * SHARE < 1:
        raise UserError(f"--nearest: {len(held_out)} held-out pictures; {round(1 / SHARE)} or more")
    if len(training) < 2:
        raise UserError("--nearest: 2 training pictures or more")
    fake, held_out, training = (F.normalize(x.double(), dim=1) for x in (fake, held_out, training))
    out: dict[str, Tensor] = {}
    for prefix, x in (("", fake), ("held_out_", held_out)):
        near, number = (part[:, 0] for part in neighbours(x, training, 1))
        which, back = number.unique(return_inverse=True)
        between = neighbours(training[which], training, 1, own=which)[0][back, 0]
        out |= {f"{prefix}nearest_authentic": (between < near).double(), f"{prefix}nearest": near}
    threshold = out["held_out_nearest"].quantile(SHARE)
    return {"nearest_copies": (out["nearest"] < threshold).double()} | out


def sheet(
    shown: dict[str, tuple[Source | Reference, Tensor]], training: Reference, features: Tensor, scale: int = 0
) -> Image.Image:
    """Of each kind (of ROWS) the pictures that are nearest to the training set, a row each: the picture, and its five
    nearest training pictures with their distances. shown: kind → its pictures, and their features [N, C]."""
    pictures: list[Tensor] = []
    labels: list[str] = []
    features = F.normalize(features.double(), dim=1)
    k = min(NEIGHBOURS, len(features))
    for kind, (source, x) in shown.items():
        near, numbers = neighbours(F.normalize(x.double(), dim=1), features, k)
        for row in near[:, 0].argsort()[: ROWS[kind]].tolist():
            pictures += [source.pick([row]), training.pick(numbers[row].tolist())]
            labels += [kind, *(f"{distance:.2f}" for distance in near[row].tolist())]
    images = torch.cat([p.cpu() for p in pictures])
    return picture_grid(images, 1 + k, labels, scale or max(1, 128 // images.shape[-1]))


def judge(r: Request, source: Source, held_out: Reference, device: str) -> dict[str, Any]:
    """What score.py --nearest does: how near generated pictures come to training pictures, beside how near held-out
    ones come, and a sheet of the nearest."""
    assert r.nearest
    shards = r.training or (source.model.config.data.shards if isinstance(source, Generated) else "")
    # Where a model folder names them, nothing is fetched or run for it.
    training = Reference(shards, r.seed, setting="training", here=not r.training)
    for reference in (held_out, training):
        check_resolution(reference, source)
    network = networks.load("trunk", Settings(r.networks, False, r.seed), device)
    others = min(r.reference_count or held_out.count, held_out.count)

    def features(pictures: Source | Reference, count: int, label: str) -> Tensor:
        look = lambda numbers: network.see(pictures.pick(numbers).to(device), numbers)
        return in_blocks(count, look, label).get("trunk", torch.zeros(0))

    fake, real = features(source, len(source.captions), "pictures"), features(held_out, others, "held out")
    seen = features(training, training.count, "training")
    rows: dict[str, Tensor] = {}
    notes: list[str] = []
    if len(seen):  # on the first process
        rows = compute(fake, real, seen)
        sheet({"generated": (source, fake), "held out": (held_out, real)}, training, seen).save(r.nearest)
        print(f"{network.title}: {training.count} training pictures of {shards}; the nearest are shown in {r.nearest}")
        with noting(notes):
            overlap(shards, held_out)
        for line in notes:
            print(f"note: {line}", file=sys.stderr)
    return {
        "format": FORMAT,
        "scores": {k: float(v.mean()) for k, v in rows.items()},
        "intervals": {k: intervals.of_mean(v) for k, v in rows.items()},
        "protocol": protocol.describe(source, [], {"trunk": network}, held_out, others, 0, r.seed)
        | {"training": training.digest()},
        "subject": source.describe(),
        "judges": {"trunk": network.title},
        "notes": notes,
    }
