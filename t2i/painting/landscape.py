"""Landscapes: the sky at a time of day, what stands on the horizon, grass; and how light colours them."""

from random import Random as Rng
from typing import Any

from t2i.painting.pen import Color, Pen, darker, jitter, lighter, mixed

TINT: dict[str, tuple[Color, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((210, 100, 60), 0.22),
    "cloudy": ((150, 155, 162), 0.25),
    "night": ((14, 22, 58), 0.55),
}

SKY: dict[str, tuple[Color, Color]] = {
    "day": ((64, 148, 236), (190, 226, 250)),
    "sunset": ((120, 92, 160), (255, 176, 96)),
    "cloudy": ((146, 156, 168), (206, 212, 218)),
    "night": ((12, 16, 52), (48, 58, 108)),
}


def lit(color: Color, time: str) -> Color:
    """A background colour in the light of the time of day; subjects keep their own colour at all times."""
    return mixed(color, *TINT[time])


def draw_sky(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    time = ground["time"]
    pen.fade(*SKY[time], 0, horizon)
    x = rng.uniform(0.1, 0.9)
    if time == "sunset":
        pen.disc((255, 226, 140), x, horizon - rng.uniform(0.02, 0.12), 0.09)
    elif time == "night":
        for _ in range(14):
            pen.disc((220, 225, 245), rng.random(), rng.uniform(0, horizon), 0.006)
        y = rng.uniform(0.1, 0.18)
        pen.disc((240, 238, 210), x, y, 0.065)
        behind = mixed(*SKY[time], min(1, max(0, 2 * (y - 0.015) / horizon - 0.5)))  # as Pen.fade has it there
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


def draw_horizon(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    """What stands on the horizon."""
    time, what = ground["time"], ground.get("around", "nothing")
    if what == "trees":
        n = rng.randint(4, 6)
        for i in range(n):
            x, s = (i + rng.uniform(0.2, 0.8)) / n, rng.uniform(0.8, 1.2)
            green = lit(jitter(rng, (36, 104, 52), 12), time)
            pen.rect(lit((92, 64, 40), time), x - 0.012, horizon - 0.1 * s, x + 0.012, horizon + 0.02)
            pen.disc(green, x, horizon - 0.17 * s, 0.095 * s)
            pen.disc(lighter(green, 0.12), x - 0.02, horizon - 0.2 * s, 0.055 * s)
    elif what == "buildings":
        x = rng.uniform(-0.08, 0)
        while x < 1:
            w, h = rng.uniform(0.13, 0.22), rng.uniform(0.2, 0.42)
            wall = lit(jitter(rng, rng.choice(((176, 164, 150), (148, 150, 160), (168, 134, 118))), 10), time)
            pen.rect(wall, x, horizon - h, x + w - 0.01, horizon)
            glass = (250, 220, 130) if time == "night" else darker(wall, 0.32)
            for row in range(int(h / 0.075)):
                for k in range(3):
                    wx, wy = x + w * (0.12 + 0.28 * k), horizon - h + 0.025 + 0.075 * row
                    if time != "night" or rng.random() < 0.6:
                        pen.rect(glass, wx, wy, wx + 0.035, wy + 0.04)
            x += w
    elif what == "hills":
        for x, r in ((rng.uniform(0, 0.4), 0.42), (rng.uniform(0.6, 1), 0.36), (rng.uniform(0.3, 0.7), 0.3)):
            pen.oval(lit(jitter(rng, (98, 152, 92)), time), x - r, horizon - 0.42 * r, x + r, horizon + 0.42 * r)
    elif what == "mountains":
        draw_mountains(pen, rng, time, horizon, (112, 120, 140))


def draw_mountains(pen: Pen, rng: Rng, time: str, horizon: float, rock: Color) -> None:
    for x in (rng.uniform(0, 0.25), rng.uniform(0.75, 1), rng.uniform(0.4, 0.6)):
        h, w = rng.uniform(0.24, 0.4), rng.uniform(0.26, 0.36)
        stone = lit(jitter(rng, rock), time)
        pen.poly(stone, (x - w, horizon), (x, horizon - h), (x + w, horizon))
        pen.poly(darker(stone, 0.15), (x, horizon - h), (x + w, horizon), (x + 0.1 * w, horizon))
        snow = lit((246, 248, 252), time)
        pen.poly(snow, (x, horizon - h), (x - 0.34 * w, horizon - 0.66 * h), (x - 0.1 * w, horizon - 0.74 * h),
                 (x + 0.08 * w, horizon - 0.64 * h), (x + 0.34 * w, horizon - 0.66 * h))  # fmt: skip


def draw_grass(pen: Pen, rng: Rng, time: str, top: float) -> None:
    green = lit(jitter(rng, (110, 176, 74), 10), time)
    pen.fade(lighter(green, 0.1), darker(green, 0.18), top, 1)
    for _ in range(10):
        x, y = rng.random(), rng.uniform(top + 0.05, 0.98)
        pen.line(darker(green, 0.25), 0.008, (x, y), (x + 0.012, y - 0.035))


def draw_landscape(pen: Pen, rng: Rng, ground: dict[str, Any], horizon: float) -> None:
    """Sky, what stands on the horizon, and grass below."""
    draw_sky(pen, rng, ground, horizon)
    draw_horizon(pen, rng, ground, horizon)
    draw_grass(pen, rng, ground["time"], horizon)
