"""A small drawn world with captions: scenes of coloured objects, for training without a download.

Each scene is a file of this folder with a class `Scene` (see _scene.py), found by its name; files that begin with _
hold what scenes share. A picture is planned (what is where, in which colour), painted and described; plan, painting
and captions each have their own random stream, made from (seed, index) alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from random import Random
from typing import Any, TypeVar

from PIL import Image

from t2i.errors import UserError, closest
from t2i.painting.pen import PALETTE, Plan, paint, paint_apart
from t2i.worlds import Question
from t2i.worlds.scenes._captions import caption, describe
from t2i.worlds.scenes._scene import Draft, Scene, rounded

__all__ = ["HELD_OUT", "OBJECTS", "PALETTE", "SCENES", "SUBJECTS", "draw", "draw_apart", "held_out", "pairs", "prompts"]

T = TypeVar("T")
Pair = tuple[str | None, str]  # (colour, object); None for an object that has one look only

# Pictures draw a scene by its place in this order, so that they stay the same pictures; a new file comes behind.
ORDER = (
    "tracks", "bus road", "car road", "water", "mountain", "zebra field", "horse field", "living room", "fruit plate",
    "kite sky", "beach",
)  # fmt: skip


def _find() -> dict[str, Scene]:
    files = [module.name for module in iter_modules(__path__) if not module.name.startswith("_")]
    found = {name.replace("_", " "): name for name in sorted(files)}
    names = [*ORDER, *(name for name in found if name not in ORDER)]
    return {name: import_module(f"{__name__}.{found[name]}").Scene() for name in names}


SCENES = _find()
SUBJECTS = tuple(name for scene in SCENES.values() for name in scene.subjects)  # what pictures are of
# What carries a colour, and which: subjects, then what comes along.
OBJECTS = {
    name: colors
    for things in ([s.subjects for s in SCENES.values()], [s.companions for s in SCENES.values()])
    for thing in things
    for name, colors in thing.items()
    if colors
}
# Left out of training to see whether a colour known from other objects can be put on this one.
HELD_OUT: tuple[tuple[str, str], ...] = (
    ("yellow", "train"),
    ("purple", "bus"),
    ("green", "car"),
    ("orange", "boat"),
    ("pink", "skier"),
    ("red", "couch"),
    ("green", "kite"),
    ("blue", "umbrella"),
)


def pairs(which: str, held_out: Sequence[tuple[str, str]] = HELD_OUT) -> list[Pair]:
    """(colour, subject) pairs: "all", "seen" (what training shows when `held_out` is left out) or "held_out"."""
    every: list[Pair] = [(color, name) for name in SUBJECTS for color in OBJECTS.get(name, (None,))]
    if which not in ("all", "seen", "held_out"):
        raise UserError(f"pairs={which}: {closest(which, ('all', 'seen', 'held_out'))}")
    return [pair for pair in every if which == "all" or (pair in held_out) == (which == "held_out")]


def draw(
    seed: int,
    index: int,
    size: int = 64,
    held_out: Sequence[tuple[str, str]] = HELD_OUT,
    only_held_out: bool = False,
) -> tuple[Image.Image, list[str], dict[str, Any]]:
    """Picture `index` of the world `seed`.

    Returns an RGB picture of side 2·size (painted at 4·size), five distinct captions, and what is shown:
    {"scene", "objects": [{"name", "color", "count", "box": [x, y, w, h] in 0..1, ...}], "background": {...}},
    the first object being what the picture is of. No pair of `held_out` appears; with `only_held_out` the first
    object always is one of them (and no other object is).
    """
    plan = planned(seed, index, held_out, only_held_out)
    captions = describe(plan, SCENES[plan["scene"]], Random(f"{seed}/{index}/words"))
    return render(plan, seed, index, size), captions, plan


def planned(seed: int, index: int, held_out: Sequence[tuple[str, str]], only_held_out: bool = False) -> Plan:
    """What picture `index` shows, without painting it."""
    return plan_picture(Random(f"{seed}/{index}/plan"), allowed(held_out, only_held_out), held_out)


def render(plan: Plan, seed: int, index: int, size: int) -> Image.Image:
    """The picture of a plan, RGB of side 2·size."""
    return paint(plan, 2 * size, Random(f"{seed}/{index}/paint"), SCENES[plan["scene"]].paint)


def draw_apart(
    seed: int,
    index: int,
    size: int = 64,
    held_out: Sequence[tuple[str, str]] = HELD_OUT,
    only_held_out: bool = False,
) -> tuple[Image.Image, Image.Image, Image.Image, dict[str, Any]]:
    """What `draw` draws, apart, for judges: the picture, the same without what it is of, where that is seen, and the
    attributes. The third is "L", white where it is. What its subject casts or holds (a shadow, a string) stays.
    """
    plan = planned(seed, index, held_out, only_held_out)
    return *paint_apart(plan, 2 * size, f"{seed}/{index}/paint", SCENES[plan["scene"]].paint), plan


def prompts(which: str | Sequence[Pair], count: int, seed: int = 0) -> list[tuple[str, str, str | None]]:
    """`count` captions of pictures that were never drawn, each naming its (colour, object) by those words.

    which: "all", "seen", "held_out" or a list of pairs; every pair comes up equally often (within one).
    Returns (prompt, object, colour or None).
    """
    known = pairs("all")
    chosen = pairs(which) if isinstance(which, str) else list(which)
    for pair in chosen:
        if pair not in known:
            raise UserError(f"pair {pair}: not of this world; {closest(str(pair[1]), SUBJECTS)}")
    out = []
    for (color, name), rng in equally(chosen, count, seed):
        text, _ = say(color, name, rng, colored=True)
        out.append((text, name, color))
    return out


def equally(chosen: Sequence[T], count: int, seed: int) -> Iterator[tuple[T, Random]]:
    """`count` times one of these, all equally often (within one) in random order; and a random stream for each."""
    for i in range(count):
        if i % len(chosen) == 0:
            order = Random(f"{seed}/{i}/order").sample(chosen, len(chosen))
        yield order[i % len(chosen)], Random(f"{seed}/{i}/prompt")


def say(
    color: str | None,
    name: str,
    rng: Random,
    colored: bool,
    true: Callable[[str, Plan], bool] = lambda text, plan: True,
) -> tuple[str, Plan]:
    """A caption of a picture never drawn, whose subject it calls by its name, and the plan of the picture; of captions
    and plans the first of which `true` holds."""
    where = next(where for where, scene in SCENES.items() if name in scene.subjects)
    while True:
        plan = plan_picture(rng, {where: [(color, name)]}, HELD_OUT)
        text = caption(plan, SCENES[where], rng, colored)
        while name not in text.lower():  # a sofa, a person in a red jacket: true, but not by name
            text = caption(plan, SCENES[where], rng, colored)
        if true(text, plan):
            return text, plan


CATEGORIES = {
    "single object": "captions of one object without its colour, all objects equally often; the object must be there",
    "colours": "captions of a pair, all pairs equally often; the object must be there in its colour",
    "counting": "captions that say how many (one to four of zebra, horse, apple, banana, orange, kite, as many as the "
    "world draws), equally often; the object must be there so many times",
    "position": "captions of one object on the left or the right side, all but fruit equally often; its middle must be "
    "in that half",
}
LACKS = {
    "two objects": "every picture is of one kind of object; see --world binding",
    "colour binding": "only one object has a colour that is asked; see --world binding",
}
_CENTRED = ("apple", "banana", "orange")  # one alone lies in the middle
COUNTS = {"zebra": 2, "horse": 2, "apple": 4, "banana": 4, "orange": 4, "kite": 3}  # as many as pictures show at most
EXACT = {1: "", 2: r"\b(two|a couple of|a pair of)\b", 3: r"\bthree\b", 4: r"\bfour\b"}  # not: several


def questions(category: str, which: str, count: int, seed: int = 0) -> list[Question]:
    """`count` prompts of a category (CATEGORIES: what each asks), of "seen" pairs; of colours also of "held_out" ones,
    of other categories, which name no colour, there are none."""
    if category != "colours" and which == "held_out":
        return []
    chosen: dict[str, list[Any]] = {
        "single object": [(name, 1, "") for name in SUBJECTS],
        "colours": [(pair, None, "") for pair in pairs(which) if pair[0]],
        "counting": [(name, n, "") for name, most in COUNTS.items() for n in range(1, most + 1)],
        "position": [(name, 1, side) for name in SUBJECTS if name not in _CENTRED for side in ("left", "right")],
    }
    out = []
    # A pair or an object, how many of it, and on which side.
    for (what, n, side), rng in equally(chosen[category], count, seed):
        pair = what if category == "colours" else (rng.choice([c for c, name in pairs("seen") if name == what]), what)
        true = lambda text, plan, n=n, side=side: (
            n in (None, plan["objects"][0]["count"])
            and (category != "counting" or bool(re.search(EXACT[n], text.lower())))
            and f"on the {side} side" * bool(side) in text
        )
        text, plan = say(pair[0], pair[1], rng, category == "colours", true)
        thing = (pair[0] if category == "colours" else None, pair[1])
        out.append(Question(text, (thing,), plan, n if category == "counting" else None, side))
    return out


def held_out(given: str, only: bool) -> dict[str, tuple[str, str]]:
    """'red boat, blue kite', 'none' or 'default' → name → pair, as `draw` takes it."""
    chosen: list[tuple[str, str]] = []
    if given in ("default", "none"):
        chosen = list(HELD_OUT) if given == "default" else []
    else:
        for item in filter(None, (part.strip() for part in given.split(","))):
            color, _, name = item.partition(" ")
            if not name:
                raise UserError(f"--held-out {item!r}: write a colour and an object, for example 'red boat'")
            chosen.append((color, name.strip()))
    allowed(chosen, only)
    return {" ".join(pair): pair for pair in chosen}


def allowed(held_out: Sequence[tuple[str, str]], only: bool) -> dict[str, list[Pair]]:
    """Scene → the pairs its subject may be. UserError where held_out names what there is not, or leaves nothing."""
    for color, name in held_out:
        if name not in OBJECTS:
            raise UserError(f"held_out ({color}, {name}): no such coloured object; {closest(name, OBJECTS)}")
        if color not in OBJECTS[name]:
            raise UserError(f"held_out ({color}, {name}): no such colour there; {closest(color, OBJECTS[name])}")
    for name, colors in OBJECTS.items():
        if not (only and name in SUBJECTS) and all((color, name) in held_out for color in colors):
            raise UserError(f"held_out: every colour of {name} is held out; leave at least one in")
    kept = pairs("held_out" if only else "seen", held_out)
    scenes = {where: [p for p in kept if p[1] in scene.subjects] for where, scene in SCENES.items()}
    scenes = {where: some for where, some in scenes.items() if some}
    if not scenes:
        raise UserError("only_held_out: no held-out pair to draw; give held_out pairs")
    return scenes


def plan_picture(rng: Random, allowed: dict[str, list[Pair]], held_out: Sequence[tuple[str, str]]) -> Plan:
    """What is where, in which colour (see `draw`); allowed: scene → pairs of its subject."""
    where = rng.choice(list(allowed))
    name = rng.choice(sorted({name for _, name in allowed[where]}))
    color = rng.choice([c for c, n in allowed[where] if n == name])
    time = rng.choices(("day", "sunset", "cloudy", "night"), (5, 2, 2, 2))[0]
    background: dict[str, Any] = {"time": time, "clouds": time == "day" and rng.random() < 0.5}
    subject: dict[str, Any] = {"name": name, "color": color, "count": 1}
    scene = SCENES[where]
    colors = {what: [c for c in some if (c, what) not in held_out] for what, some in scene.companions.items()}
    draft = Draft(rng, subject, background, colors)
    scene.plan(draft)
    if scene.faces:
        subject["facing"] = rng.choice(("left", "right"))
    boxes = subject["boxes"]
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    subject["box"] = rounded((x0, y0, x1 - x0, y1 - y0))
    subject["boxes"] = [rounded(b) for b in boxes]
    return {"scene": where, "objects": [subject, *draft.companions], "background": draft.background}
