"""Does a picture of two objects give each the colour that its prompt gave it? Judged by a small classifier.

It says of every object of t2i/worlds/binding.py which colour it has, or that it is not there. It is trained on pictures
with none, one or two objects in any colours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.painting.pen import PALETTE
from t2i.probes import classifier, standins
from t2i.probes.classifier import SIDE, drawings, features, fit, floats, halve, learn, pool, spoil
from t2i.probes.measure import Probe
from t2i.probes.standins import Apart
from t2i.rng import Rng
from t2i.worlds import binding
from t2i.worlds.binding import Thing

SHIPPED = Path(__file__).parents[1] / "assets" / "binding-probe"
ABSENT = len(binding.COLORS)  # the class of an object that is not there


class BindingProbe(nn.Module):
    """Five strided convolutions, and for every object one linear head: its colour, or none."""

    def __init__(self, objects: Sequence[str] = binding.OBJECTS, colors: Sequence[str] = binding.COLORS):
        super().__init__()
        self.objects, self.colors = list(objects), list(colors)
        self.features = features()
        self.head = nn.Linear(2 * 128, len(self.objects) * (len(self.colors) + 1))

    def forward(self, images: Tensor) -> Tensor:
        """images [N, 3, H, W] in [-1, 1] → logits [N, objects, colours + 1]."""
        x = pool(self.features(fit(images)))  # [N, 256]
        return self.head(x).unflatten(1, (len(self.objects), len(self.colors) + 1))

    @torch.no_grad()
    def name(self, images: Tensor, batch: int = 256) -> list[dict[str, str]]:
        """images [N, 3, H, W] in [-1, 1] → object: colour, of every object seen in each."""
        seen = []
        for part in images.split(batch):
            for row in self(part.float()).argmax(2).tolist():
                seen.append({o: self.colors[c] for o, c in zip(self.objects, row) if c < len(self.colors)})
        return seen


def compute(images: Tensor, asked: Sequence[tuple[Thing, Thing]], probe: Any) -> dict[str, float]:
    """How often pictures [N, 3, H, W] in [-1, 1] bind the two colours asked of each to their objects.

    Shares of all pictures in 0..1: "objects" both objects are there; "binding" they are, each in its colour;
    "swapped" they are, each in the other's. "bound": of those whose objects are there in the two colours asked,
    either way round, the share that has them the right way round: ½ is what guessing gives (0 where there are none).
    """
    if not len(images) == len(asked):
        raise ValueError(f"{len(images)} images, {len(asked)} prompts; one a picture")
    if not len(images):
        raise ValueError("no images to judge")
    both = right = swapped = 0
    for seen, ((c, a), (d, b)) in zip(probe.name(images), asked):
        both += a in seen and b in seen
        right += seen.get(a) == c and seen.get(b) == d
        swapped += seen.get(a) == d and seen.get(b) == c
    n = len(images)
    return {
        "objects": both / n,
        "binding": right / n,
        "swapped": swapped / n,
        "bound": right / (right + swapped) if right + swapped else 0.0,
        "count": n,
    }


def real(count: int, seed: int, only_held_out: bool = False) -> tuple[Tensor, list[tuple[Thing, Thing]]]:
    """Drawn pictures [count, 3, 64, 64] in [-1, 1] and the two things each shows."""
    pixels, plans = drawings(count, lambda i: binding.draw(seed, i, SIDE, only_held_out=only_held_out))
    return floats(pixels), [_things(plan) for plan in plans]


def _things(plan: dict[str, Any]) -> tuple[Thing, Thing]:
    a, b = ((thing["color"], thing["name"]) for thing in plan["objects"])
    return a, b


def floors(count: int, seed: int) -> dict[str, tuple[Tensor, list[tuple[Thing, Thing]]]]:
    """Pictures without an object, by kind (see standins.floors), and the things of those that they are made from."""
    whole, plans = drawings(count, lambda i: binding.draw(seed, i, SIDE, held_out=()))
    bare = {"objects": [], "background": {"time": "day"}}
    ground = drawings(1, lambda i: (binding.render(bare, seed, i, SIDE), bare))[0].expand_as(whole)
    mask = ((whole.int() - ground.int()).abs().amax(3, keepdim=True) > 2).byte() * 255
    boxes = torch.tensor([[thing["box"] for thing in plan["objects"]] for plan in plans])
    colors = torch.tensor([[PALETTE[thing["color"]] for thing in plan["objects"]] for plan in plans], dtype=torch.uint8)
    kinds = standins.floors(Apart(whole, ground, mask, boxes, colors), Rng(seed, 3))
    return {kind: (x, [_things(plan) for plan in plans]) for kind, x in kinds.items()}


def _drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels [count, 64, 64, 3] uint8 of pictures with up to two objects, and the class [count, objects] of each."""
    pixels, plans = drawings(count, lambda i: binding.draw_any(seed, i, SIDE))
    classes = torch.full((count, len(binding.OBJECTS)), ABSENT)
    for i, plan in enumerate(plans):
        for thing in plan["objects"]:
            classes[i, binding.OBJECTS.index(thing["name"])] = binding.COLORS.index(thing["color"])
    return pixels, classes


def train(
    count: int = 12000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 128,
    lr: float = 3e-3,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[BindingProbe, dict[str, float]]:
    """Draws `count` pictures, trains a probe on them, tests it on `tests` pictures it has not seen.

    Returns the probe in eval mode and its accuracies: "all", all objects of a picture right, "each", one object;
    and "all" at 32 pixels a side and on spoilt pictures.
    """
    progress(f"drawing {count} pictures")
    pixels, classes = _drawn(count, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = BindingProbe()
    rng = Rng(seed, 1)

    def loss(rows: Tensor) -> Tensor:
        images = spoil(floats(pixels[rows]), rng)
        images = halve(images) if rng.uniform() < 0.5 else images
        return F.cross_entropy(probe(images).flatten(0, 1), classes[rows].flatten())

    learn(probe, count, loss, epochs, batch, lr, rng, progress)
    pixels, truth = _drawn(tests, seed + 1)
    images = floats(pixels)
    right = {
        name: torch.cat([probe(part).argmax(2) for part in x.split(256)]) == truth
        for name, x in (("", images), ("_32", halve(images)), ("_spoilt", spoil(images, Rng(seed, 2))))
    }
    accuracy = {f"all{name}": float(r.all(1).float().mean()) for name, r in right.items()}
    return probe, accuracy | {"each": float(right[""].float().mean())}


def load(folder: str | Path = SHIPPED) -> BindingProbe:
    """The probe of a folder that classifier.save wrote, in eval mode; without a folder, the one that ships."""
    return classifier.load(folder, BindingProbe, "binding")


PROBE = Probe(
    load=load,
    train=train,
    prompts=lambda which, count, seed: tuple(zip(*binding.prompts(which, count, seed))),
    drawn=real,
    floors=floors,
    compute=compute,
    shipped=SHIPPED,
    columns={"objects": "objects", "binding": "binding", "swapped": "swapped"},
    unit="couples",
)
