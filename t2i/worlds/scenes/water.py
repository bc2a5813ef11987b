"""A boat on the water."""

from random import Random as Rng

from t2i.painting.landscape import draw_horizon, draw_sky, lit
from t2i.painting.parts import glass_color
from t2i.painting.pen import Color, Pen, Plan, darker, jitter, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"boat": ("red", "orange", "yellow", "green", "purple", "white", "black", "brown")}
    kinds = {"sailboat": ("sailboat", "sail boat")}
    faces = moves = True
    doing = (
        "floating on the water", "sailing on the water", "sitting in the water", "traveling across the water",
        "out on the water", "floating in the ocean", "moving through the water", "sailing on a lake",
    )  # fmt: skip
    where = ("on the water", "in the water", "on the ocean")
    whole = ("the water with {subject} floating on it", "a body of water with {subject} on it")

    def plan(self, draft: Draft) -> None:
        draft.background["around"] = draft.rng.choice(("hills", "mountains", "nothing"))
        kind = draft.subject["kind"] = draft.rng.choice(("sailboat", "motor boat"))
        sail = kind == "sailboat"
        draft.place((0.46, 0.66) if sail else (0.52, 0.78), 1.05 if sail else 0.66, (0.76, 0.86))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        subject, ground = plan["objects"][0], plan["background"]
        time, (x, y, w, h) = ground["time"], subject["box"]
        base = y + h
        horizon = base - rng.uniform(0.2, 0.28)
        draw_sky(pen, rng, ground, horizon)
        draw_horizon(pen, rng, ground, horizon)
        water = lit(jitter(rng, rng.choice(((44, 132, 186), (36, 150, 160)))), time)
        pen.fade(lighter(water, 0.2), darker(water, 0.2), horizon, 1)
        for _ in range(9):
            u, v = rng.uniform(-0.1, 1), rng.uniform(horizon + 0.03, 0.97)
            pen.line(lighter(water, 0.3), 0.008, (u, v), (u + 0.05, v - 0.012), (u + 0.1, v))
        draw_boat(frames[0], color, time, subject["kind"] == "sailboat")
        for i in range(5):  # waves wash the hull's foot
            u = x + w * (0.1 + 0.19 * i)
            pen.oval(lighter(water, 0.45), u - 0.06, base - 0.018, u + 0.06, base + 0.024)
            pen.oval(water, u - 0.06, base - 0.004, u + 0.06, base + 0.038)


def draw_boat(pen: Pen, color: Color, time: str, sail: bool) -> None:
    """Faces right."""
    dark = darker(color, 0.3)
    if sail:
        top = 0.7
        pen.line((110, 80, 52), 0.03, (0.46, 0.02), (0.46, top))
        cloth = (248, 246, 238)
        pen.poly(cloth, (0.5, 0.04), (0.5, 0.64), (0.92, 0.64))
        pen.poly(darker(cloth, 0.1), (0.42, 0.1), (0.42, 0.64), (0.1, 0.64))
        pen.poly(color, (0.5, 0.36), (0.5, 0.5), (0.822, 0.5), (0.724, 0.36))
        pen.poly(color, (0.46, 0), (0.46, 0.06), (0.3, 0.03))
    else:
        top = 0.5
        pen.rect((246, 246, 246), 0.2, 0.14, 0.66, 0.54, 0.03)
        pen.rect((206, 208, 214), 0.16, 0.1, 0.7, 0.18, 0.02)
        for i in range(3):
            pen.rect(glass_color(time), 0.25 + 0.14 * i, 0.24, 0.34 + 0.14 * i, 0.4)
        pen.rect(color, 0.28, 0, 0.4, 0.1)
    pen.poly(color, (0, top), (1, top - 0.03), (0.84, 1), (0.14, 1))
    pen.poly(dark, (0.09, top + (1 - top) * 0.65), (0.893, top + (1 - top) * 0.65), (0.84, 1), (0.14, 1))
    stripe = (250, 250, 250) if sum(color) < 680 else (120, 130, 150)
    pen.poly(stripe, (0.02, top + 0.05), (0.985, top + 0.03), (0.975, top + 0.07), (0.035, top + 0.09))
