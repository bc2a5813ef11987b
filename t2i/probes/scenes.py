"""Does a picture show the object and the colour of its prompt? Judged by a small network that looks at the object.

It is trained on freshly drawn scenes (every pair of colour and object, those held out of the generators' training too)
and answers "none" to what stands in an object's place and is none: see standins.py. Objects lie on their own grounds
or on those of other scenes, so that the ground tells nothing. Pictures are spoilt a little by blur, noise, shifts and
light, so that it also reads some that were not drawn. The one that ships says in its probe.json how often it is right,
and what it makes of pictures without an object.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.painting.pen import PALETTE
from t2i.probes import classifier, standins
from t2i.probes.classifier import SIDE, fit, floats, halve, learn, moved, small, spoil, worsen
from t2i.probes.measure import Probe
from t2i.probes.sight import Sight
from t2i.probes.standins import Apart, blur, lay, scrawled, shapes, warped
from t2i.rng import Rng
from t2i.worlds import scenes

SHIPPED = Path(__file__).parents[1] / "assets" / "scenes-probe"
NONE = "none"  # the answer where no object is seen, and to which colour it has
OWN_SEEDS = (
    7_000_000  # training draws from here on, so no picture is one of a generator's training, whose seeds are small
)


class SceneProbe(Sight):
    """Which object, if any; in which colour; where."""

    def __init__(self, objects: Sequence[str] = scenes.SUBJECTS, colors: Sequence[str] = tuple(PALETTE)):
        super().__init__(len(objects) + 1, len(colors))
        self.objects, self.colors = list(objects), list(colors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1] → logits: of objects, none last [N, objects + 1]; of colours [N, colours]; of
        places where an object is [N, 1, 32, 32]."""
        return super().forward(fit(images))

    @torch.no_grad()
    def name(self, images: Tensor, batch: int = 256) -> tuple[list[str], list[str]]:
        """images [N, 3, H, W] in [-1, 1] → the object seen in each, and its colour; "none" twice where none is."""
        objects, colors = [], []
        for part in images.split(batch):
            first, second, _ = self(part.float())
            objects += [(*self.objects, NONE)[i] for i in first.argmax(1).tolist()]
            colors += [self.colors[i] for i in second.argmax(1).tolist()]
        return objects, [NONE if name == NONE else color for name, color in zip(objects, colors)]


def compute(images: Tensor, objects: Sequence[str], colors: Sequence[str | None], probe: SceneProbe) -> dict[str, Any]:
    """How often pictures show what was asked for.

    images [N, 3, H, W] in [-1, 1]; the object and the colour asked of each, None where none was. Returns shares in
    0..1: {"object", "color", "both", "count", "colored", "objects": {name: the same of its pictures}}. "color"
    counts only pictures of which one was asked (None if there is none); "both" takes the others by their object.
    """
    if not len(images) == len(objects) == len(colors):
        raise ValueError(
            f"{len(images)} images, {len(objects)} objects and {len(colors)} colors; one of each a picture"
        )
    if not len(images):
        raise ValueError("no images to judge")
    found = zip(*probe.name(images))
    rows = [(o, f[0] == o, None if c is None else f[1] == c) for o, c, f in zip(objects, colors, found)]
    names = list(dict.fromkeys(objects))
    return _shares(rows) | {"objects": {name: _shares([r for r in rows if r[0] == name]) for name in names}}


def asked(caption: str, attributes: dict[str, Any]) -> tuple[str, str | None]:
    """The object of a drawn scene, and its colour if the caption gives it one ("a boat under a blue sky" does not)."""
    name, color = attributes["objects"][0]["name"], attributes["objects"][0]["color"]
    nouns = r"(?:passenger |double decker |sail ?)?" + rf"(?:{name}|sofa|boat|bus|jacket|coat)"
    said = color and re.search(rf"\b{color} {nouns}s?\b|\bwearing {color}\b|\bis {color}\b", caption.lower())
    return name, color if said else None


