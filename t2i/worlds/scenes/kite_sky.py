"""Kites in the sky."""

import math
from random import Random as Rng

from t2i.painting.landscape import draw_landscape
from t2i.painting.pen import Color, Pen, Plan, darker, lighter, span
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft, Sentences


class Scene(_scene.Scene):
    subjects = {"kite": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")}
    doing = (
        "flying in the sky", "flying high in the sky", "flying in the air", "flying over a field",
        "floating in the sky", "up in the air", "soaring in the sky", "flying above the grass",
    )  # fmt: skip
    where = ("in the sky", "in the air")
    whole = ("the sky with {subject} flying in it",)

    def plan(self, draft: Draft) -> None:
        rng = draft.rng
        draft.background["around"] = rng.choice(("trees", "hills", "nothing"))
        draft.background["person"] = rng.random() < 0.5
        n = draft.subject["count"] = rng.choices((1, 2, 3), (3, 2, 2))[0]
        w = {1: rng.uniform(0.42, 0.54), 2: rng.uniform(0.32, 0.38), 3: rng.uniform(0.27, 0.31)}[n]
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
        draft.subject["boxes"] = [(x, y, w, 1.15 * w) for x, y in spots]

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        ground = plan["background"]
        draw_landscape(pen, rng, ground, 0.84)
        if ground["person"]:
            x, y = hand = (0.5 + rng.uniform(-0.3, 0.3), 0.78)
            for kite in plan["objects"][0]["boxes"]:
                pen.line((235, 235, 235), 0.006, (kite[0] + kite[2] / 2, kite[1] + 0.4 * kite[3]), hand)
            shirt, trousers = (226, 222, 214), (44, 52, 92)
            pen.line(trousers, 0.03, (x + 0.03, y + 0.09), (x + 0.015, y + 0.17))
            pen.line(trousers, 0.03, (x + 0.045, y + 0.09), (x + 0.06, y + 0.17))
            pen.rect(shirt, x + 0.005, y + 0.01, x + 0.07, y + 0.1, 0.02)
            pen.line(shirt, 0.02, (x + 0.03, y + 0.03), (x, y))
            pen.disc((232, 188, 150), x + 0.037, y - 0.022, 0.03)
        for frame in frames:
            draw_kite(frame, color, rng.choice((-1, 1)))

    def sentences(self, plan: Plan, subject: str, companions: list[str], tail: str, when: str) -> Sentences:
        if not plan["background"]["person"]:
            return []
        return [
            (3, f"a person flying {subject} {tail} {when}"),
            (2, f"a man is flying {subject} in the sky {when}"),
        ]


def draw_kite(pen: Pen, color: Color, sway: int) -> None:
    """A diamond with a tail that leaves its frame at the bottom; sway (±1): to which side the tail blows."""
    tail = [(0.5 + sway * 0.14 * math.sin(t * 5), 1 + 0.42 * t) for t in span(0, 1, 9)]
    pen.line((245, 245, 245), 0.025, *tail)
    for x, y in tail[2::3]:
        pen.poly(lighter(color, 0.2), (x - 0.09, y - 0.05), (x - 0.09, y + 0.05), (x, y))
        pen.poly(lighter(color, 0.2), (x + 0.09, y - 0.05), (x + 0.09, y + 0.05), (x, y))
    pen.poly(color, (0.5, 0), (1, 0.38), (0.5, 1), (0, 0.38))
    pen.poly(darker(color, 0.22), (0.5, 0.38), (1, 0.38), (0.5, 1))
    pen.poly(lighter(color, 0.22), (0.5, 0), (0.5, 0.38), (0, 0.38))
    pen.line(darker(color, 0.5), 0.018, (0.5, 0.01), (0.5, 0.99))
    pen.line(darker(color, 0.5), 0.018, (0.01, 0.38), (0.99, 0.38))
