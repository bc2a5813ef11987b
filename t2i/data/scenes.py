"""A small drawn world with captions: eleven scenes of coloured objects, for training without a download.

A picture is planned (`_plan`: what is where, in which colour), painted (`paint`) and described (`_describe`);
plan, painting and captions each have their own random stream, made from (seed, index) alone.
"""

import json
import os
import random
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from t2i.data import binding
from t2i.data.paint import paint
from t2i.errors import UserError, closest

Pair = tuple[str | None, str]  # (colour, object); None for an object that has one look only

# What carries a colour, and which. The first group is what pictures are of; plates and tables come along.
OBJECTS: dict[str, tuple[str, ...]] = {
    "train": ("red", "orange", "yellow", "green", "blue", "purple", "white", "black"),
    "bus": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "car": ("red", "orange", "yellow", "green", "blue", "pink", "white", "black"),
    "boat": ("red", "orange", "yellow", "green", "purple", "white", "black", "brown"),
    "skier": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black"),
    "horse": ("white", "black", "brown"),
    "couch": ("red", "orange", "green", "blue", "purple", "pink", "black", "brown"),
    "apple": ("red", "yellow", "green"),
    "banana": ("yellow", "green"),
    "kite": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black"),
    "umbrella": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "plate": ("white", "blue", "pink"),
    "table": ("white", "black", "brown"),
}
SUBJECTS = (
    "train", "bus", "car", "boat", "skier", "zebra", "horse", "couch", "apple", "banana", "orange", "kite", "umbrella",
)  # fmt: skip
SCENES: dict[str, tuple[str, ...]] = {  # scene → what it may be of
    "tracks": ("train",),
    "bus road": ("bus",),
    "car road": ("car",),
    "water": ("boat",),
    "mountain": ("skier",),
    "zebra field": ("zebra",),
    "horse field": ("horse",),
    "living room": ("couch",),
    "fruit plate": ("apple", "banana", "orange"),
    "kite sky": ("kite",),
    "beach": ("umbrella",),
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
    plan = _plan(random.Random(f"{seed}/{index}/plan"), _allowed(tuple(held_out), only_held_out), tuple(held_out))
    captions = _describe(plan, random.Random(f"{seed}/{index}/words"))
    return paint(plan, 2 * size, random.Random(f"{seed}/{index}/paint")), captions, plan


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
    for i in range(count):
        if i % len(chosen) == 0:
            order = random.Random(f"{seed}/{i}/order").sample(chosen, len(chosen))
        rng = random.Random(f"{seed}/{i}/prompt")
        color, name = order[i % len(chosen)]
        plan = _plan(rng, {_scene_of(name): [(color, name)]}, HELD_OUT)
        text = _caption(plan, rng, colored=True)
        while name not in text.lower():  # a sofa, a person in a red jacket: true, but not by name
            text = _caption(plan, rng, colored=True)
        out.append((text, name, color))
    return out


def make(
    out: Path,
    count: int,
    seed: int = 0,
    size: int = 64,
    held_out: Sequence[tuple[str, str]] = HELD_OUT,
    only_held_out: bool = False,
    workers: int = 0,
    progress: Callable[[int], None] = lambda done: None,
    world: str = "scenes",
) -> Path:
    """Draws `count` pictures into out/images (JPEG, side 2·size) and describes them in out/annotations.json.

    The file is COCO's caption format; each entry of "images" also has "attributes" (see `draw`). Picture i is the
    same whatever the count and the workers. workers: processes, 0 = one per core. progress(n) is told of every n
    more pictures drawn. world: "scenes", or "binding" for t2i/data/binding.py with its kind of held_out.
    Returns `out`.
    """
    drawn = binding.draw if world == "binding" else draw
    if world == "scenes":
        _allowed(tuple(held_out), only_held_out)  # complains before the work starts
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    work = partial(_make_one, drawn, out / "images", seed, size, tuple(held_out), only_held_out)
    workers = min(workers or os.cpu_count() or 1, max(1, count // 100))
    described = []
    if workers == 1:
        for i in range(count):
            described.append(work(i))
            progress(1)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for entry in pool.map(work, range(count), chunksize=50):
                described.append(entry)
                progress(1)
    images, annotations = [], []
    for i, (captions, attributes) in enumerate(described):
        images.append(
            {"id": i, "file_name": f"{i:012d}.jpg", "height": 2 * size, "width": 2 * size, "license": 1,
             "attributes": attributes}
        )  # fmt: skip
        annotations += [{"id": 5 * i + k, "image_id": i, "caption": c} for k, c in enumerate(captions)]
    info = {"description": f"{world}: a drawn world with captions", "version": "1", "seed": seed}
    licenses = [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}]
    whole = {"info": info, "licenses": licenses, "images": images, "annotations": annotations}
    (out / "annotations.json").write_text(json.dumps(whole))
    return out


def _make_one(
    draw: Callable, folder: Path, seed: int, size: int, held_out: tuple, only: bool, index: int
) -> tuple[list[str], dict]:
    image, captions, attributes = draw(seed, index, size, held_out, only)
    image.save(folder / f"{index:012d}.jpg", quality=95, subsampling=0)
    return captions, attributes


def _scene_of(name: str) -> str:
    return next(scene for scene, names in SCENES.items() if name in names)


def _allowed(held_out: tuple[tuple[str, str], ...], only: bool) -> dict[str, list[Pair]]:
    """Scene → the pairs its subject may be."""
    for color, name in held_out:
        if name not in OBJECTS:
            raise UserError(f"held_out ({color}, {name}): no such coloured object; {closest(name, OBJECTS)}")
        if color not in OBJECTS[name]:
            raise UserError(f"held_out ({color}, {name}): no such colour there; {closest(color, OBJECTS[name])}")
    for name, colors in OBJECTS.items():
        if not (only and name in SUBJECTS) and all((color, name) in held_out for color in colors):
            raise UserError(f"held_out: every colour of {name} is held out; leave at least one in")
    kept = pairs("held_out" if only else "seen", held_out)
    scenes = {scene: [p for p in kept if p[1] in names] for scene, names in SCENES.items()}
    scenes = {scene: some for scene, some in scenes.items() if some}
    if not scenes:
        raise UserError("only_held_out: no held-out pair to draw; give held_out pairs")
    return scenes


# ---------------------------------------------------------------- plan: what is where, in which colour


def _plan(rng: random.Random, allowed: dict[str, list[Pair]], held_out: tuple) -> dict[str, Any]:
    """The attributes of one picture; `allowed`: scene → pairs of its subject."""
    scene = rng.choice(list(allowed))
    names = sorted({name for _, name in allowed[scene]})
    name = rng.choice(names)
    color = rng.choice([c for c, n in allowed[scene] if n == name])
    time = rng.choices(("day", "sunset", "cloudy", "night"), (5, 2, 2, 2))[0]
    background: dict[str, Any] = {"time": time, "clouds": time == "day" and rng.random() < 0.5}
    subject: dict[str, Any] = {"name": name, "color": color, "count": 1}
    objects = [subject]

    def other(what: str, box: tuple[float, float, float, float]) -> None:
        colors = [c for c in OBJECTS.get(what, ()) if (c, what) not in held_out]
        shown = rng.choice(colors) if colors else None
        objects.append({"name": what, "color": shown, "count": 1, "box": _round(box)})

    def place(width: tuple[float, float], aspect: float, bottom: tuple[float, float]) -> None:
        """One subject of a width drawn from a range, standing on a line drawn from a range."""
        w = rng.uniform(*width)
        x, base = rng.uniform(0.02, 0.98 - w), rng.uniform(*bottom)
        subject["boxes"] = [(x, base - aspect * w, w, aspect * w)]

    if scene in ("tracks", "bus road", "car road"):
        background["around"] = rng.choice(("trees", "buildings", "hills", "nothing"))
        if scene == "tracks":
            place((0.62, 0.92), 0.44, (0.8, 0.86))
        elif scene == "bus road":
            subject["kind"] = rng.choices(("single", "double decker"), (7, 3))[0]
            tall = subject["kind"] == "double decker"
            place((0.5, 0.72) if tall else (0.58, 0.86), 0.74 if tall else 0.54, (0.83, 0.9))
        else:
            place((0.52, 0.82), 0.44, (0.82, 0.9))
    elif scene == "water":
        background["around"] = rng.choice(("hills", "mountains", "nothing"))
        subject["kind"] = rng.choice(("sailboat", "motor boat"))
        sail = subject["kind"] == "sailboat"
        place((0.46, 0.66) if sail else (0.52, 0.78), 1.05 if sail else 0.66, (0.76, 0.86))
    elif scene == "mountain":
        background["around"] = rng.choice(("trees", "nothing"))
        place((0.46, 0.64), 1.08, (0.84, 0.92))
    elif scene in ("zebra field", "horse field"):
        background["around"] = rng.choice(("trees", "hills", "fence", "nothing"))
        subject["count"] = rng.choices((1, 2), (2, 1))[0]
        if subject["count"] == 1:
            place((0.54, 0.78), 0.84, (0.82, 0.92))
        else:
            w = rng.uniform(0.42, 0.47)
            lines = (rng.uniform(0.74, 0.8), rng.uniform(0.86, 0.92))
            lines = lines if rng.random() < 0.5 else lines[::-1]
            xs = (rng.uniform(0.02, 0.05), rng.uniform(0.51, 0.53))
            subject["boxes"] = [(x, line - 0.84 * w, w, 0.84 * w) for x, line in zip(xs, lines)]
    elif scene == "living room":
        del background["clouds"]
        background["wall"] = rng.choice(("white", "yellow", "green", "blue"))
        background["floor"] = rng.choice(("wooden", "carpet"))
        side = rng.choice(("left", "right"))  # where the couch stands; the television has the other side
        television, table = rng.random() < 0.7, rng.random() < 0.7
        w = rng.uniform(0.54, 0.62) if television else rng.uniform(0.6, 0.8)
        x = 0.03 if television else rng.uniform(0.04, 0.96 - w)
        base = rng.uniform(0.78, 0.84)
        subject["boxes"] = [(x if side == "left" else 1 - x - w, base - 0.5 * w, w, 0.5 * w)]
        background["decor"] = rng.choice(("picture", "window", "lamp", "nothing"))
        if television:
            t = rng.uniform(0.27, 0.31)
            other("television", (0.98 - t if side == "left" else 0.02, base - 0.06 - 0.4, t, 0.4))
        if table:
            t = rng.uniform(0.36, 0.46)
            centre = subject["boxes"][0][0] + w / 2
            other("table", (min(max(centre - t / 2, 0.02), 0.98 - t), 0.79, t, 0.17))
    elif scene == "fruit plate":
        background = {"surface": rng.choice(("wooden table", "tablecloth", "counter"))}
        n = subject["count"] = rng.choices((1, 2, 3, 4), (4, 3, 2, 2))[0]
        plate = rng.uniform(0.8, 0.94)
        cx, cy = 0.5 + rng.uniform(-0.02, 0.02), rng.uniform(0.6, 0.66)
        other("plate", (cx - plate / 2, cy - plate * 0.27, plate, plate * 0.54))
        big = {1: 0.46, 2: 0.34, 3: 0.3, 4: 0.27}[n] * rng.uniform(0.94, 1.06)
        spots: list[tuple[float, float]] = {
            1: [(0.0, 0.0)],
            2: [(-0.53, 0), (0.53, 0.04)],
            3: [(0, -0.5), (-0.54, 0.22), (0.54, 0.22)],
            4: [(-0.46, -0.48), (0.52, -0.44), (-0.56, 0.34), (0.5, 0.36)],
        }[n]
        long = {"banana": 1.3 if n == 1 else 1.12}.get(name, 1.0)
        aspect = 0.66 if name == "banana" else 1.0
        w, h = big * long, big * long * aspect
        subject["boxes"] = [(cx + u * big - w / 2, cy - 0.06 + v * big * aspect**0.5 - h / 2, w, h) for u, v in spots]
    elif scene == "kite sky":
        background["around"] = rng.choice(("trees", "hills", "nothing"))
        background["person"] = rng.random() < 0.5
        n = subject["count"] = rng.choices((1, 2, 3), (3, 2, 2))[0]
        w = {1: rng.uniform(0.42, 0.54), 2: rng.uniform(0.32, 0.38), 3: rng.uniform(0.27, 0.31)}[n]
        h = 1.15 * w
        if n == 1:
            spots = [(rng.uniform(0.03, 0.97 - w), rng.uniform(0.03, 0.1))]
        else:
            gap = 0.94 / n
            tilt = rng.choice((-1, 1))
            step = 0.12 if n == 2 else 0.09
            spots = [
                (0.03 + gap * (i + 0.5) - w / 2, 0.14 + tilt * step * (i - (n - 1) / 2) + rng.uniform(-0.02, 0.02))
                for i in range(n)
            ]
        subject["boxes"] = [(x, y, w, h) for x, y in spots]
    else:
        background["chair"] = rng.random() < 0.4
        place((0.6, 0.84), 0.86, (0.86, 0.92))
    if scene in ("tracks", "bus road", "car road", "water", "mountain", "zebra field", "horse field"):
        subject["facing"] = rng.choice(("left", "right"))
    boxes = subject["boxes"]
    x0, y0 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x1, y1 = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    subject["box"] = _round((x0, y0, x1 - x0, y1 - y0))
    subject["boxes"] = [_round(b) for b in boxes]
    return {"scene": scene, "objects": objects, "background": background}


def _round(box: Sequence[float]) -> list[float]:
    return [round(v, 4) for v in box]


# ---------------------------------------------------------------- words: captions in COCO's tone

_WHEN = {
    "day": ("on a sunny day", "during the day", "under a blue sky", "in the daytime"),
    "sunset": ("at sunset", "as the sun sets", "in the evening", "at dusk"),
    "cloudy": ("on a cloudy day", "under a cloudy sky", "on a gray day", "under gray skies"),
    "night": ("at night", "at night time", "under a dark sky", "in the dark"),
}
_AROUND = {
    "trees": ("near some trees", "next to some trees", "by the trees", "with trees in the background"),
    "buildings": ("in front of some buildings", "near tall buildings", "in the city", "with buildings behind {it}"),
    "hills": ("near some hills", "with hills in the background", "in front of green hills", "in the countryside"),
    "mountains": ("near the mountains", "with mountains in the background", "in front of a mountain"),
    "fence": ("behind a wooden fence", "by a fence", "next to a fence"),
    "nothing": (),
}
_ACTS: dict[str, tuple[str, ...]] = {  # what a subject is doing, to follow "a red train" or "a red train is"
    "tracks": (
        "traveling down the tracks", "traveling along the tracks", "coming down the tracks", "going down the tracks",
        "moving along the train tracks", "driving along the railroad tracks", "riding on the tracks",
        "sitting on the tracks", "parked on the train tracks", "passing by on the tracks", "stopped on the tracks",
        "rolling down the railroad tracks",
    ),
    "bus road": (
        "driving down the street", "driving down the road", "traveling down the road", "parked on the street",
        "going down the street", "parked on the side of the road", "stopped on the road", "riding down the street",
        "moving along the road", "driving on a city street",
    ),
    "car road": (
        "driving down the road", "driving down the street", "parked on the street", "parked on the side of the road",
        "going down the road", "traveling down the highway", "stopped on the road", "sitting on the road",
        "parked by the road",
    ),
    "water": (
        "floating on the water", "sailing on the water", "sitting in the water", "traveling across the water",
        "out on the water", "floating in the ocean", "moving through the water", "sailing on a lake",
    ),
    "mountain": (
        "skiing down a mountain", "skiing down a snowy slope", "going down a hill on skis", "skiing in the snow",
        "riding skis down a snowy hill", "standing on a snowy mountain", "coming down a snow covered slope",
        "skiing down a snow covered mountain",
    ),
    "zebra field": (
        "standing in a field", "standing in the grass", "standing in a grassy field", "walking through the grass",
        "walking in a field", "standing in a lush field", "standing around in the grass",
    ),
    "kite sky": (
        "flying in the sky", "flying high in the sky", "flying in the air", "flying over a field",
        "floating in the sky", "up in the air", "soaring in the sky", "flying above the grass",
    ),
    "living room": (
        "sitting in a living room", "in a living room", "in a room", "against a wall", "sitting in a room",
        "placed in a living room",
    ),
    "fruit plate": (
        "sitting on a {plate}plate", "on a {plate}plate", "lying on a {plate}plate", "placed on a {plate}plate",
        "on top of a {plate}plate", "resting on a {plate}plate", "on a {plate}dish",
    ),
    "beach": (
        "on the beach", "standing on the beach", "on a sandy beach", "sitting on the sand", "set up on a beach",
        "on the beach by the ocean", "in the sand", "open on a sandy beach", "standing in the sand near the water",
    ),
}  # fmt: skip
_ACTS["horse field"] = _ACTS["zebra field"]
_AT: dict[str, tuple[str, ...]] = {  # where a subject is, to follow "there is a red train"
    "tracks": ("on the tracks", "on the train tracks", "on the railroad tracks"),
    "bus road": ("on the street", "on the road", "on a city street"),
    "car road": ("on the road", "on the street", "by the road"),
    "water": ("on the water", "in the water", "on the ocean"),
    "mountain": ("on the slope", "on a snowy mountain", "in the snow"),
    "zebra field": ("in the field", "in the grass", "in a grassy field"),
    "horse field": ("in the field", "in the grass", "in a grassy field"),
    "living room": ("in the living room", "in the room"),
    "fruit plate": ("on the {plate}plate", "on a {plate}plate"),
    "kite sky": ("in the sky", "in the air"),
    "beach": ("on the beach", "on the sand", "at the beach"),
}
_EXTRA: dict[str, tuple[str, ...]] = {  # whole sentences that only this scene knows; {np} is "a red train"
    "tracks": ("train tracks with {np} on them", "{np} pulling several cars down the tracks"),
    "bus road": ("a street with {np} driving on it", "a road that has {np} on it"),
    "car road": ("a road with {np} on it", "a street that has {np} on it"),
    "water": ("the water with {np} floating on it", "a body of water with {np} on it"),
    "mountain": (
        "a person in a {c} jacket skiing down a slope", "a man wearing a {c} coat on skis",
        "a person on skis in a {c} jacket", "a snow covered slope with {np} on it",
    ),
    "zebra field": ("a grassy field with {np} in it", "{np} grazing in a field"),
    "horse field": ("a grassy field with {np} in it", "{np} grazing in a field"),
    "living room": ("a living room with {np}", "a room that has {np} in it", "a living room filled with {np}"),
    "fruit plate": ("a {plate}plate with {np} on it", "a {plate}plate topped with {np}", "a {plate}plate holding {np}"),
    "kite sky": ("the sky with {np} flying in it",),
    "beach": ("a beach with {np} on it", "a sandy beach with {np} near the water"),
}  # fmt: skip


_KINDS = {"double decker": ("double decker bus",), "sailboat": ("sailboat", "sail boat")}


def _subject_phrase(plan: dict[str, Any], rng: random.Random, color: str) -> str:
    """'a small red train', 'two red kites', 'a couple of horses'."""
    s = plan["objects"][0]
    name, count, width = s["name"], s["count"], s["box"][2]
    if count == 1:
        nouns = {"train": ("train", "train", "train", "passenger train"), "couch": ("couch", "couch", "sofa")}
        choice = nouns.get(name, (name,))
        if s.get("kind") in _KINDS and rng.random() < 0.6:
            choice = _KINDS[s["kind"]]
        noun = rng.choice(choice)
        size = ""
        if name != "skier" and rng.random() < 0.15:
            size = "large " if width > 0.72 else "small " if width < 0.6 else ""
        color = f"{color} " if color else ""
        if name == "skier" and color:
            jacket = f"in a {color}jacket"
            return rng.choice(
                (f"a skier {jacket}", f"a skier wearing {color}", f"a {color}skier", f"a person {jacket}")
            )
        if name == "skier":
            return rng.choice(("a skier", "a skier", "a person", "a man"))
        return f"a {size}{color}{noun}"
    words = {
        2: ("two", "two", "a couple of", "a pair of"),
        3: ("three", "three", "several", "a group of"),
        4: ("four", "four", "several", "a bunch of"),
    }[count]
    return " ".join(w for w in (rng.choice(words), color, f"{name}s") if w)


def _caption(plan: dict[str, Any], rng: random.Random, colored: bool) -> str:
    """One sentence about some of what is shown; it names the subject's colour if (and only if) `colored`."""
    scene, s, ground = plan["scene"], plan["objects"][0], plan["background"]
    several = s["count"] > 1
    color = (s["color"] or "") if colored else ""
    np = _subject_phrase(plan, rng, color)
    is_ = "are" if several else "is"
    act, at = rng.choice(_ACTS[scene]), rng.choice(_AT[scene])

    tails = _AROUND[ground.get("around", "nothing")] if rng.random() < 0.45 else ()
    tail = rng.choice(tails) if tails else ""
    when = rng.choice(_WHEN[ground["time"]]) if "time" in ground and scene != "living room" else ""
    if rng.random() > 0.4:
        when = ""
    centre = s["box"][0] + s["box"][2] / 2
    side = "left" if centre < 0.42 else "right" if centre > 0.58 else ""
    facing = s.get("facing", "")
    others = [f"a {o['color']} {o['name']}" if o["color"] and rng.random() < 0.4 else f"a {o['name']}"
              for o in plan["objects"][1:] if o["name"] != "plate"]  # fmt: skip
    if "a television" in others and rng.random() < 0.4:
        others[others.index("a television")] = "a tv"

    forms: list[tuple[float, str]] = [
        (4, f"{np} {act} {tail} {when}"),
        (2.5, f"{np} {is_} {act} {tail} {when}"),
        (1.5, f"there {is_} {np} {at} {tail} {when}"),
        (1.5, f"{np} {at} {tail} {when}"),
        (0.6, f"{np} that {is_} {act} {when}"),
        (0.7, f"{np} {when}"),
        (0.5, f"a {rng.choice(('picture', 'photo', 'view', 'image'))} of {np} {at} {tail}"),
    ]
    extra = rng.choice(_EXTRA[scene])
    if "{c}" not in extra or color:
        forms.append((1.5, f"{extra} {when}"))
    if color and not several and scene != "mountain":
        forms.append((0.4, f"the {s['name']} {at} {is_} {color}"))
    if side:
        forms.append((0.6, f"{np} on the {side} {rng.choice(('side', 'side of the picture', 'side of the image'))}"))
    if facing and scene in ("tracks", "bus road", "car road", "water"):
        forms.append((0.6, f"{np} {rng.choice(('heading to the', 'moving to the', 'facing'))} {facing} {at}"))
    elif facing and not several:
        forms.append((0.6, f"{np} facing {facing} {at}"))
    forms += _own_forms(plan, np, others, tail, when)

    text = rng.choices([f for _, f in forms], [w for w, _ in forms])[0]
    plate = next((o["color"] for o in plan["objects"] if o["name"] == "plate"), "")
    text = text.replace("{np}", np).replace("{c}", color).replace("{it}", "them" if several else "it")
    text = text.replace("{plate}", f"{plate} " if rng.random() < 0.35 else "")
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + "."


def _own_forms(plan: dict[str, Any], np: str, others: list[str], tail: str, when: str) -> list[tuple[float, str]]:
    """Weighted sentences about what only this scene has: other things in the room, the plate, who flies the kite."""
    scene, ground = plan["scene"], plan["background"]
    forms: list[tuple[float, str]] = []
    if scene == "living room":
        if others:
            forms += [
                (2, f"a living room with {np} and {others[0]}"),
                (2, f"{np} next to {others[0]} in a living room"),
                (2, f"a living room that has {', '.join((np, *others[:-1]))} and {others[-1]}"),
            ]
        forms.append((1.5, f"{np} in a room with {ground['wall']} walls"))
        if ground["decor"] != "nothing":
            forms.append((1.5, f"{np} in a living room with a {ground['decor']}"))
        forms.append((0.7, f"{np} on a {'wooden' if ground['floor'] == 'wooden' else 'carpeted'} floor"))
    elif scene == "fruit plate":
        surface = "a table" if ground["surface"] == "tablecloth" else f"a {ground['surface']}"
        forms.append((2, f"{np} on a {{plate}}plate on {surface}"))
        forms.append((1, f"a {{plate}}plate of fruit with {np} on {surface}"))
    elif scene == "kite sky" and ground["person"]:
        forms.append((3, f"a person flying {np} {tail} {when}"))
        forms.append((2, f"a man is flying {np} in the sky {when}"))
    elif scene == "beach" and ground["chair"]:
        forms.append((2, f"{np} and a chair on the beach {when}"))
        forms.append((2, f"a beach chair under {np} {when}"))
    return forms


def _describe(plan: dict[str, Any], rng: random.Random) -> list[str]:
    """Five distinct captions; three or four of them name the subject's colour."""
    flags = [True, True, True, rng.random() < 0.5, False]
    rng.shuffle(flags)
    captions: list[str] = []
    for flag in flags:
        text = _caption(plan, rng, flag)
        while text in captions:
            text = _caption(plan, rng, flag)
        captions.append(text)
    return captions
