"""A train on its tracks."""

from random import Random as Rng

from t2i.painting.landscape import draw_landscape, lit
from t2i.painting.parts import draw_wheel, glass_color
from t2i.painting.pen import Color, Pen, Plan, darker, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft


class Scene(_scene.Scene):
    subjects = {"train": ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")}
    nouns = {"train": ("train", "train", "train", "passenger train")}
    faces = moves = True
    doing = (
        "traveling down the tracks", "traveling along the tracks", "coming down the tracks", "going down the tracks",
        "moving along the train tracks", "driving along the railroad tracks", "riding on the tracks",
        "sitting on the tracks", "parked on the train tracks", "passing by on the tracks", "stopped on the tracks",
        "rolling down the railroad tracks",
    )  # fmt: skip
    where = ("on the tracks", "on the train tracks", "on the railroad tracks")
    whole = ("train tracks with {subject} on them", "{subject} pulling several cars down the tracks")

    def plan(self, draft: Draft) -> None:
        draft.background["around"] = draft.rng.choice(("trees", "buildings", "hills", "nothing"))
        draft.place((0.62, 0.92), 0.44, (0.8, 0.86))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        time, (_, y, _, h) = plan["background"]["time"], plan["objects"][0]["box"]
        base = y + h
        draw_landscape(pen, rng, plan["background"], base - 0.2)
        pen.rect(lit((150, 138, 124), time), 0, base - 0.03, 1, base + 0.07)
        for i in range(12):
            x, wood = i / 12 + 0.02, lit((96, 70, 50), time)
            low = base + 0.06
            pen.poly(wood, (x, base - 0.01), (x + 0.035, base - 0.01), (x + 0.03, low), (x - 0.015, low))
        for rail in (base - 0.012, base + 0.034):
            pen.rect(lit((84, 86, 94), time), 0, rail, 1, rail + 0.016)
        draw_train(frames[0], color, time)


def draw_train(pen: Pen, color: Color, time: str) -> None:
    """Faces right: two cars and an engine with a sloping nose."""
    dark, glass = darker(color, 0.35), glass_color(time)
    for x in (0.08, 0.2, 0.42, 0.54, 0.76, 0.9):
        draw_wheel(pen, x, 0.91, 0.036)
    for x0, x1 in ((0, 0.31), (0.34, 0.65)):
        pen.rect(color, x0, 0.14, x1, 0.84, 0.02)
        pen.rect(dark, x0, 0.68, x1, 0.86, 0.01)
        pen.rect(lighter(color, 0.35), x0 + 0.02, 0.14, x1 - 0.02, 0.2)
        for i in range(3):
            pen.rect(glass, x0 + 0.035 + 0.09 * i, 0.3, x0 + 0.1 + 0.09 * i, 0.52, 0.012)
    pen.rect((70, 70, 76), 0.3, 0.66, 0.7, 0.76)
    pen.poly(color, (0.68, 0.08), (0.84, 0.08), (0.93, 0.4), (1, 0.6), (1, 0.84), (0.68, 0.84))
    pen.poly(dark, (0.68, 0.68), (1, 0.68), (1, 0.87), (0.68, 0.87))
    pen.rect(lighter(color, 0.35), 0.69, 0.08, 0.83, 0.14)
    pen.poly(glass, (0.82, 0.2), (0.86, 0.2), (0.91, 0.42), (0.82, 0.42))
    pen.rect(glass, 0.71, 0.22, 0.79, 0.42, 0.012)
    pen.disc((255, 244, 190), 0.965, 0.62, 0.02)
