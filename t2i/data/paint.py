"""How the scenes look: a plan (see t2i/data/scenes.py) becomes a picture, with PIL's polygons and ovals.

Coordinates run from 0 to 1 over the picture, or over the box of the object being drawn; y points down.
Every object is drawn facing right and mirrored where it faces left.
"""

import math
from collections.abc import Sequence
from random import Random as Rng
from typing import Any

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Plan = dict[str, Any]

PALETTE: dict[str, Color] = {
    "red": (212, 32, 36),
    "orange": (248, 132, 22),
    "yellow": (250, 214, 40),
    "green": (38, 158, 66),
    "blue": (38, 92, 214),
    "purple": (128, 52, 176),
    "pink": (246, 130, 184),
    "white": (242, 242, 242),
    "black": (34, 34, 40),
    "brown": (122, 70, 34),
}


def _mix(a: Color, b: Color, t: float) -> Color:
    return (round(a[0] + (b[0] - a[0]) * t), round(a[1] + (b[1] - a[1]) * t), round(a[2] + (b[2] - a[2]) * t))


def _dark(c: Color, t: float = 0.3) -> Color:
    return _mix(c, (0, 0, 0), t) if sum(c) > 150 else _mix(c, (255, 255, 255), t / 2.5)  # black things show edges too


def _light(c: Color, t: float = 0.3) -> Color:
    return _mix(c, (255, 255, 255), t)


def _jitter(rng: Rng, c: Color, by: int = 8) -> Color:
    r, g, b = (min(255, max(0, v + rng.randint(-by, by))) for v in c)
    return (r, g, b)


class Pen:
    """Draws in a frame whose corners are (0, 0) and (1, 1); mirrored, x runs from right to left."""

    def __init__(self, image: Image.Image, box: Sequence[float] = (0, 0, 1, 1), mirror: bool = False):
        self.image, self.side, self.mirror = image, image.width, mirror
        self.x, self.y, self.w, self.h = (v * self.side for v in box)
        self.draw = ImageDraw.Draw(image)

    def inside(self, box: Sequence[float], mirror: bool = False) -> "Pen":
        """A pen for a box of the whole picture."""
        return Pen(self.image, box, mirror)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + self.w * (1 - x if self.mirror else x), self.y + self.h * y

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
        return min(a, c), b, max(a, c), d

    def poly(self, fill: Color, *points: tuple[float, float]) -> None:
        self.draw.polygon([self.at(*p) for p in points], fill)

    def rect(self, fill: Color, x0: float, y0: float, x1: float, y1: float, round: float = 0) -> None:
        """round: radius of the corners in frame widths."""
        if round:
            self.draw.rounded_rectangle(self._corners(x0, y0, x1, y1), round * self.w, fill)
        else:
            self.draw.rectangle(self._corners(x0, y0, x1, y1), fill)

    def oval(self, fill: Color, x0: float, y0: float, x1: float, y1: float) -> None:
        self.draw.ellipse(self._corners(x0, y0, x1, y1), fill)

    def disc(self, fill: Color, x: float, y: float, r: float) -> None:
        """r: radius in frame widths; round whatever the frame's shape."""
        (a, b), s = self.at(x, y), r * self.w
        self.draw.ellipse((a - s, b - s, a + s, b + s), fill)

    def line(self, fill: Color, width: float, *points: tuple[float, float]) -> None:
        """width in frame widths; ends and joints are round."""
        thick = max(1, round(width * self.w))
        dots = [self.at(*p) for p in points]
        self.draw.line(dots, fill, thick)
        for a, b in dots if thick > 2 else ():
            r = thick / 2 - 0.5
            self.draw.ellipse((a - r, b - r, a + r, b + r), fill)

    def fade(self, top: Color, bottom: Color, y0: float, y1: float) -> None:
        """A vertical gradient over the whole width."""
        strip = Image.new("RGB", (1, 2))
        strip.putpixel((0, 0), top)
        strip.putpixel((0, 1), bottom)
        a, b = int(self.y + self.h * y0), int(self.y + self.h * y1 + 0.999)
        fade = strip.resize((1, max(1, b - a)), Image.Resampling.BILINEAR).resize((int(self.w), max(1, b - a)))
        self.image.paste(fade, (int(self.x), a))


