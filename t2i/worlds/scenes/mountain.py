"""A skier on a slope."""

from random import Random as Rng
from typing import Any

from t2i.painting.landscape import draw_mountains, draw_sky, lit
from t2i.painting.pen import Color, Pen, Plan, darker, jitter, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"skier": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")}
    faces = True
    colored = False  # only the jacket is
    doing = (
        "skiing down a mountain", "skiing down a snowy slope", "going down a hill on skis", "skiing in the snow",
        "riding skis down a snowy hill", "standing on a snowy mountain", "coming down a snow covered slope",
        "skiing down a snow covered mountain",
    )  # fmt: skip
    where = ("on the slope", "on a snowy mountain", "in the snow")
    whole = (
        "a person in a {color} jacket skiing down a slope", "a man wearing a {color} coat on skis",
        "a person on skis in a {color} jacket", "a snow covered slope with {subject} on it",
    )  # fmt: skip

    def plan(self, draft: Draft) -> None:
        draft.background["around"] = draft.rng.choice(("trees", "nothing"))
        draft.place((0.46, 0.64), 1.08, (0.84, 0.92))

    def one(self, subject: dict[str, Any], color: str, rng: Rng) -> str:
        noun = self.noun(subject, rng)
        if not color:
            return rng.choice((f"a {noun}", f"a {noun}", "a person", "a man"))
        jacket = f"in a {color} jacket"
        return rng.choice(
            (f"a {noun} {jacket}", f"a {noun} wearing {color}", f"a {color} {noun}", f"a person {jacket}")
        )

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        ground, (_, y, _, h) = plan["background"], plan["objects"][0]["box"]
        time, base = ground["time"], y + h
        draw_sky(pen, rng, ground, 0.62)
        draw_mountains(pen, rng, time, 0.62, (122, 134, 160))
        snow = lit((240, 244, 250), time) if time != "night" else (150, 162, 196)
        pen.rect(darker(snow, 0.14), 0, 0.6, 1, 1)
        left, right = (base - 0.1, base - 0.36) if frames[0].mirror else (base - 0.36, base - 0.1)
        for i in range(5 if ground["around"] == "trees" else 0):
            x = (i + rng.uniform(0.2, 0.8)) / 5
            foot, s, pine = (
                left + (right - left) * x + 0.02,
                rng.uniform(0.8, 1.15),
                lit(jitter(rng, (28, 84, 62)), time),
            )
            for k in range(3):
                half, low = (0.045 + 0.02 * k) * s, foot - (0.17 - 0.08 * k) * s
                pen.poly(pine, (x, foot - (0.3 - 0.07 * k) * s), (x - half, low), (x + half, low))
        pen.poly(snow, (0, left), (1, right), (1, 1), (0, 1))
        for _ in range(3):
            x, v = rng.uniform(0, 0.8), rng.uniform(0.85, 0.98)
            pen.line(darker(snow, 0.1), 0.01, (x, v), (x + 0.2, v + (right - left) * 0.2))
        draw_skier(frames[0], color)


def draw_skier(pen: Pen, color: Color) -> None:
    """Faces right, on skis that lie along the frame's bottom."""
    legs, skin = (52, 58, 84), (240, 196, 160)
    pen.line((60, 62, 70), 0.03, (0.02, 0.9), (0.9, 1.0), (0.98, 0.96))
    pen.line((90, 92, 100), 0.03, (0.08, 0.87), (0.94, 0.965), (0.99, 0.92))
    pen.line((70, 70, 76), 0.022, (0.72, 0.48), (0.92, 0.9))
    pen.line((70, 70, 76), 0.022, (0.3, 0.5), (0.06, 0.8))
    pen.line(legs, 0.14, (0.4, 0.56), (0.54, 0.74), (0.42, 0.92))
    pen.line(darker(legs, 0.25), 0.13, (0.42, 0.56), (0.64, 0.74), (0.56, 0.92))
    pen.line(darker(color, 0.2), 0.13, (0.46, 0.32), (0.32, 0.5))
    pen.poly(color, (0.32, 0.26), (0.58, 0.2), (0.66, 0.34), (0.56, 0.62), (0.28, 0.6))
    pen.disc(color, 0.47, 0.29, 0.16)
    pen.disc(color, 0.42, 0.54, 0.14)
    pen.line(lighter(color, 0.18), 0.12, (0.54, 0.32), (0.62, 0.46), (0.74, 0.48))
    pen.disc(skin, 0.75, 0.48, 0.045)
    pen.disc(skin, 0.6, 0.13, 0.115)
    pen.dome(color, 0.47, 0.0, 0.72, 0.235)
    pen.rect((40, 40, 46), 0.62, 0.1, 0.73, 0.15, 0.02)
