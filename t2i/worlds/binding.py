"""A drawn world of two coloured objects side by side, whose captions say which of them has which colour.

For one question: does a model bind every colour to its object? Each picture of the scenes has one subject, so there
the question does not arise. The objects look as they do in the scenes.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from t2i.errors import UserError
from t2i.painting.pen import PALETTE, Color, Pen, Plan, jitter, paint, paint_apart
from t2i.worlds import Question
from t2i.worlds.scenes._captions import sentence
from t2i.worlds.scenes.beach import draw_umbrella
from t2i.worlds.scenes.bus_road import draw_bus
from t2i.worlds.scenes.car_road import draw_car
from t2i.worlds.scenes.water import draw_boat

Thing = tuple[str, str]  # (colour, object)

OBJECTS = ("car", "bus", "boat", "umbrella")
COLORS = ("red", "yellow", "green", "blue", "purple")
_ASPECT = {"car": 0.5, "bus": 0.62, "boat": 0.78, "umbrella": 1.0}  # height by width
# Two a couple of objects, left out of training; each of them with its colours exchanged is in.
HELD_OUT: tuple[tuple[Thing, Thing], ...] = (
    (("red", "car"), ("blue", "bus")),
    (("green", "car"), ("yellow", "bus")),
    (("red", "car"), ("green", "boat")),
    (("purple", "car"), ("yellow", "boat")),
    (("blue", "car"), ("yellow", "umbrella")),
    (("purple", "car"), ("red", "umbrella")),
    (("red", "bus"), ("yellow", "boat")),
    (("blue", "bus"), ("purple", "boat")),
    (("green", "bus"), ("red", "umbrella")),
    (("yellow", "bus"), ("purple", "umbrella")),
    (("blue", "boat"), ("red", "umbrella")),
    (("purple", "boat"), ("green", "umbrella")),
)


def couples(which: str) -> list[tuple[Thing, Thing]]:
    """Two different objects in two different colours, in the order of OBJECTS: "all", "seen" or "held_out"."""
    if which not in ("all", "seen", "held_out"):
        raise UserError(f"couples={which}: all, seen or held_out")
    every = [
        ((c, a), (d, b))
        for i, a in enumerate(OBJECTS)
        for b in OBJECTS[i + 1 :]
        for c in COLORS
        for d in COLORS
        if c != d
    ]
    return [two for two in every if which == "all" or (two in HELD_OUT) == (which == "held_out")]


def draw(
    seed: int,
    index: int,
    size: int = 64,
    held_out: Sequence[tuple[Thing, Thing]] = HELD_OUT,
    only_held_out: bool = False,
) -> tuple[Image.Image, list[str], dict[str, Any]]:
    """Picture `index` of the world `seed`: as scenes.draw, with both things in attributes["objects"], from the left.

    All five captions name both objects and both colours. held_out: HELD_OUT or nothing.
    """
    plan = plan_picture(seed, index, held_out, only_held_out)
    words = random.Random(f"binding/{seed}/{index}/words")
    captions: list[str] = []
    while len(captions) < 5:
        if (text := caption(plan, words)) not in captions:
            captions.append(text)
    return render(plan, seed, index, size), captions, plan


def held_out(given: str, only: bool) -> dict[str, tuple[Thing, Thing]]:
    """What --held-out means here, name → couple: the built-in couples, or none."""
    if given not in ("default", "none") or (only and given == "none"):
        raise UserError(f"--held-out {given}: --world binding knows default" + ("" if only else " and none"))
    chosen = HELD_OUT if given == "default" else ()
    return {" and ".join(" ".join(thing) for thing in two): two for two in chosen}


def draw_apart(
    seed: int,
    index: int,
    size: int = 64,
    held_out: Sequence[tuple[Thing, Thing]] = HELD_OUT,
    only_held_out: bool = False,
) -> tuple[Image.Image, Image.Image, Image.Image, dict[str, Any]]:
    """What `draw` draws, apart, for judges: the picture, the same without its two objects (their shadows stay), where
    these are seen ("L", white there), and the attributes. They never overlap: one is left of the middle, one right.
    """
    plan = plan_picture(seed, index, held_out, only_held_out)
    return *paint_apart(plan, 2 * size, f"binding/{seed}/{index}/paint", side_by_side), plan


def plan_picture(seed: int, index: int, held_out: Sequence[tuple[Thing, Thing]], only_held_out: bool) -> dict[str, Any]:
    """What stands where, in which colour, in picture `index`."""
    rng = random.Random(f"binding/{seed}/{index}/plan")
    return arrange(rng.choice(couples("held_out" if only_held_out else "seen" if held_out else "all")), rng)


def prompts(which: str, count: int, seed: int = 0) -> list[tuple[str, tuple[Thing, Thing]]]:
    """`count` captions of pictures never drawn, with what each asks for; all couples come up equally often."""
    out = []
    for two, rng in _equally(which, count, seed):
        out.append((caption(arrange(two, rng), rng), two))
    return out


def _equally(which: str, count: int, seed: int) -> Iterator[tuple[tuple[Thing, Thing], random.Random]]:
    """Couples, all equally often (within one) in random order, and a random stream for each."""
    chosen = couples(which)
    for i in range(count):
        if i % len(chosen) == 0:
            order = random.Random(f"binding/{seed}/{i}/order").sample(chosen, len(chosen))
        yield order[i % len(chosen)], random.Random(f"binding/{seed}/{i}/prompt")


CATEGORIES = {
    "two objects": "captions of two objects in two colours, all couples equally often; both must be there",
    "colour binding": "the same captions; each must be there in its colour",
    "position": "captions that say which of the two is left or right of the other; both must be there, so placed",
}
LACKS = {
    "single object": "every picture shows two",
    "counting": "of every object there is one",
    "colours": "a colour never comes alone: see colour binding",
}


def questions(category: str, which: str, count: int, seed: int = 0) -> list[Question]:
    """`count` prompts of a category (CATEGORIES: what each asks), of "seen" or "held_out" couples."""
    out = []
    for two, rng in _equally(which, count, seed):
        plan = arrange(two, rng)
        text = caption(plan, rng)
        while category == "position" and " left" not in text and " right" not in text:
            text = caption(plan, rng)
        things = tuple(
            (thing["color"] if category == "colour binding" else None, thing["name"]) for thing in plan["objects"]
        )
        out.append(Question(text, things, plan, side="left" if category == "position" else ""))
    return out


def arrange(things: Sequence[Thing], rng: random.Random) -> dict[str, Any]:
    """A plan of things side by side, in random order, on plain ground."""
    objects = []
    for k, (color, name) in enumerate(rng.sample(list(things), len(things))):
        w = rng.uniform(0.4, 0.46)
        x = 0.5 * k + rng.uniform(0.02, 0.48 - w)
        base = rng.uniform(0.76, 0.84)
        box = [round(v, 4) for v in (x, base - _ASPECT[name] * w, w, _ASPECT[name] * w)]
        facing = rng.choice(("left", "right"))
        objects.append({"name": name, "color": color, "count": 1, "facing": facing, "box": box, "boxes": [box]})
    return {"scene": "side by side", "objects": objects, "background": {"time": "day"}}


def render(plan: dict[str, Any], seed: int, index: int, size: int) -> Image.Image:
    return paint(plan, 2 * size, random.Random(f"binding/{seed}/{index}/paint"), side_by_side)


def side_by_side(pen: Pen, rng: random.Random, plan: Plan, color: Color, frames: list[Pen]) -> None:
    pen.fade((206, 212, 218), (226, 230, 232), 0, 0.6)
    pen.fade((176, 170, 164), (152, 146, 140), 0.6, 1)
    for thing, frame in zip(plan["objects"], frames):
        (x, y, w, h), color = thing["box"], jitter(rng, PALETTE[thing["color"]])
        pen.oval((122, 118, 114), x, y + h - 0.02, x + w, y + h + 0.025)
        if thing["name"] == "car":
            draw_car(frame, color, "day")
        elif thing["name"] == "bus":
            draw_bus(frame, color, "day", double=False)
        elif thing["name"] == "boat":
            draw_boat(frame, color, "day", sail=False)
        else:
            draw_umbrella(frame, color)


# {a} and {b} are "a red car" and "a blue boat" in either order; {A} and {B} from left to right.
_CAPTIONS = (
    "{a} next to {b}", "{a} next to {b}", "{a} beside {b}", "{a} beside {b}", "{a} and {b}", "{a} and {b}",
    "{a} by {b}", "{a} near {b}", "{a} with {b} next to it", "{a} that is next to {b}", "{a} is next to {b}",
    "{a} is beside {b}", "there is {a} and {b}", "there is {a} next to {b}", "a picture of {a} and {b}",
    "a photo of {a} next to {b}", "{a} and {b} next to each other", "{a} standing near {b}", "{a} is near {b}",
    "{A} to the left of {B}", "{B} to the right of {A}", "{A} on the left and {B} on the right",
    "{B} on the right and {A} on the left",
)  # fmt: skip


def caption(plan: dict[str, Any], rng: random.Random) -> str:
    """One sentence that names both objects of the plan, each with its colour."""
    left, right = (f"a {thing['color']} {thing['name']}" for thing in plan["objects"])
    a, b = rng.sample((left, right), 2)
    return sentence(rng.choice(_CAPTIONS).format(a=a, b=b, A=left, B=right))
