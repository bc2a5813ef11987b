"""Parts that several things have: wheels and windows."""

from t2i.painting.pen import Color, Pen


def draw_wheel(pen: Pen, x: float, y: float, r: float) -> None:
    pen.disc((30, 30, 34), x, y, r)
    pen.disc((188, 190, 196), x, y, 0.55 * r)
    pen.disc((90, 92, 98), x, y, 0.2 * r)


def glass_color(time: str) -> Color:
    return (255, 226, 140) if time == "night" else (176, 216, 240)