def _shares(rows: list[tuple[str, bool, bool | None]]) -> dict[str, Any]:
    colored = [right for _, _, right in rows if right is not None]
    return {
        "object": sum(right for _, right, _ in rows) / len(rows),
        "color": sum(colored) / len(colored) if colored else None,
        "both": sum(o and c is not False for _, o, c in rows) / len(rows),
        "count": len(rows),
        "colored": len(colored),
    }


def real(count: int, seed: int, **options: Any) -> tuple[Tensor, list[str], list[str | None]]:
    """Drawn scenes as the data set has them at 64 pixels: [count, 3, 64, 64] in [-1, 1], objects, colours.

    options: `held_out` and `only_held_out` of scenes.draw.
    """
    pixels, plans = classifier.drawings(count, lambda i: scenes.draw(seed, i, SIDE, **options))
    return floats(pixels), *_subjects(plans)


def floors(count: int, seed: int) -> dict[str, tuple[Tensor, list[str], list[str | None]]]:
    """Pictures without an object, by kind (see standins.floors), and what scenes on whose ground they lie show."""
    apart, objects, colors = _apart(count, seed)
    return {kind: (x, objects, colors) for kind, x in standins.floors(apart, Rng(seed, 3)).items()}


def _apart(count: int, seed: int) -> tuple[Apart, list[str], list[str | None]]:
    """Scenes of any pair, taken apart; their objects and colours."""
    pixels, plans = np.empty((count, SIDE, SIDE, 7), np.uint8), []
    for i in range(count):
        *images, plan = scenes.draw_apart(seed, i, SIDE, held_out=())
        pixels[i] = np.dstack([small(image) for image in images])
        plans.append(plan)
    whole, ground, mask = torch.from_numpy(pixels).split((3, 3, 1), 3)
    objects, colors = _subjects(plans)
    boxes = torch.zeros(count, max(plan["objects"][0]["count"] for plan in plans), 4)
    paints = torch.empty(count, boxes.shape[1], 3, dtype=torch.uint8)
    for i, (plan, color) in enumerate(zip(plans, colors)):
        for k, box in enumerate(plan["objects"][0]["boxes"]):
            boxes[i, k] = torch.tensor(box)
        own = whole[i][mask[i, ..., 0] > 250].float().mean(0)  # of what has one look only
        paints[i] = torch.tensor(PALETTE[color]) if color else own.byte()
    return Apart(whole, ground, mask, boxes, paints), objects, colors


def _subjects(plans: list[dict[str, Any]]) -> tuple[list[str], list[str | None]]:
    subjects = [plan["objects"][0] for plan in plans]
    return [s["name"] for s in subjects], [s["color"] for s in subjects]


