"""Fields with zebras or horses in them."""

from random import Random as Rng

from t2i.painting.landscape import draw_landscape, lit
from t2i.painting.pen import Color, Pen, Plan, darker
from t2i.worlds.scenes._scene import Draft

DOING = (
    "standing in a field", "standing in the grass", "standing in a grassy field", "walking through the grass",
    "walking in a field", "standing in a lush field", "standing around in the grass",
)  # fmt: skip
WHERE = ("in the field", "in the grass", "in a grassy field")
WHOLE = ("a grassy field with {subject} in it", "{subject} grazing in a field")


def plan_field(draft: Draft) -> None:
    """One animal, or two side by side."""
    rng, subject = draft.rng, draft.subject
    draft.background["around"] = rng.choice(("trees", "hills", "fence", "nothing"))
    subject["count"] = rng.choices((1, 2), (2, 1))[0]
    if subject["count"] == 1:
        draft.place((0.54, 0.78), 0.84, (0.82, 0.92))
        return
    w = rng.uniform(0.42, 0.47)
    lines = (rng.uniform(0.74, 0.8), rng.uniform(0.86, 0.92))
    lines = lines if rng.random() < 0.5 else lines[::-1]
    xs = (rng.uniform(0.02, 0.05), rng.uniform(0.51, 0.53))
    subject["boxes"] = [(x, line - 0.84 * w, w, 0.84 * w) for x, line in zip(xs, lines)]


def paint_field(
    pen: Pen, rng: Rng, plan: Plan, frames: list[Pen], coat: Color, mane: Color, stripes: Color | None = None
) -> None:
    subject, ground = plan["objects"][0], plan["background"]
    time, horizon = ground["time"], rng.uniform(0.5, 0.58)
    draw_landscape(pen, rng, ground, horizon)
    for (x, y, w, h), frame in sorted(zip(subject["boxes"], frames), key=lambda pair: pair[0][1]):  # the farther first
        pen.oval(lit((70, 120, 50), time), x, y + h - 0.025, x + 0.8 * w, y + h + 0.02)
        draw_animal(frame, coat, mane, stripes)
    if ground["around"] == "fence":
        wood = lit((156, 116, 76), time)
        for y in (horizon + 0.06, horizon + 0.13):
            pen.rect(wood, 0, y, 1, y + 0.022)
        for i in range(6):
            pen.rect(wood, i / 5 - 0.018, horizon + 0.02, i / 5 + 0.018, horizon + 0.2)


def draw_animal(pen: Pen, coat: Color, mane: Color, stripes: Color | None = None) -> None:
    """A horse, or with stripes a zebra; faces right."""
    far, hoof = darker(coat, 0.22), (58, 48, 44)
    for x, shade in ((0.22, far), (0.62, far), (0.11, coat), (0.53, coat)):
        pen.poly(shade, (x - 0.01, 0.5), (x + 0.14, 0.5), (x + 0.1, 0.7), (x + 0.085, 0.97), (x + 0.01, 0.97),
                 (x + 0.015, 0.7))  # fmt: skip
        if stripes and shade is coat:
            for y in (0.66, 0.74, 0.82, 0.9):
                pen.line(stripes, 0.018, (x + 0.02, y), (x + 0.085, y))
        pen.rect(hoof, x + 0.005, 0.94, x + 0.095, 1)
    pen.line(mane, 0.05, (0.1, 0.36), (0.03, 0.46), (0.04, 0.68))
    pen.rect(coat, 0.07, 0.31, 0.72, 0.58, 0.11)
    pen.oval(coat, 0.06, 0.28, 0.34, 0.6)
    pen.oval(coat, 0.48, 0.3, 0.74, 0.62)
    pen.poly(coat, (0.5, 0.34), (0.69, 0.08), (0.84, 0.12), (0.75, 0.5), (0.64, 0.56))
    pen.poly(coat, (0.7, 0.06), (0.82, 0.03), (0.98, 0.22), (0.96, 0.31), (0.88, 0.31), (0.74, 0.24))
    pen.disc(coat, 0.93, 0.26, 0.05)
    pen.poly(coat, (0.72, 0.08), (0.73, 0), (0.79, 0.06))
    pen.poly(darker(coat, 0.14), (0.28, 0.54), (0.54, 0.54), (0.5, 0.585), (0.32, 0.585))
    if stripes:
        for i in range(6):
            x = 0.14 + 0.088 * i
            pen.line(stripes, 0.026, (x, 0.32), (x + 0.02, 0.44), (x, 0.55))
        for t in (0.12, 0.4, 0.68):
            pen.line(stripes, 0.024, (0.68 - 0.15 * t, 0.12 + 0.26 * t), (0.81 - 0.09 * t, 0.2 + 0.28 * t))
        pen.line(stripes, 0.018, (0.82, 0.08), (0.8, 0.2))
        pen.line(stripes, 0.018, (0.88, 0.14), (0.85, 0.25))
    pen.line(mane, 0.055, (0.7, 0.05), (0.62, 0.17), (0.53, 0.32))
    pen.disc((50, 46, 50) if stripes else (90, 70, 66), 0.96, 0.275, 0.032)
    pen.disc((20, 20, 24) if sum(coat) > 150 else (230, 230, 230), 0.83, 0.125, 0.018)
