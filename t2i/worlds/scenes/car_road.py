"""A car on a road."""

from random import Random as Rng

from t2i.painting.parts import draw_wheel, glass_color
from t2i.painting.pen import Color, Pen, Plan, darker, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._road import draw_road
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"car": ("red", "orange", "yellow", "green", "blue", "pink", "white", "black")}
    faces = moves = True
    doing = (
        "driving down the road", "driving down the street", "parked on the street", "parked on the side of the road",
        "going down the road", "traveling down the highway", "stopped on the road", "sitting on the road",
        "parked by the road",
    )  # fmt: skip
    where = ("on the road", "on the street", "by the road")
    whole = ("a road with {subject} on it", "a street that has {subject} on it")

    def plan(self, draft: Draft) -> None:
        draft.background["around"] = draft.rng.choice(("trees", "buildings", "hills", "nothing"))
        draft.place((0.52, 0.82), 0.44, (0.82, 0.9))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        draw_road(pen, rng, plan)
        draw_car(frames[0], color, plan["background"]["time"])


def draw_car(pen: Pen, color: Color, time: str) -> None:
    """Faces right."""
    glass, dark = glass_color(time), darker(color, 0.3)
    pen.poly(color, (0.16, 0.42), (0.3, 0.04), (0.62, 0.02), (0.78, 0.42))
    pen.oval(color, 0.27, 0.0, 0.65, 0.2)
    pen.rect(color, 0, 0.38, 1, 0.82, 0.11)
    pen.rect(color, 0.0, 0.5, 0.5, 0.82, 0.04)
    pen.rect(dark, 0.02, 0.68, 0.98, 0.84, 0.04)
    pen.rect(lighter(color, 0.35), 0.1, 0.41, 0.9, 0.46)
    pen.poly(glass, (0.23, 0.4), (0.33, 0.13), (0.46, 0.12), (0.46, 0.4))
    pen.poly(glass, (0.5, 0.4), (0.5, 0.12), (0.6, 0.12), (0.71, 0.4))
    pen.line(dark, 0.01, (0.48, 0.42), (0.48, 0.7))
    pen.rect(dark, 0.52, 0.5, 0.58, 0.54)
    pen.disc((255, 244, 190), 0.955, 0.54, 0.032)
    pen.rect((150, 20, 20), 0.0, 0.48, 0.035, 0.6)
    for x in (0.22, 0.77):
        pen.disc(dark, x, 0.8, 0.105)
        draw_wheel(pen, x, 0.82, 0.088)