def train(
    count: int = 9000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 128,
    lr: float = 3e-3,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[SceneProbe, dict[str, float]]:
    """Draws `count` scenes, trains a probe on them, tests it on `tests` scenes it has not seen.

    Returns the probe in eval mode and its accuracies: "object" and "color"; both on spoilt pictures, and at 32 pixels;
    and of each kind of picture without an object how often it sees the object there all the same.
    """
    progress(f"drawing {count} scenes")
    apart, objects, colors = _apart(count, OWN_SEEDS + 2 * seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = SceneProbe()
    rng = Rng(seed, 1)
    first, second = _labels(probe, objects, colors)

    def loss(rows: Tensor) -> Tensor:
        images, where, shown = lesson(apart[rows], rng)
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the processor computes it
            a, b, seen = (logits.float() for logits in probe(images))
        object = torch.where(shown, first[rows], len(probe.objects))
        color = torch.where(shown, second[rows], -1)
        place = F.binary_cross_entropy_with_logits(seen, F.avg_pool2d(where, 2))
        return F.cross_entropy(a, object) + F.cross_entropy(b, color, ignore_index=-1) + place

    learn(probe, count, loss, epochs, batch, lr, rng, progress)
    images, objects, colors = real(tests, OWN_SEEDS + 2 * seed + 1, held_out=())
    accuracy: dict[str, float] = {}
    for kind, x in (("", images), ("spoilt_", spoil(images, Rng(seed, 2))), ("half_", halve(images))):
        shares = compute(x, objects, colors, probe)
        accuracy |= {f"{kind}{k}": shares[k] for k in ("object", "color")}
    for kind, shown in floors(tests, OWN_SEEDS + 2 * seed + 1).items():
        accuracy[f"{kind}_object"] = compute(*shown, probe)["object"]
    return probe, accuracy


# What a lesson is made of, in parts of a batch.
LESSON = {"true": 0.3, "moved": 0.18, "bare": 0.06, "shaped": 0.32, "torn": 0.06, "blurred": 0.06, "noise": 0.02}


def lesson(apart: Apart, rng: Rng) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes taken apart → what a probe learns from: pictures [N, 3, 64, 64] in [-1, 1]; where there is anything,
    object or stand-in [N, 1, 64, 64]; whether it is the object still [N].

    Objects on their own grounds; moved onto others; grounds alone; shapes and scribbles; objects warped beyond
    knowing; objects blurred; noise.
    """
    n, ground, thing = len(apart), *apart.layers()
    kind = torch.searchsorted(torch.tensor(list(LESSON.values())).cumsum(0), (torch.arange(n) + 0.5) / n, right=True)
    true, other, bare, shaped, torn, blurred, noise = (kind == k for k in range(len(LESSON)))
    ground[other] = ground.roll(1, 0)[other]
    turned = rng.rand(n) < 0.5
    thing[other & turned] = thing[other & turned].flip(3)
    thing[other] = moved(F.pad(thing[other], (8, 8, 8, 8)), rng.rand(int(other.sum()), 3))[..., 8:-8, 8:-8]
    thing[bare] = 0

    m = int(shaped.sum())
    wild = 0.5 * rng.rand(m) * (rng.rand(m) < 0.55)
    shape = shapes(apart[shaped], wild, rng, torch.where(rng.rand(m) < 0.6, 2.0, 8.0))
    marked = ((wild > 0) & (rng.rand(m) < 0.7))[:, None, None, None]
    shape[:, :3] = torch.where(marked, scrawled(shape[:, :3], rng) * shape[:, 3:], shape[:, :3])
    thing[shaped] = shape

    strength = 0.07 * rng.rand(n)  # outlines of what is to be seen may be a little liquid
    strength[torn] = 0.22 + 0.2 * rng.rand(n)[torn]
    thing = warped(thing, strength, rng)
    images = lay(ground, thing)
    images[blurred] = blur(images[blurred], 3.5 + 4 * rng.uniform())
    grain = rng.randn(int(noise.sum()), 3, SIDE, SIDE)
    images[noise], thing[noise] = (grain * 0.6).clamp(-1, 1), 0.0

    u = rng.rand(n, 6)
    both = moved(torch.cat((images, thing[:, 3:]), 1), u[:, :3])
    images, where = both[:, :3], both[:, 3:]
    images = fit(halve(images)) if rng.uniform() < 0.25 else images
    return worsen(images, u[:, 3:], rng), where.clamp(0, 1), true | other


def _labels(probe: SceneProbe, objects: Sequence[str], colors: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Class numbers [N] of objects and of colours, -1 where there is no colour to tell."""
    first = torch.tensor([probe.objects.index(name) for name in objects])
    return first, torch.tensor([-1 if name is None else probe.colors.index(name) for name in colors])


def load(folder: str | Path = SHIPPED) -> SceneProbe:
    """The probe of a folder that classifier.save wrote, in eval mode; without a folder, the one that ships."""
    return classifier.load(folder, SceneProbe, "scenes")


PROBE = Probe(
    load=load,
    train=train,
    prompts=lambda which, count, seed: tuple(zip(*scenes.prompts(which, count, seed))),
    drawn=real,
    floors=floors,
    compute=compute,
    shipped=SHIPPED,
    columns={"object": "object", "colour": "color", "both": "both"},
    unit="pairs",
)
