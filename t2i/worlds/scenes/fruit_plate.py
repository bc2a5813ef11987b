"""Apples, bananas or oranges on a plate."""

import math
from random import Random as Rng

from t2i.painting.pen import PALETTE, Color, Pen, Plan, darker, jitter, lighter, span
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft, Sentences


class Scene(_scene.Scene):
    subjects = {"apple": ("red", "yellow", "green"), "banana": ("yellow", "green"), "orange": ()}
    companions = {"plate": ("white", "blue", "pink")}
    stand = "plate"
    doing = (
        "sitting on a {stand}plate", "on a {stand}plate", "lying on a {stand}plate", "placed on a {stand}plate",
        "on top of a {stand}plate", "resting on a {stand}plate", "on a {stand}dish",
    )  # fmt: skip
    where = ("on the {stand}plate", "on a {stand}plate")
    whole = (
        "a {stand}plate with {subject} on it", "a {stand}plate topped with {subject}",
        "a {stand}plate holding {subject}",
    )  # fmt: skip

    def plan(self, draft: Draft) -> None:
        rng, subject = draft.rng, draft.subject
        draft.background = {"surface": rng.choice(("wooden table", "tablecloth", "counter"))}
        n = subject["count"] = rng.choices((1, 2, 3, 4), (4, 3, 2, 2))[0]
        plate = rng.uniform(0.8, 0.94)
        cx, cy = 0.5 + rng.uniform(-0.02, 0.02), rng.uniform(0.6, 0.66)
        draft.add("plate", (cx - plate / 2, cy - plate * 0.27, plate, plate * 0.54))
        big = {1: 0.46, 2: 0.34, 3: 0.3, 4: 0.27}[n] * rng.uniform(0.94, 1.06)
        spots: list[tuple[float, float]] = {
            1: [(0.0, 0.0)],
            2: [(-0.53, 0), (0.53, 0.04)],
            3: [(0, -0.5), (-0.54, 0.22), (0.54, 0.22)],
            4: [(-0.46, -0.48), (0.52, -0.44), (-0.56, 0.34), (0.5, 0.36)],
        }[n]
        banana = subject["name"] == "banana"
        long = (1.3 if n == 1 else 1.12) if banana else 1.0
        aspect = 0.66 if banana else 1.0
        w, h = big * long, big * long * aspect
        subject["boxes"] = [(cx + u * big - w / 2, cy - 0.06 + v * big * aspect**0.5 - h / 2, w, h) for u, v in spots]

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        subject, plate = plan["objects"]
        surface = plan["background"]["surface"]
        colors = {"wooden table": (176, 122, 74), "tablecloth": (216, 204, 226), "counter": (150, 158, 166)}
        base = jitter(rng, colors[surface])
        pen.fade((206, 212, 206), (226, 228, 220), 0, 0.26)
        pen.fade(lighter(base, 0.1), darker(base, 0.12), 0.24, 1)
        if surface == "wooden table":
            for v in (0.36, 0.52, 0.7, 0.9):
                pen.line(darker(base, 0.2), 0.01, (0, v), (1, v))
        elif surface == "tablecloth":
            for i in range(5):
                pen.rect(darker(base, 0.1), 0.04 + 0.22 * i, 0.245, 0.12 + 0.22 * i, 1)
        x, y, w, h = plate["box"]
        china = jitter(rng, PALETTE[plate["color"]], 6)
        pen.oval(darker(base, 0.4), x + 0.02, y + 0.05, x + w - 0.02, y + h + 0.05)
        pen.oval(darker(china, 0.2), x, y + 0.02, x + w, y + h + 0.02)
        pen.oval(china, x, y, x + w, y + h)
        pen.oval(darker(china, 0.12), x + 0.14 * w, y + 0.14 * h, x + 0.86 * w, y + 0.86 * h)
        pen.oval(lighter(china, 0.15), x + 0.15 * w, y + 0.18 * h, x + 0.85 * w, y + 0.86 * h)
        for (x, y, w, h), frame in zip(subject["boxes"], frames):
            pen.oval(darker(china, 0.4), x + 0.06 * w, y + 0.82 * h, x + w, y + 1.06 * h)
            {"apple": draw_apple, "orange": draw_orange, "banana": draw_banana}[subject["name"]](frame, color)

    def sentences(self, plan: Plan, subject: str, companions: list[str], tail: str, when: str) -> Sentences:
        surface = plan["background"]["surface"]
        surface = "a table" if surface == "tablecloth" else f"a {surface}"
        return [
            (2, f"{subject} on a {{stand}}plate on {surface}"),
            (1, f"a {{stand}}plate of fruit with {subject} on {surface}"),
        ]


def draw_apple(pen: Pen, color: Color) -> None:
    dark = darker(color, 0.22)
    pen.oval(dark, 0.04, 0.14, 0.96, 1)
    pen.disc(color, 0.31, 0.45, 0.29)
    pen.disc(color, 0.67, 0.45, 0.29)
    pen.oval(color, 0.06, 0.2, 0.92, 0.95)
    pen.oval(dark, 0.38, 0.18, 0.62, 0.28)
    pen.line((96, 62, 34), 0.06, (0.5, 0.24), (0.55, 0.05))
    pen.oval((70, 150, 60), 0.54, 0.0, 0.84, 0.14)
    pen.oval(lighter(color, 0.45), 0.18, 0.32, 0.34, 0.54)


def draw_orange(pen: Pen, color: Color) -> None:
    """The fruit has its own colour."""
    pen.disc((214, 106, 10), 0.5, 0.52, 0.47)
    pen.disc((250, 146, 30), 0.48, 0.5, 0.44)
    pen.oval((255, 196, 116), 0.2, 0.2, 0.4, 0.38)
    for x, y in ((0.6, 0.36), (0.72, 0.5), (0.5, 0.62), (0.36, 0.76), (0.66, 0.74), (0.3, 0.54)):
        pen.disc((224, 120, 16), x, y, 0.022)
    pen.disc((86, 124, 50), 0.5, 0.1, 0.06)


def draw_banana(pen: Pen, color: Color) -> None:
    there, back = span(0.02, math.pi - 0.02, 14), span(math.pi - 0.02, 0.02, 14)
    outer = [(0.5 - 0.48 * math.cos(t), 0.12 + 0.84 * math.sin(t)) for t in there]
    inner = [(0.5 - 0.43 * math.cos(t), 0.1 + 0.38 * math.sin(t)) for t in back]
    middle = [(0.5 - 0.46 * math.cos(t), 0.11 + 0.62 * math.sin(t)) for t in back]
    pen.poly(color, *outer, *inner)
    pen.poly(darker(color, 0.22), *outer, *middle)
    pen.line((92, 66, 30), 0.05, (0.035, 0.16), (0.03, 0.02))
    pen.disc((92, 66, 30), 0.965, 0.14, 0.03)
