"""An umbrella on the beach."""

from random import Random as Rng

from t2i.painting.landscape import draw_sky, lit
from t2i.painting.pen import Color, Pen, Plan, darker, jitter, lighter
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft, Sentences


class Scene(_scene.Scene):
    subjects = {"umbrella": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")}
    doing = (
        "on the beach", "standing on the beach", "on a sandy beach", "sitting on the sand", "set up on a beach",
        "on the beach by the ocean", "in the sand", "open on a sandy beach", "standing in the sand near the water",
    )  # fmt: skip
    where = ("on the beach", "on the sand", "at the beach")
    whole = ("a beach with {subject} on it", "a sandy beach with {subject} near the water")

    def plan(self, draft: Draft) -> None:
        draft.background["chair"] = draft.rng.random() < 0.4
        draft.place((0.6, 0.84), 0.86, (0.86, 0.92))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        ground, (x, y, w, h) = plan["background"], plan["objects"][0]["box"]
        time, base, shore = ground["time"], y + h, rng.uniform(0.64, 0.7)
        draw_sky(pen, rng, ground, 0.5)
        water = lit((40, 140, 190), time)
        pen.fade(darker(water, 0.1), lighter(water, 0.25), 0.5, shore)
        sand = lit(jitter(rng, (232, 208, 150)), time)
        pen.fade(lighter(sand, 0.1), darker(sand, 0.12), shore, 1)
        pen.rect(lighter(water, 0.6), 0, shore - 0.015, 1, shore + 0.01)
        pen.oval(darker(sand, 0.25), x + 0.15 * w, base - 0.03, x + 0.85 * w, base + 0.03)
        if ground["chair"]:
            chair = pen.inside((x + 0.52 * w, base - 0.24, 0.32 * w + 0.06, 0.24), mirror=rng.random() < 0.5)
            chair.line((130, 92, 60), 0.07, (0.1, 0.95), (0.3, 0.6), (0.9, 0.95))
            chair.line((246, 244, 240), 0.16, (0.12, 0.1), (0.34, 0.62), (0.92, 0.66))
        draw_umbrella(frames[0], color)

    def sentences(self, plan: Plan, subject: str, companions: list[str], tail: str, when: str) -> Sentences:
        if not plan["background"]["chair"]:
            return []
        return [
            (2, f"{subject} and a chair on the beach {when}"),
            (2, f"a beach chair under {subject} {when}"),
        ]


def draw_umbrella(pen: Pen, color: Color) -> None:
    """Canopy in the upper half of the frame, its pole down to the bottom."""
    pen.line((236, 232, 224), 0.03, (0.5, 0.05), (0.5, 0.99))
    edge = 0.5
    pen.dome(color, 0, 0.04, 1, 0.04 + 2 * (edge - 0.04))
    panel = lighter(color, 0.25) if sum(color) < 650 else darker(color, 0.13)
    pen.dome(panel, 0.34, 0.04, 0.66, 0.04 + 2 * (edge - 0.04))
    for t in (0.19, 0.81):
        pen.line(darker(color, 0.25), 0.014, (0.5, 0.06), (0.5 + (t - 0.5) * 0.72, 0.2), (t, edge - 0.01))
    for i in range(5):
        x = 0.2 * i
        pen.oval(panel if i == 2 else color, x, edge - 0.06, x + 0.2, edge + 0.06)
    pen.disc(darker(color, 0.3), 0.5, 0.035, 0.025)
