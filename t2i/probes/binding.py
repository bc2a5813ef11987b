"""Does a picture of two objects give each the colour that its prompt gave it? Judged by a small network that looks at
the objects.

It has a mask for every object of t2i/worlds/binding.py, and says what it finds there, in which colour, or "none". It is
trained on pictures with none, one or two objects in any colours, and with what stands in an object's place and is none:
see lesson.py. The one that ships says in its probe.json how often it is right, and what it makes of pictures without an
object.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.painting.pen import Plan
from t2i.probes import classifier, standins
from t2i.probes.classifier import SIDE, drawings, spoil
from t2i.probes.lesson import learn
from t2i.probes.measure import OWN_SEEDS, Probe
from t2i.probes.sight import Sight
from t2i.probes.standins import Apart, taken_apart
from t2i.rng import Rng
from t2i.worlds import binding
from t2i.worlds.binding import Thing

SHIPPED = Path(__file__).parents[1] / "assets" / "binding-probe"


def compute(images: Tensor, asked: Sequence[tuple[Thing, Thing]], probe: Sight) -> dict[str, float]:
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
    for things, ((c, a), (d, b)) in zip(probe.look(images), asked):
        seen = {thing.object: thing.color for thing in things}
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


def real(count: int, seed: int, side: int = SIDE, **options: Any) -> tuple[Tensor, list[tuple[Thing, Thing]]]:
    """Drawn pictures [count, 3, side, side] in [-1, 1] and the two things each shows. options: of binding.draw."""
    images, plans = drawings(count, lambda i: binding.draw(seed, i, side, **options), side)
    return images, [_things(plan) for plan in plans]


def _things(plan: Plan) -> tuple[Thing, Thing]:
    a, b = ((thing["color"], thing["name"]) for thing in plan["objects"])
    return a, b


def floors(count: int, seed: int, side: int = SIDE) -> dict[str, tuple[Tensor, list[tuple[Thing, Thing]]]]:
    """Pictures without an object, by kind (see standins.floors), and the things of those that they are made from."""
    apart, plans = _apart(count, seed, side)
    return {kind: (x, [_things(plan) for plan in plans]) for kind, x in standins.floors(apart, Rng(seed, 3)).items()}


def _apart(count: int, seed: int, side: int = SIDE) -> tuple[Apart, list[Plan]]:
    """Pictures of any couple, taken apart; their plans."""
    return taken_apart(count, lambda i: binding.draw_apart(seed, i, side, held_out=()), side, things=2)


def train(
    count: int = 9000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 64,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Sight, dict[str, float]]:
    """Draws `count` pictures, trains a judge on them, tests it on `tests` pictures it has not seen.

    Returns it in eval mode and its accuracies, see `trust`.
    """
    progress(f"drawing {count} pictures")
    apart, plans = _apart(count, OWN_SEEDS + 2 * seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Sight(binding.OBJECTS, binding.COLORS, apart=True)
    objects = torch.tensor([[probe.objects.index(name) for _, name in _things(plan)] for plan in plans])
    colors = torch.tensor([[probe.colors.index(color) for color, _ in _things(plan)] for plan in plans])
    learn(probe, apart, objects, colors, epochs, Rng(seed, 1), progress, batch)
    return probe, trust(probe, tests, OWN_SEEDS + 2 * seed + 1)


def trust(probe: Sight, count: int, seed: int) -> dict[str, float]:
    """Shares of drawn pictures in 0..1: "objects" and "binding" as in `compute`; both on spoilt pictures, and at 32
    pixels. How often it sees both objects where they are `standins.bends`, and in each kind of picture without one."""
    images, asked = real(count, seed, held_out=())
    accuracy: dict[str, float] = {}
    for kind, x in (
        ("", images),
        ("spoilt_", spoil(images, Rng(seed, 2))),
        ("half_", real(count, seed, SIDE // 2, held_out=())[0]),
    ):
        shares = compute(x, asked, probe)
        accuracy |= {f"{kind}{k}": shares[k] for k in ("objects", "binding")}
    apart, plans = _apart(count, seed)
    bent = {kind: (x, [_things(plan) for plan in plans]) for kind, x in standins.bends(apart, Rng(seed, 4)).items()}
    share = lambda images, asked: compute(images, asked, probe)["objects"]
    return accuracy | standins.taken_in(share, "objects", bent, lambda side: floors(count, seed, side))


def load(folder: str | Path = SHIPPED) -> Sight:
    """The judge of a folder that classifier.save wrote, in eval mode; without a folder, the one that ships."""
    return classifier.load(folder, Sight, "binding")


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
