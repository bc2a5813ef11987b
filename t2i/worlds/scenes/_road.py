"""The road that a bus or a car is on."""

from random import Random as Rng

from t2i.painting.landscape import draw_landscape, lit
from t2i.painting.pen import Pen, Plan, darker, jitter, lighter


def draw_road(pen: Pen, rng: Rng, plan: Plan) -> None:
    """The landscape, the road, and the shadow of what will stand on it."""
    x, y, w, h = plan["objects"][0]["box"]
    base = y + h
    draw_landscape(pen, rng, plan["background"], base - 0.16)
    road = lit(jitter(rng, (104, 104, 110)), plan["background"]["time"])
    pen.rect(lighter(road, 0.4), 0, base - 0.09, 1, base - 0.06)
    pen.fade(lighter(road, 0.06), darker(road, 0.15), base - 0.065, 1)
    for i in range(4):
        dash = i / 3.4 + rng.uniform(-0.01, 0.01)
        pen.rect((232, 226, 190), dash, base + 0.05, dash + 0.13, base + 0.068)
    pen.oval(darker(road, 0.4), x + 0.02, base - 0.03, x + w - 0.02, base + 0.025)
