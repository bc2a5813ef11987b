"""Does a picture show the object and the colour of its prompt? Judged by a small classifier of drawn scenes.

The classifier is trained on true attributes of freshly drawn scenes (every pair of colour and object, those held
out of the generators' training too), spoilt a little by blur, noise, shifts and light, so that it also reads
pictures that were not drawn. The one that ships says in its probe.json how often it is right.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.painting.pen import PALETTE
from t2i.probes import classifier
from t2i.probes.classifier import SIDE, drawings, features, fit, floats, learn, pool, spoil
from t2i.probes.measure import Probe
from t2i.rng import Rng
from t2i.worlds import scenes

SHIPPED = Path(__file__).parents[1] / "assets" / "scenes-probe"


class SceneProbe(nn.Module):
    """Five strided convolutions and two linear heads: which object, which colour."""

    def __init__(self, objects: Sequence[str] = scenes.SUBJECTS, colors: Sequence[str] = tuple(PALETTE)):
        super().__init__()
        self.objects, self.colors = list(objects), list(colors)
        self.features = features()
        self.object = nn.Linear(2 * 128, len(self.objects))
        self.color = nn.Linear(2 * 128, len(self.colors))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1] → object logits [N, objects], colour logits [N, colours]."""
        x = pool(self.features(fit(images)))  # [N, 256]
        return self.object(x), self.color(x)

    @torch.no_grad()
    def name(self, images: Tensor, batch: int = 256) -> tuple[list[str], list[str]]:
        """images [N, 3, H, W] in [-1, 1] → the object and the colour seen in each."""
        seen: tuple[list[str], list[str]] = ([], [])
        for part in images.split(batch):
            for found, names, logits in zip(seen, (self.objects, self.colors), self(part.float())):
                found += [names[i] for i in logits.argmax(1).tolist()]
        return seen


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
    pixels, objects, colors = _drawn(count, seed, **options)
    return floats(pixels), objects, colors


def _drawn(count: int, seed: int, **options: Any) -> tuple[Tensor, list[str], list[str | None]]:
    """As `real`, but pixels [count, 64, 64, 3] uint8."""
    pixels, plans = drawings(count, lambda i: scenes.draw(seed, i, SIDE, **options))
    subjects = [plan["objects"][0] for plan in plans]
    return pixels, [s["name"] for s in subjects], [s["color"] for s in subjects]


def train(
    count: int = 12000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 128,
    lr: float = 3e-3,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[SceneProbe, dict[str, float]]:
    """Draws `count` scenes, trains a probe on them, tests it on `tests` scenes it has not seen.

    Returns the probe in eval mode and its accuracies: "object" and "color", and both on spoilt pictures.
    """
    progress(f"drawing {count} scenes")
    pixels, objects, colors = _drawn(count, seed, held_out=())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = SceneProbe()
    rng = Rng(seed, 1)
    first, second = _labels(probe, objects, colors)

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        a, b = probe(images)
        return F.cross_entropy(a, first[rows]) + F.cross_entropy(b, second[rows], ignore_index=-1)

    learn(probe, pixels, loss, epochs, batch, lr, rng, progress)
    images, objects, colors = real(tests, seed + 1, held_out=())
    clean = compute(images, objects, colors, probe)
    spoilt = compute(spoil(images, Rng(seed, 2)), objects, colors, probe)
    accuracy = {k: clean[k] for k in ("object", "color")} | {f"spoilt_{k}": spoilt[k] for k in ("object", "color")}
    return probe, accuracy


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
    compute=compute,
    shipped=SHIPPED,
    columns={"object": "object", "colour": "color", "both": "both"},
    unit="pairs",
)
