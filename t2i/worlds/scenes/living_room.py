"""A couch in a living room, often with a television and a table."""

from random import Random as Rng

from t2i.painting.landscape import SKY, lit
from t2i.painting.pen import PALETTE, Color, Pen, Plan, darker, jitter, lighter, mixed
from t2i.worlds.scenes import _scene
from t2i.worlds.scenes._scene import Draft, Sentences


class Scene(_scene.Scene):
    subjects = {"couch": ("red", "orange", "green", "blue", "purple", "pink", "black", "brown")}
    companions = {"television": (), "table": ("white", "black", "brown")}
    nouns = {"couch": ("couch", "couch", "sofa")}
    aliases = {"television": "tv"}
    outdoors = False
    doing = (
        "sitting in a living room", "in a living room", "in a room", "against a wall", "sitting in a room",
        "placed in a living room",
    )  # fmt: skip
    where = ("in the living room", "in the room")
    whole = ("a living room with {subject}", "a room that has {subject} in it", "a living room filled with {subject}")

    def plan(self, draft: Draft) -> None:
        rng, background = draft.rng, draft.background
        del background["clouds"]
        background["wall"] = rng.choice(("white", "yellow", "green", "blue"))
        background["floor"] = rng.choice(("wooden", "carpet"))
        side = rng.choice(("left", "right"))  # where the couch stands; the television has the other side
        television, table = rng.random() < 0.7, rng.random() < 0.7
        w = rng.uniform(0.54, 0.62) if television else rng.uniform(0.6, 0.8)
        x = 0.03 if television else rng.uniform(0.04, 0.96 - w)
        base = rng.uniform(0.78, 0.84)
        x = x if side == "left" else 1 - x - w
        draft.subject["boxes"] = [(x, base - 0.5 * w, w, 0.5 * w)]
        background["decor"] = rng.choice(("picture", "window", "lamp", "nothing"))
        if television:
            t = rng.uniform(0.27, 0.31)
            draft.add("television", (0.98 - t if side == "left" else 0.02, base - 0.06 - 0.4, t, 0.4))
        if table:
            t = rng.uniform(0.36, 0.46)
            draft.add("table", (min(max(x + w / 2 - t / 2, 0.02), 0.98 - t), 0.79, t, 0.17))

    def paint(self, pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
        ground, (x, y, w, h) = plan["background"], plan["objects"][0]["box"]
        things = {thing["name"]: thing for thing in plan["objects"][1:]}
        tints = {"white": (236, 234, 230), "yellow": (244, 228, 168), "green": (186, 216, 182), "blue": (176, 204, 230)}
        wall = jitter(rng, tints[ground["wall"]], 6)
        floor = jitter(rng, (178, 132, 88) if ground["floor"] == "wooden" else (176, 168, 164))
        base, middle = y + h, x + w / 2
        edge = base - 0.1
        pen.fade(lighter(wall, 0.1), darker(wall, 0.08), 0, edge)
        pen.fade(darker(floor, 0.12), floor, edge, 1)
        pen.rect((250, 248, 244), 0, edge - 0.02, 1, edge)
        if ground["floor"] == "wooden":
            for v in (edge + 0.06, edge + 0.14, edge + 0.24):
                pen.line(darker(floor, 0.22), 0.007, (0, v), (1, v))
        if ground["decor"] == "picture":
            pen.rect((110, 76, 46), middle - 0.15, 0.1, middle + 0.15, 0.34)
            pen.rect((160, 206, 236), middle - 0.125, 0.125, middle + 0.125, 0.315)
            pen.poly((92, 150, 90), (middle - 0.125, 0.315), (middle - 0.03, 0.2), (middle + 0.125, 0.315))
            pen.disc((255, 226, 120), middle + 0.06, 0.17, 0.025)
        elif ground["decor"] == "window":
            pen.rect((252, 252, 250), middle - 0.17, 0.06, middle + 0.17, 0.38)
            for u in (middle - 0.15, middle + 0.01):
                pen.rect(mixed(*SKY[ground["time"]], 0.5), u, 0.08, u + 0.14, 0.36)
                pen.rect(lit((96, 160, 80), ground["time"]), u, 0.29, u + 0.14, 0.36)
        elif ground["decor"] == "lamp":
            u = x + (0.1 if x > 1 - x - w else w - 0.1)
            pen.line((90, 84, 80), 0.016, (u, 0.2), (u, edge))
            pen.poly((255, 236, 176), (u - 0.06, 0.1), (u + 0.06, 0.1), (u + 0.1, 0.26), (u - 0.1, 0.26))
        if "television" in things:
            draw_television(pen.inside(things["television"]["box"]))
        pen.oval(darker(floor, 0.3), x, base - 0.03, x + w, base + 0.03)
        draw_couch(frames[0], color)
        if "table" in things:
            draw_table(pen.inside(things["table"]["box"]), jitter(rng, PALETTE[things["table"]["color"]]))

    def sentences(self, plan: Plan, subject: str, companions: list[str], tail: str, when: str) -> Sentences:
        ground, forms = plan["background"], list[tuple[float, str]]()
        if companions:
            forms += [
                (2, f"a living room with {subject} and {companions[0]}"),
                (2, f"{subject} next to {companions[0]} in a living room"),
                (2, f"a living room that has {', '.join((subject, *companions[:-1]))} and {companions[-1]}"),
            ]
        forms.append((1.5, f"{subject} in a room with {ground['wall']} walls"))
        if ground["decor"] != "nothing":
            forms.append((1.5, f"{subject} in a living room with a {ground['decor']}"))
        forms.append((0.7, f"{subject} on a {'wooden' if ground['floor'] == 'wooden' else 'carpeted'} floor"))
        return forms


def draw_couch(pen: Pen, color: Color) -> None:
    dark, light = darker(color, 0.28), lighter(color, 0.14)
    for x in (0.06, 0.9):
        pen.rect((70, 46, 30), x, 0.9, x + 0.04, 1)
    pen.rect(color, 0.04, 0, 0.96, 0.8, 0.08)
    pen.line(dark, 0.012, (0.5, 0.06), (0.5, 0.5))
    pen.rect(dark, 0.08, 0.48, 0.92, 0.94, 0.03)
    pen.rect(light, 0.11, 0.48, 0.495, 0.72, 0.04)
    pen.rect(light, 0.505, 0.48, 0.89, 0.72, 0.04)
    pen.rect(color, 0, 0.3, 0.14, 0.94, 0.06)
    pen.rect(color, 0.86, 0.3, 1, 0.94, 0.06)
    pen.rect(light, 0.02, 0.31, 0.12, 0.4, 0.04)
    pen.rect(light, 0.88, 0.31, 0.98, 0.4, 0.04)


def draw_television(pen: Pen) -> None:
    """On its stand."""
    wood, frame = (120, 84, 54), (24, 24, 28)
    pen.rect(wood, 0.06, 0.62, 0.94, 1, 0.02)
    pen.rect(darker(wood, 0.25), 0.12, 0.7, 0.48, 0.94)
    pen.rect(darker(wood, 0.25), 0.52, 0.7, 0.88, 0.94)
    pen.rect(frame, 0.42, 0.5, 0.58, 0.63)
    pen.rect(frame, 0, 0, 1, 0.56, 0.03)
    pen.rect((84, 128, 168), 0.05, 0.04, 0.95, 0.5)
    pen.poly((136, 176, 206), (0.12, 0.04), (0.42, 0.04), (0.2, 0.5), (0.05, 0.5), (0.05, 0.2))


def draw_table(pen: Pen, color: Color) -> None:
    for x in (0.08, 0.86):
        pen.rect(darker(color, 0.3), x, 0.2, x + 0.06, 1)
    pen.poly(lighter(color, 0.12), (0.1, 0), (0.9, 0), (1, 0.26), (0, 0.26))
    pen.rect(darker(color, 0.22), 0, 0.26, 1, 0.4)
