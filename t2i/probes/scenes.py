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

import torch
from torch import Tensor

from t2i.painting.pen import PALETTE, Plan
from t2i.probes import classifier, standins
from t2i.probes.classifier import SIDE, drawings, spoil
from t2i.probes.lesson import learn
from t2i.probes.measure import OWN_SEEDS, Probe
from t2i.probes.sight import Sight
from t2i.probes.standins import Apart, taken_apart
from t2i.rng import Rng
from t2i.worlds import scenes

COUNTS = {1: 0.64, 2: 0.12, 3: 0.12, 4: 0.12}  # of how many of a kind which share of the training scenes are
SHIPPED = Path(__file__).parents[1] / "assets" / "scenes-probe"


def compute(images: Tensor, objects: Sequence[str], colors: Sequence[str | None], probe: Sight) -> dict[str, Any]:
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
    rows = []
    for seen, o, c in zip(probe.look(images), objects, colors):
        thing, color = (seen[0].object, seen[0].color) if seen else (None, None)
        rows.append((o, thing == o, None if c is None else color == c))
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


def real(count: int, seed: int, side: int = SIDE, **options: Any) -> tuple[Tensor, list[str], list[str | None]]:
    """Drawn scenes as the data set has them at `side` pixels: [count, 3, side, side] in [-1, 1], objects, colours.

    options: `held_out` and `only_held_out` of scenes.draw.
    """
    images, plans = drawings(count, lambda i: scenes.draw(seed, i, side, **options), side)
    return images, *_subjects(plans)


def floors(count: int, seed: int, side: int = SIDE) -> dict[str, tuple[Tensor, list[str], list[str | None]]]:
    """Pictures without an object, by kind (see standins.floors), and what scenes on whose ground they lie show."""
    apart, plans = _apart(count, seed, side)
    return {kind: (x, *_subjects(plans)) for kind, x in standins.floors(apart, Rng(seed, 3)).items()}


def _apart(count: int, seed: int, side: int = SIDE) -> tuple[Apart, list[Plan]]:
    """Scenes of any pair, taken apart; their plans."""
    return taken_apart(count, lambda i: scenes.draw_apart(seed, i, side, held_out=()), side)


def _several(count: int, seed: int) -> list[int]:
    """Indices of `count` scenes of a world: of those that show two, three or four of a kind, of which there are few,
    so many (COUNTS) that a judge learns to count."""
    left = {n: round(share * count) for n, share in COUNTS.items()}
    left[1] = count - sum(left[n] for n in COUNTS if n > 1)
    out: list[int] = []
    index = 0
    while len(out) < count:
        n = scenes.planned(seed, index, ())["objects"][0]["count"]
        if left[n]:
            left[n] -= 1
            out.append(index)
        index += 1
    return out


def _subjects(plans: list[Plan]) -> tuple[list[str], list[str | None]]:
    subjects = [plan["objects"][0] for plan in plans]
    return [s["name"] for s in subjects], [s["color"] for s in subjects]


def train(
    count: int = 9000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 64,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Sight, dict[str, float]]:
    """Draws `count` scenes, trains a judge on them, tests it on `tests` scenes it has not seen.

    Returns it in eval mode and its accuracies, see `trust`.
    """
    progress(f"drawing {count} scenes")
    own = OWN_SEEDS + 2 * seed
    chosen = _several(count, own)
    apart, plans = taken_apart(count, lambda i: scenes.draw_apart(own, chosen[i], SIDE, held_out=()), SIDE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Sight(scenes.SUBJECTS, tuple(PALETTE))
    objects, colors = _subjects(plans)
    first = torch.tensor([[probe.objects.index(name)] for name in objects])
    second = torch.tensor([[-1 if name is None else probe.colors.index(name)] for name in colors])
    learn(probe, apart, first, second, epochs, Rng(seed, 1), progress, batch)
    return probe, trust(probe, tests, own + 1)


def trust(probe: Sight, count: int, seed: int) -> dict[str, float]:
    """Shares of drawn scenes in 0..1: "object", "color" and "count", the last of any object; all on spoilt pictures,
    and at 32 pixels. How often it sees the object where it is one of `standins.bends`, and in each kind of picture
    without one."""
    draw = lambda side: drawings(count, lambda i: scenes.draw(seed, i, side, held_out=()), side)
    images, plans = draw(SIDE)
    objects, colors = _subjects(plans)
    accuracy: dict[str, float] = {}
    for kind, x in (("", images), ("spoilt_", spoil(images, Rng(seed, 2))), ("half_", draw(SIDE // 2)[0])):
        shares = compute(x, objects, colors, probe)
        accuracy |= {f"{kind}{k}": shares[k] for k in ("object", "color")}
        counts = [sum(thing.count for thing in seen) for seen in probe.look(x)]
        accuracy[f"{kind}count"] = sum(c == p["objects"][0]["count"] for c, p in zip(counts, plans)) / count
    apart, plans = _apart(count, seed)
    bent = {kind: (x, *_subjects(plans)) for kind, x in standins.bends(apart, Rng(seed, 4)).items()}
    share = lambda images, objects, colors: compute(images, objects, colors, probe)["object"]
    return accuracy | standins.taken_in(share, "object", bent, lambda side: floors(count, seed, side))


def load(folder: str | Path = SHIPPED) -> Sight:
    """The judge of a folder that classifier.save wrote, in eval mode; without a folder, the one that ships."""
    return classifier.load(folder, Sight, "scenes")


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