_TINT: dict[str, tuple[Color, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((210, 100, 60), 0.22),
    "cloudy": ((150, 155, 162), 0.25),
    "night": ((14, 22, 58), 0.55),
}
_SKY: dict[str, tuple[Color, Color]] = {
    "day": ((64, 148, 236), (190, 226, 250)),
    "sunset": ((120, 92, 160), (255, 176, 96)),
    "cloudy": ((146, 156, 168), (206, 212, 218)),
    "night": ((12, 16, 52), (48, 58, 108)),
}


def _lit(color: Color, time: str) -> Color:
    """A background colour in the light of the time of day; subjects keep their own colour at all times."""
    return _mix(color, *_TINT[time])


def _sky(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    time = ground["time"]
    pen.fade(*_SKY[time], 0, horizon)
    x = rng.uniform(0.1, 0.9)
    if time == "sunset":
        pen.disc((255, 226, 140), x, horizon - rng.uniform(0.02, 0.12), 0.09)
    elif time == "night":
        for _ in range(14):
            pen.disc((220, 225, 245), rng.random(), rng.uniform(0, horizon), 0.006)
        y = rng.uniform(0.1, 0.18)
        pen.disc((240, 238, 210), x, y, 0.065)
        behind = _mix(*_SKY[time], min(1, max(0, 2 * (y - 0.015) / horizon - 0.5)))  # as Pen.fade has it there
        pen.disc(behind, x + 0.03, y - 0.015, 0.055)
    elif time == "day" and not ground["clouds"]:
        pen.disc((255, 240, 150), x, rng.uniform(0.09, 0.15), 0.07)
    if time == "cloudy" or ground["clouds"]:
        white = (252, 252, 254) if time == "day" else (176, 182, 190)
        for i in range(rng.randint(2, 3)):
            cx, cy, r = (i + rng.uniform(0.1, 0.9)) / 3, rng.uniform(0.06, 0.22), rng.uniform(0.045, 0.065)
            pen.rect(white, cx - 2 * r, cy, cx + 2 * r, cy + r, r)
            pen.disc(white, cx - 0.6 * r, cy, r)
            pen.disc(white, cx + 0.7 * r, cy + 0.1 * r, 0.8 * r)


def _around(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    """What stands on the horizon."""
    time, what = ground["time"], ground.get("around", "nothing")
    if what == "trees":
        n = rng.randint(4, 6)
        for i in range(n):
            x, s = (i + rng.uniform(0.2, 0.8)) / n, rng.uniform(0.8, 1.2)
            green = _lit(_jitter(rng, (36, 104, 52), 12), time)
            pen.rect(_lit((92, 64, 40), time), x - 0.012, horizon - 0.1 * s, x + 0.012, horizon + 0.02)
            pen.disc(green, x, horizon - 0.17 * s, 0.095 * s)
            pen.disc(_light(green, 0.12), x - 0.02, horizon - 0.2 * s, 0.055 * s)
    elif what == "buildings":
        x = rng.uniform(-0.08, 0)
        while x < 1:
            w, h = rng.uniform(0.13, 0.22), rng.uniform(0.2, 0.42)
            wall = _lit(_jitter(rng, rng.choice(((176, 164, 150), (148, 150, 160), (168, 134, 118))), 10), time)
            pen.rect(wall, x, horizon - h, x + w - 0.01, horizon)
            glass = (250, 220, 130) if time == "night" else _dark(wall, 0.32)
            for row in range(int(h / 0.075)):
                for k in range(3):
                    wx, wy = x + w * (0.12 + 0.28 * k), horizon - h + 0.025 + 0.075 * row
                    if time != "night" or rng.random() < 0.6:
                        pen.rect(glass, wx, wy, wx + 0.035, wy + 0.04)
            x += w
    elif what == "hills":
        for x, r in ((rng.uniform(0, 0.4), 0.42), (rng.uniform(0.6, 1), 0.36), (rng.uniform(0.3, 0.7), 0.3)):
            pen.oval(_lit(_jitter(rng, (98, 152, 92)), time), x - r, horizon - 0.42 * r, x + r, horizon + 0.42 * r)
    elif what == "mountains":
        _mountains(pen, rng, time, horizon, (112, 120, 140))


def _mountains(pen: Pen, rng: Rng, time: str, horizon: float, rock: Color) -> None:
    for x in (rng.uniform(0, 0.25), rng.uniform(0.75, 1), rng.uniform(0.4, 0.6)):
        h, w = rng.uniform(0.24, 0.4), rng.uniform(0.26, 0.36)
        stone = _lit(_jitter(rng, rock), time)
        pen.poly(stone, (x - w, horizon), (x, horizon - h), (x + w, horizon))
        pen.poly(_dark(stone, 0.15), (x, horizon - h), (x + w, horizon), (x + 0.1 * w, horizon))
        snow = _lit((246, 248, 252), time)
        pen.poly(snow, (x, horizon - h), (x - 0.34 * w, horizon - 0.66 * h), (x - 0.1 * w, horizon - 0.74 * h),
                 (x + 0.08 * w, horizon - 0.64 * h), (x + 0.34 * w, horizon - 0.66 * h))  # fmt: skip


def _grass(pen: Pen, rng: Rng, time: str, top: float) -> None:
    green = _lit(_jitter(rng, (110, 176, 74), 10), time)
    pen.fade(_light(green, 0.1), _dark(green, 0.18), top, 1)
    for _ in range(10):
        x, y = rng.random(), rng.uniform(top + 0.05, 0.98)
        pen.line(_dark(green, 0.25), 0.008, (x, y), (x + 0.012, y - 0.035))


def _landscape(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    """Sky, what stands on the horizon, and grass below."""
    _sky(pen, rng, ground, horizon)
    _around(pen, rng, ground, horizon)
    _grass(pen, rng, ground["time"], horizon)


def _wheel(pen: Pen, x: float, y: float, r: float) -> None:
    pen.disc((30, 30, 34), x, y, r)
    pen.disc((188, 190, 196), x, y, 0.55 * r)
    pen.disc((90, 92, 98), x, y, 0.2 * r)


def _glass(time: str) -> Color:
    return (255, 226, 140) if time == "night" else (176, 216, 240)


def _train(pen: Pen, color: Color, time: str) -> None:
    """Faces right: two cars and an engine with a sloping nose."""
    dark, glass = _dark(color, 0.35), _glass(time)
    for x in (0.08, 0.2, 0.42, 0.54, 0.76, 0.9):
        _wheel(pen, x, 0.91, 0.036)
    for x0, x1 in ((0, 0.31), (0.34, 0.65)):
        pen.rect(color, x0, 0.14, x1, 0.84, 0.02)
        pen.rect(dark, x0, 0.68, x1, 0.86, 0.01)
        pen.rect(_light(color, 0.35), x0 + 0.02, 0.14, x1 - 0.02, 0.2)
        for i in range(3):
            pen.rect(glass, x0 + 0.035 + 0.09 * i, 0.3, x0 + 0.1 + 0.09 * i, 0.52, 0.012)
    pen.rect((70, 70, 76), 0.3, 0.66, 0.7, 0.76)
    pen.poly(color, (0.68, 0.08), (0.84, 0.08), (0.93, 0.4), (1, 0.6), (1, 0.84), (0.68, 0.84))
    pen.poly(dark, (0.68, 0.68), (1, 0.68), (1, 0.87), (0.68, 0.87))
    pen.rect(_light(color, 0.35), 0.69, 0.08, 0.83, 0.14)
    pen.poly(glass, (0.82, 0.2), (0.86, 0.2), (0.91, 0.42), (0.82, 0.42))
    pen.rect(glass, 0.71, 0.22, 0.79, 0.42, 0.012)
    pen.disc((255, 244, 190), 0.965, 0.62, 0.02)


def _bus(pen: Pen, color: Color, time: str, double: bool) -> None:
    """Faces right."""
    glass, dark = _glass(time), _dark(color, 0.3)
    pen.rect(color, 0, 0.02, 1, 0.9, 0.06)
    pen.rect(dark, 0.005, 0.76, 0.995, 0.9, 0.03)
    pen.rect(_light(color, 0.4), 0.05, 0.035, 0.95, 0.075)
    rows = ((0.13, 0.33), (0.46, 0.66)) if double else ((0.16, 0.46),)
    for y0, y1 in rows:
        for i in range(5):
            pen.rect(glass, 0.04 + 0.155 * i, y0, 0.165 + 0.155 * i, y1, 0.015)
        pen.rect(_light(glass, 0.3), 0.85, y0, 0.985, y1 + 0.04, 0.02)
    y = rows[-1][0]
    pen.rect(dark, 0.655, y - 0.02, 0.79, 0.88, 0.01)
    pen.rect(glass, 0.67, y, 0.72, 0.8)
    pen.rect(glass, 0.73, y, 0.78, 0.8)
    pen.disc((255, 240, 180), 0.97, 0.72, 0.022)
    for x in (0.2, 0.88):
        _wheel(pen, x, 0.89, 0.082 if not double else 0.08)


def _car(pen: Pen, color: Color, time: str) -> None:
    """Faces right."""
    glass, dark = _glass(time), _dark(color, 0.3)
    pen.poly(color, (0.16, 0.42), (0.3, 0.04), (0.62, 0.02), (0.78, 0.42))
    pen.oval(color, 0.27, 0.0, 0.65, 0.2)
    pen.rect(color, 0, 0.38, 1, 0.82, 0.11)
    pen.rect(color, 0.0, 0.5, 0.5, 0.82, 0.04)
    pen.rect(dark, 0.02, 0.68, 0.98, 0.84, 0.04)
    pen.rect(_light(color, 0.35), 0.1, 0.41, 0.9, 0.46)
    pen.poly(glass, (0.23, 0.4), (0.33, 0.13), (0.46, 0.12), (0.46, 0.4))
    pen.poly(glass, (0.5, 0.4), (0.5, 0.12), (0.6, 0.12), (0.71, 0.4))
    pen.line(dark, 0.01, (0.48, 0.42), (0.48, 0.7))
    pen.rect(dark, 0.52, 0.5, 0.58, 0.54)
    pen.disc((255, 244, 190), 0.955, 0.54, 0.032)
    pen.rect((150, 20, 20), 0.0, 0.48, 0.035, 0.6)
    for x in (0.22, 0.77):
        pen.disc(dark, x, 0.8, 0.105)
        _wheel(pen, x, 0.82, 0.088)


def _boat(pen: Pen, color: Color, time: str, sail: bool) -> None:
    """Faces right."""
    dark = _dark(color, 0.3)
    if sail:
        top = 0.7
        pen.line((110, 80, 52), 0.03, (0.46, 0.02), (0.46, top))
        cloth = (248, 246, 238)
        pen.poly(cloth, (0.5, 0.04), (0.5, 0.64), (0.92, 0.64))
        pen.poly(_dark(cloth, 0.1), (0.42, 0.1), (0.42, 0.64), (0.1, 0.64))
        pen.poly(color, (0.5, 0.36), (0.5, 0.5), (0.822, 0.5), (0.724, 0.36))
        pen.poly(color, (0.46, 0), (0.46, 0.06), (0.3, 0.03))
    else:
        top = 0.5
        pen.rect((246, 246, 246), 0.2, 0.14, 0.66, 0.54, 0.03)
        pen.rect((206, 208, 214), 0.16, 0.1, 0.7, 0.18, 0.02)
        for i in range(3):
            pen.rect(_glass(time), 0.25 + 0.14 * i, 0.24, 0.34 + 0.14 * i, 0.4)
        pen.rect(color, 0.28, 0, 0.4, 0.1)
    pen.poly(color, (0, top), (1, top - 0.03), (0.84, 1), (0.14, 1))
    pen.poly(dark, (0.09, top + (1 - top) * 0.65), (0.893, top + (1 - top) * 0.65), (0.84, 1), (0.14, 1))
    stripe = (250, 250, 250) if sum(color) < 680 else (120, 130, 150)
    pen.poly(stripe, (0.02, top + 0.05), (0.985, top + 0.03), (0.975, top + 0.07), (0.035, top + 0.09))


def _skier(pen: Pen, color: Color) -> None:
    """Faces right, on skis that lie along the frame's bottom."""
    legs, skin = (52, 58, 84), (240, 196, 160)
    pen.line((60, 62, 70), 0.03, (0.02, 0.9), (0.9, 1.0), (0.98, 0.96))
    pen.line((90, 92, 100), 0.03, (0.08, 0.87), (0.94, 0.965), (0.99, 0.92))
    pen.line((70, 70, 76), 0.022, (0.72, 0.48), (0.92, 0.9))
    pen.line((70, 70, 76), 0.022, (0.3, 0.5), (0.06, 0.8))
    pen.line(legs, 0.14, (0.4, 0.56), (0.54, 0.74), (0.42, 0.92))
    pen.line(_dark(legs, 0.25), 0.13, (0.42, 0.56), (0.64, 0.74), (0.56, 0.92))
    pen.line(_dark(color, 0.2), 0.13, (0.46, 0.32), (0.32, 0.5))
    pen.poly(color, (0.32, 0.26), (0.58, 0.2), (0.66, 0.34), (0.56, 0.62), (0.28, 0.6))
    pen.disc(color, 0.47, 0.29, 0.16)
    pen.disc(color, 0.42, 0.54, 0.14)
    pen.line(_light(color, 0.18), 0.12, (0.54, 0.32), (0.62, 0.46), (0.74, 0.48))
    pen.disc(skin, 0.75, 0.48, 0.045)
    pen.disc(skin, 0.6, 0.13, 0.115)
    pen.draw.pieslice(pen._corners(0.47, 0.0, 0.72, 0.235), 180, 360, color)
    pen.rect((40, 40, 46), 0.62, 0.1, 0.73, 0.15, 0.02)


def _animal(pen: Pen, coat: Color, mane: Color, stripes: Color | None = None) -> None:
    """A horse, or with stripes a zebra; faces right."""
    far, hoof = _dark(coat, 0.22), (58, 48, 44)
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
    pen.poly(_dark(coat, 0.14), (0.28, 0.54), (0.54, 0.54), (0.5, 0.585), (0.32, 0.585))
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


def _couch(pen: Pen, color: Color) -> None:
    dark, light = _dark(color, 0.28), _light(color, 0.14)
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


def _television(pen: Pen) -> None:
    """On its stand."""
    wood, frame = (120, 84, 54), (24, 24, 28)
    pen.rect(wood, 0.06, 0.62, 0.94, 1, 0.02)
    pen.rect(_dark(wood, 0.25), 0.12, 0.7, 0.48, 0.94)
    pen.rect(_dark(wood, 0.25), 0.52, 0.7, 0.88, 0.94)
    pen.rect(frame, 0.42, 0.5, 0.58, 0.63)
    pen.rect(frame, 0, 0, 1, 0.56, 0.03)
    pen.rect((84, 128, 168), 0.05, 0.04, 0.95, 0.5)
    pen.poly((136, 176, 206), (0.12, 0.04), (0.42, 0.04), (0.2, 0.5), (0.05, 0.5), (0.05, 0.2))


def _table(pen: Pen, color: Color) -> None:
    for x in (0.08, 0.86):
        pen.rect(_dark(color, 0.3), x, 0.2, x + 0.06, 1)
    pen.poly(_light(color, 0.12), (0.1, 0), (0.9, 0), (1, 0.26), (0, 0.26))
    pen.rect(_dark(color, 0.22), 0, 0.26, 1, 0.4)


def _apple(pen: Pen, color: Color) -> None:
    dark = _dark(color, 0.22)
    pen.oval(dark, 0.04, 0.14, 0.96, 1)
    pen.disc(color, 0.31, 0.45, 0.29)
    pen.disc(color, 0.67, 0.45, 0.29)
    pen.oval(color, 0.06, 0.2, 0.92, 0.95)
    pen.oval(dark, 0.38, 0.18, 0.62, 0.28)
    pen.line((96, 62, 34), 0.06, (0.5, 0.24), (0.55, 0.05))
    pen.oval((70, 150, 60), 0.54, 0.0, 0.84, 0.14)
    pen.oval(_light(color, 0.45), 0.18, 0.32, 0.34, 0.54)


def _orange(pen: Pen, color: Color) -> None:
    """The fruit has its own colour."""
    pen.disc((214, 106, 10), 0.5, 0.52, 0.47)
    pen.disc((250, 146, 30), 0.48, 0.5, 0.44)
    pen.oval((255, 196, 116), 0.2, 0.2, 0.4, 0.38)
    for x, y in ((0.6, 0.36), (0.72, 0.5), (0.5, 0.62), (0.36, 0.76), (0.66, 0.74), (0.3, 0.54)):
        pen.disc((224, 120, 16), x, y, 0.022)
    pen.disc((86, 124, 50), 0.5, 0.1, 0.06)


def _banana(pen: Pen, color: Color) -> None:
    there, back = _span(0.02, math.pi - 0.02, 14), _span(math.pi - 0.02, 0.02, 14)
    outer = [(0.5 - 0.48 * math.cos(t), 0.12 + 0.84 * math.sin(t)) for t in there]
    inner = [(0.5 - 0.43 * math.cos(t), 0.1 + 0.38 * math.sin(t)) for t in back]
    middle = [(0.5 - 0.46 * math.cos(t), 0.11 + 0.62 * math.sin(t)) for t in back]
    pen.poly(color, *outer, *inner)
    pen.poly(_dark(color, 0.22), *outer, *middle)
    pen.line((92, 66, 30), 0.05, (0.035, 0.16), (0.03, 0.02))
    pen.disc((92, 66, 30), 0.965, 0.14, 0.03)


def _span(a: float, b: float, n: int) -> list[float]:
    return [a + (b - a) * i / (n - 1) for i in range(n)]


def _kite(pen: Pen, color: Color, sway: int) -> None:
    """A diamond with a tail that leaves its frame at the bottom; sway (±1): to which side the tail blows."""
    tail = [(0.5 + sway * 0.14 * math.sin(t * 5), 1 + 0.42 * t) for t in _span(0, 1, 9)]
    pen.line((245, 245, 245), 0.025, *tail)
    for x, y in tail[2::3]:
        pen.poly(_light(color, 0.2), (x - 0.09, y - 0.05), (x - 0.09, y + 0.05), (x, y))
        pen.poly(_light(color, 0.2), (x + 0.09, y - 0.05), (x + 0.09, y + 0.05), (x, y))
    pen.poly(color, (0.5, 0), (1, 0.38), (0.5, 1), (0, 0.38))
    pen.poly(_dark(color, 0.22), (0.5, 0.38), (1, 0.38), (0.5, 1))
    pen.poly(_light(color, 0.22), (0.5, 0), (0.5, 0.38), (0, 0.38))
    pen.line(_dark(color, 0.5), 0.018, (0.5, 0.01), (0.5, 0.99))
    pen.line(_dark(color, 0.5), 0.018, (0.01, 0.38), (0.99, 0.38))


def _umbrella(pen: Pen, color: Color) -> None:
    """Canopy in the upper half of the frame, its pole down to the bottom."""
    pen.line((236, 232, 224), 0.03, (0.5, 0.05), (0.5, 0.99))
    edge = 0.5
    pen.draw.pieslice(pen._corners(0, 0.04, 1, 0.04 + 2 * (edge - 0.04)), 180, 360, color)
    panel = _light(color, 0.25) if sum(color) < 650 else _dark(color, 0.13)
    pen.draw.pieslice(pen._corners(0.34, 0.04, 0.66, 0.04 + 2 * (edge - 0.04)), 180, 360, panel)
    for t in (0.19, 0.81):
        pen.line(_dark(color, 0.25), 0.014, (0.5, 0.06), (0.5 + (t - 0.5) * 0.72, 0.2), (t, edge - 0.01))
    for i in range(5):
        x = 0.2 * i
        pen.oval(panel if i == 2 else color, x, edge - 0.06, x + 0.2, edge + 0.06)
    pen.disc(_dark(color, 0.3), 0.5, 0.035, 0.025)


# One function a scene: (pen of the whole picture, random stream, plan, the subject's colour, a pen for each subject).


def _tracks(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    time, (_, y, _, h) = plan["background"]["time"], plan["objects"][0]["box"]
    base = y + h
    _landscape(pen, rng, plan["background"], base - 0.2)
    pen.rect(_lit((150, 138, 124), time), 0, base - 0.03, 1, base + 0.07)
    for i in range(12):
        x, wood = i / 12 + 0.02, _lit((96, 70, 50), time)
        low = base + 0.06
        pen.poly(wood, (x, base - 0.01), (x + 0.035, base - 0.01), (x + 0.03, low), (x - 0.015, low))
    for rail in (base - 0.012, base + 0.034):
        pen.rect(_lit((84, 86, 94), time), 0, rail, 1, rail + 0.016)
    _train(frames[0], color, time)


def _road(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    subject, time = plan["objects"][0], plan["background"]["time"]
    x, y, w, h = subject["box"]
    base = y + h
    _landscape(pen, rng, plan["background"], base - 0.16)
    road = _lit(_jitter(rng, (104, 104, 110)), time)
    pen.rect(_light(road, 0.4), 0, base - 0.09, 1, base - 0.06)
    pen.fade(_light(road, 0.06), _dark(road, 0.15), base - 0.065, 1)
    for i in range(4):
        dash = i / 3.4 + rng.uniform(-0.01, 0.01)
        pen.rect((232, 226, 190), dash, base + 0.05, dash + 0.13, base + 0.068)
    pen.oval(_dark(road, 0.4), x + 0.02, base - 0.03, x + w - 0.02, base + 0.025)
    if subject["name"] == "bus":
        _bus(frames[0], color, time, subject["kind"] == "double decker")
    else:
        _car(frames[0], color, time)


def _water(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    subject, ground = plan["objects"][0], plan["background"]
    time, (x, y, w, h) = ground["time"], subject["box"]
    base = y + h
    horizon = base - rng.uniform(0.2, 0.28)
    _sky(pen, rng, ground, horizon)
    _around(pen, rng, ground, horizon)
    water = _lit(_jitter(rng, rng.choice(((44, 132, 186), (36, 150, 160)))), time)
    pen.fade(_light(water, 0.2), _dark(water, 0.2), horizon, 1)
    for _ in range(9):
        u, v = rng.uniform(-0.1, 1), rng.uniform(horizon + 0.03, 0.97)
        pen.line(_light(water, 0.3), 0.008, (u, v), (u + 0.05, v - 0.012), (u + 0.1, v))
    _boat(frames[0], color, time, subject["kind"] == "sailboat")
    for i in range(5):  # waves wash the hull's foot
        u = x + w * (0.1 + 0.19 * i)
        pen.oval(_light(water, 0.45), u - 0.06, base - 0.018, u + 0.06, base + 0.024)
        pen.oval(water, u - 0.06, base - 0.004, u + 0.06, base + 0.038)


def _mountain(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    ground, (_, y, _, h) = plan["background"], plan["objects"][0]["box"]
    time, base = ground["time"], y + h
    _sky(pen, rng, ground, 0.62)
    _mountains(pen, rng, time, 0.62, (122, 134, 160))
    snow = _lit((240, 244, 250), time) if time != "night" else (150, 162, 196)
    pen.rect(_dark(snow, 0.14), 0, 0.6, 1, 1)
    left, right = (base - 0.1, base - 0.36) if frames[0].mirror else (base - 0.36, base - 0.1)
    for i in range(5 if ground["around"] == "trees" else 0):
        x = (i + rng.uniform(0.2, 0.8)) / 5
        foot, s, pine = left + (right - left) * x + 0.02, rng.uniform(0.8, 1.15), _lit(_jitter(rng, (28, 84, 62)), time)
        for k in range(3):
            half, low = (0.045 + 0.02 * k) * s, foot - (0.17 - 0.08 * k) * s
            pen.poly(pine, (x, foot - (0.3 - 0.07 * k) * s), (x - half, low), (x + half, low))
    pen.poly(snow, (0, left), (1, right), (1, 1), (0, 1))
    for _ in range(3):
        x, v = rng.uniform(0, 0.8), rng.uniform(0.85, 0.98)
        pen.line(_dark(snow, 0.1), 0.01, (x, v), (x + 0.2, v + (right - left) * 0.2))
    _skier(frames[0], color)


def _field(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    subject, ground = plan["objects"][0], plan["background"]
    time, horizon = ground["time"], rng.uniform(0.5, 0.58)
    _landscape(pen, rng, ground, horizon)
    for (x, y, w, h), frame in sorted(zip(subject["boxes"], frames), key=lambda pair: pair[0][1]):  # the farther first
        pen.oval(_lit((70, 120, 50), time), x, y + h - 0.025, x + 0.8 * w, y + h + 0.02)
        if subject["name"] == "zebra":
            _animal(frame, (246, 244, 238), (30, 28, 30), stripes=(30, 28, 30))
        else:
            mane = {"brown": (52, 30, 18), "white": (208, 202, 190), "black": (12, 12, 14)}[subject["color"]]
            _animal(frame, color, mane)
    if ground["around"] == "fence":
        wood = _lit((156, 116, 76), time)
        for y in (horizon + 0.06, horizon + 0.13):
            pen.rect(wood, 0, y, 1, y + 0.022)
        for i in range(6):
            pen.rect(wood, i / 5 - 0.018, horizon + 0.02, i / 5 + 0.018, horizon + 0.2)


def _living_room(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    ground, (x, y, w, h) = plan["background"], plan["objects"][0]["box"]
    things = {thing["name"]: thing for thing in plan["objects"][1:]}
    tints = {"white": (236, 234, 230), "yellow": (244, 228, 168), "green": (186, 216, 182), "blue": (176, 204, 230)}
    wall = _jitter(rng, tints[ground["wall"]], 6)
    floor = _jitter(rng, (178, 132, 88) if ground["floor"] == "wooden" else (176, 168, 164))
    base, middle = y + h, x + w / 2
    edge = base - 0.1
    pen.fade(_light(wall, 0.1), _dark(wall, 0.08), 0, edge)
    pen.fade(_dark(floor, 0.12), floor, edge, 1)
    pen.rect((250, 248, 244), 0, edge - 0.02, 1, edge)
    if ground["floor"] == "wooden":
        for v in (edge + 0.06, edge + 0.14, edge + 0.24):
            pen.line(_dark(floor, 0.22), 0.007, (0, v), (1, v))
    if ground["decor"] == "picture":
        pen.rect((110, 76, 46), middle - 0.15, 0.1, middle + 0.15, 0.34)
        pen.rect((160, 206, 236), middle - 0.125, 0.125, middle + 0.125, 0.315)
        pen.poly((92, 150, 90), (middle - 0.125, 0.315), (middle - 0.03, 0.2), (middle + 0.125, 0.315))
        pen.disc((255, 226, 120), middle + 0.06, 0.17, 0.025)
    elif ground["decor"] == "window":
        pen.rect((252, 252, 250), middle - 0.17, 0.06, middle + 0.17, 0.38)
        for u in (middle - 0.15, middle + 0.01):
            pen.rect(_mix(*_SKY[ground["time"]], 0.5), u, 0.08, u + 0.14, 0.36)
            pen.rect(_lit((96, 160, 80), ground["time"]), u, 0.29, u + 0.14, 0.36)
    elif ground["decor"] == "lamp":
        u = x + (0.1 if x > 1 - x - w else w - 0.1)
        pen.line((90, 84, 80), 0.016, (u, 0.2), (u, edge))
        pen.poly((255, 236, 176), (u - 0.06, 0.1), (u + 0.06, 0.1), (u + 0.1, 0.26), (u - 0.1, 0.26))
    if "television" in things:
        _television(pen.inside(things["television"]["box"]))
    pen.oval(_dark(floor, 0.3), x, base - 0.03, x + w, base + 0.03)
    _couch(frames[0], color)
    if "table" in things:
        _table(pen.inside(things["table"]["box"]), _jitter(rng, PALETTE[things["table"]["color"]]))


def _fruit_plate(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    subject, plate = plan["objects"]
    surface = plan["background"]["surface"]
    colors = {"wooden table": (176, 122, 74), "tablecloth": (216, 204, 226), "counter": (150, 158, 166)}
    base = _jitter(rng, colors[surface])
    pen.fade((206, 212, 206), (226, 228, 220), 0, 0.26)
    pen.fade(_light(base, 0.1), _dark(base, 0.12), 0.24, 1)
    if surface == "wooden table":
        for v in (0.36, 0.52, 0.7, 0.9):
            pen.line(_dark(base, 0.2), 0.01, (0, v), (1, v))
    elif surface == "tablecloth":
        for i in range(5):
            pen.rect(_dark(base, 0.1), 0.04 + 0.22 * i, 0.245, 0.12 + 0.22 * i, 1)
    x, y, w, h = plate["box"]
    china = _jitter(rng, PALETTE[plate["color"]], 6)
    pen.oval(_dark(base, 0.4), x + 0.02, y + 0.05, x + w - 0.02, y + h + 0.05)
    pen.oval(_dark(china, 0.2), x, y + 0.02, x + w, y + h + 0.02)
    pen.oval(china, x, y, x + w, y + h)
    pen.oval(_dark(china, 0.12), x + 0.14 * w, y + 0.14 * h, x + 0.86 * w, y + 0.86 * h)
    pen.oval(_light(china, 0.15), x + 0.15 * w, y + 0.18 * h, x + 0.85 * w, y + 0.86 * h)
    for (x, y, w, h), frame in zip(subject["boxes"], frames):
        pen.oval(_dark(china, 0.4), x + 0.06 * w, y + 0.82 * h, x + w, y + 1.06 * h)
        {"apple": _apple, "orange": _orange, "banana": _banana}[subject["name"]](frame, color)


def _kite_sky(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    ground = plan["background"]
    _landscape(pen, rng, ground, 0.84)
    if ground["person"]:
        x, y = hand = (0.5 + rng.uniform(-0.3, 0.3), 0.78)
        for kite in plan["objects"][0]["boxes"]:
            pen.line((235, 235, 235), 0.006, (kite[0] + kite[2] / 2, kite[1] + 0.4 * kite[3]), hand)
        shirt, trousers = (226, 222, 214), (44, 52, 92)
        pen.line(trousers, 0.03, (x + 0.03, y + 0.09), (x + 0.015, y + 0.17))
        pen.line(trousers, 0.03, (x + 0.045, y + 0.09), (x + 0.06, y + 0.17))
        pen.rect(shirt, x + 0.005, y + 0.01, x + 0.07, y + 0.1, 0.02)
        pen.line(shirt, 0.02, (x + 0.03, y + 0.03), (x, y))
        pen.disc((232, 188, 150), x + 0.037, y - 0.022, 0.03)
    for frame in frames:
        _kite(frame, color, rng.choice((-1, 1)))


def _beach(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    ground, (x, y, w, h) = plan["background"], plan["objects"][0]["box"]
    time, base, shore = ground["time"], y + h, rng.uniform(0.64, 0.7)
    _sky(pen, rng, ground, 0.5)
    water = _lit((40, 140, 190), time)
    pen.fade(_dark(water, 0.1), _light(water, 0.25), 0.5, shore)
    sand = _lit(_jitter(rng, (232, 208, 150)), time)
    pen.fade(_light(sand, 0.1), _dark(sand, 0.12), shore, 1)
    pen.rect(_light(water, 0.6), 0, shore - 0.015, 1, shore + 0.01)
    pen.oval(_dark(sand, 0.25), x + 0.15 * w, base - 0.03, x + 0.85 * w, base + 0.03)
    if ground["chair"]:
        chair = pen.inside((x + 0.52 * w, base - 0.24, 0.32 * w + 0.06, 0.24), mirror=rng.random() < 0.5)
        chair.line((130, 92, 60), 0.07, (0.1, 0.95), (0.3, 0.6), (0.9, 0.95))
        chair.line((246, 244, 240), 0.16, (0.12, 0.1), (0.34, 0.62), (0.92, 0.66))
    _umbrella(frames[0], color)


def _side_by_side(pen: Pen, rng: Rng, plan: Plan, color: Color, frames: list[Pen]) -> None:
    pen.fade((206, 212, 218), (226, 230, 232), 0, 0.6)
    pen.fade((176, 170, 164), (152, 146, 140), 0.6, 1)
    for thing in plan["objects"]:
        (x, y, w, h), color = thing["box"], _jitter(rng, PALETTE[thing["color"]])
        pen.oval((122, 118, 114), x, y + h - 0.02, x + w, y + h + 0.025)
        frame = pen.inside(thing["box"], thing["facing"] == "left")
        if thing["name"] == "car":
            _car(frame, color, "day")
        elif thing["name"] == "bus":
            _bus(frame, color, "day", double=False)
        elif thing["name"] == "boat":
            _boat(frame, color, "day", sail=False)
        else:
            _umbrella(frame, color)


_PAINTERS = {
    "tracks": _tracks,
    "bus road": _road,
    "car road": _road,
    "water": _water,
    "mountain": _mountain,
    "zebra field": _field,
    "horse field": _field,
    "living room": _living_room,
    "fruit plate": _fruit_plate,
    "kite sky": _kite_sky,
    "beach": _beach,
    "side by side": _side_by_side,  # of t2i/data/binding.py
}


def paint(plan: Plan, side: int, rng: Rng) -> Image.Image:
    """The RGB picture of a plan, `side` pixels square; painted at twice that and reduced, so edges are smooth."""
    image = Image.new("RGB", (2 * side, 2 * side))
    color, frames = PALETTE["white"], []
    if plan["objects"]:
        subject = plan["objects"][0]
        color = _jitter(rng, PALETTE[subject["color"]]) if subject["color"] else color
        frames = [Pen(image, box, subject.get("facing") == "left") for box in subject["boxes"]]
    _PAINTERS[plan["scene"]](Pen(image), rng, plan, color, frames)
    return image.reduce(2)
