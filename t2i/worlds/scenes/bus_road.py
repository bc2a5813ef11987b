"""A bus on a road."""

from random import Random as Rng

from t2i.painting.parts import draw_wheel, glass_color
from t2i.painting.pen import Color, Pen, Plan, darker, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._road import draw_road
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"bus": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")}
    kinds = {"double decker": ("double decker bus",)}
    faces = moves = True
    doing = (
        "driving down the street", "driving down the road", "traveling down the road", "parked on the street",
        "going down the street", "parked on the side of the road", "stopped on the road", "riding down the street",
        "moving along the road", "driving on a city street",
    )  # fmt: skip
    where = ("on the street", "on the road", "on a city street")
    whole = ("a street with {subject} driving on it", "a road that has {subject} on it")

    def plan(self, draft: Draft) -> None:
        draft.background["around"] = draft.rng.choice(("trees", "buildings", "hills", "nothing"))
        kind = draft.subject["kind"] = draft.rng.choices(("single", "double decker"), (7, 3))[0]
        tall = kind == "double decker"
        draft.place((0.5, 0.72) if tall else (0.58, 0.86), 0.74 if tall else 0.54, (0.83, 0.9))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        draw_road(pen, rng, plan)
        subject, time = plan["objects"][0], plan["background"]["time"]
        draw_bus(frames[0], color, time, subject["kind"] == "double decker")


def draw_bus(pen: Pen, color: Color, time: str, double: bool) -> None:
    """Faces right."""
    glass, dark = glass_color(time), darker(color, 0.3)
    pen.rect(color, 0, 0.02, 1, 0.9, 0.06)
    pen.rect(dark, 0.005, 0.76, 0.995, 0.9, 0.03)
    pen.rect(lighter(color, 0.4), 0.05, 0.035, 0.95, 0.075)
    rows = ((0.13, 0.33), (0.46, 0.66)) if double else ((0.16, 0.46),)
    for y0, y1 in rows:
        for i in range(5):
            pen.rect(glass, 0.04 + 0.155 * i, y0, 0.165 + 0.155 * i, y1, 0.015)
        pen.rect(lighter(glass, 0.3), 0.85, y0, 0.985, y1 + 0.04, 0.02)
    y = rows[-1][0]
    pen.rect(dark, 0.655, y - 0.02, 0.79, 0.88, 0.01)
    pen.rect(glass, 0.67, y, 0.72, 0.8)
    pen.rect(glass, 0.73, y, 0.78, 0.8)
    pen.disc((255, 240, 180), 0.97, 0.72, 0.022)
    for x in (0.2, 0.88):
        draw_wheel(pen, x, 0.89, 0.082 if not double else 0.08)
