"""Drawing with PIL's polygons and ovals, in coordinates from 0 to 1 (y points down), and colours."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random as Rng
from typing import Any

from PIL import Image, ImageChops, ImageDraw

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


def mixed(a: Color, b: Color, t: float) -> Color:
    return (round(a[0] + (b[0] - a[0]) * t), round(a[1] + (b[1] - a[1]) * t), round(a[2] + (b[2] - a[2]) * t))


def darker(c: Color, t: float = 0.3) -> Color:
    return mixed(c, (0, 0, 0), t) if sum(c) > 150 else mixed(c, (255, 255, 255), t / 2.5)  # black things show edges too


def lighter(c: Color, t: float = 0.3) -> Color:
    return mixed(c, (255, 255, 255), t)


def jitter(rng: Rng, c: Color, by: int = 8) -> Color:
    r, g, b = (min(255, max(0, v + rng.randint(-by, by))) for v in c)
    return (r, g, b)


def span(a: float, b: float, n: int) -> list[float]:
    """n numbers from a to b, evenly spaced."""
    return [a + (b - a) * i / (n - 1) for i in range(n)]


class Pen:
    """Draws in a frame whose corners are (0, 0) and (1, 1); mirrored, x runs from right to left.

    ink: what everything is drawn in, whatever colour is asked for; None: in that colour.
    """

    def __init__(
        self, image: Image.Image, box: Sequence[float] = (0, 0, 1, 1), mirror: bool = False, ink: Color | None = None
    ):
        self.image, self.side, self.mirror, self.ink = image, image.width, mirror, ink
        self.x, self.y, self.w, self.h = (v * self.side for v in box)
        self.draw = ImageDraw.Draw(image)

    def inside(self, box: Sequence[float], mirror: bool = False) -> "Pen":
        """A pen for a box of the whole picture."""
        return Pen(self.image, box, mirror, self.ink)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + self.w * (1 - x if self.mirror else x), self.y + self.h * y

    def _corners(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        (a, b), (c, d) = self.at(x0, y0), self.at(x1, y1)
        return min(a, c), b, max(a, c), d

    def poly(self, fill: Color, *points: tuple[float, float]) -> None:
        self.draw.polygon([self.at(*p) for p in points], self.ink or fill)

    def rect(self, fill: Color, x0: float, y0: float, x1: float, y1: float, round: float = 0) -> None:
        """round: radius of the corners in frame widths."""
        if round:
            self.draw.rounded_rectangle(self._corners(x0, y0, x1, y1), round * self.w, self.ink or fill)
        else:
            self.draw.rectangle(self._corners(x0, y0, x1, y1), self.ink or fill)

    def oval(self, fill: Color, x0: float, y0: float, x1: float, y1: float) -> None:
        self.draw.ellipse(self._corners(x0, y0, x1, y1), self.ink or fill)

    def dome(self, fill: Color, x0: float, y0: float, x1: float, y1: float) -> None:
        """The upper half of an oval."""
        self.draw.pieslice(self._corners(x0, y0, x1, y1), 180, 360, self.ink or fill)

    def disc(self, fill: Color, x: float, y: float, r: float) -> None:
        """r: radius in frame widths; round whatever the frame's shape."""
        (a, b), s = self.at(x, y), r * self.w
        self.draw.ellipse((a - s, b - s, a + s, b + s), self.ink or fill)

    def line(self, fill: Color, width: float, *points: tuple[float, float]) -> None:
        """width in frame widths; ends and joints are round."""
        thick = max(1, round(width * self.w))
        dots = [self.at(*p) for p in points]
        self.draw.line(dots, self.ink or fill, thick)
        for a, b in dots if thick > 2 else ():
            r = thick / 2 - 0.5
            self.draw.ellipse((a - r, b - r, a + r, b + r), self.ink or fill)

    def fade(self, top: Color, bottom: Color, y0: float, y1: float) -> None:
        """A vertical gradient over the whole width."""
        strip = Image.new("RGB", (1, 2))
        strip.putpixel((0, 0), self.ink or top)
        strip.putpixel((0, 1), self.ink or bottom)
        a, b = int(self.y + self.h * y0), int(self.y + self.h * y1 + 0.999)
        fade = strip.resize((1, max(1, b - a)), Image.Resampling.BILINEAR).resize((int(self.w), max(1, b - a)))
        self.image.paste(fade, (int(self.x), a))


Painter = Callable[[Pen, Rng, Plan, Color, list[Pen]], None]


def paint(plan: Plan, side: int, rng: Rng, scene: Painter, frame: Callable[..., Pen] = Pen) -> Image.Image:
    """The RGB picture of a plan, `side` pixels square; painted at twice that and reduced, so edges are smooth.

    scene paints it with: a pen of the whole picture, the random stream, the plan, the first object's colour, and a
    pen for each of the "boxes" that objects have, mirrored where they face left (everything is drawn facing right).
    frame: (picture, box, mirror) → such a pen; another than Pen shows these objects otherwise, or not at all.
    """
    image = Image.new("RGB", (2 * side, 2 * side))
    color, frames = PALETTE["white"], []
    if plan["objects"]:
        subject = plan["objects"][0]
        color = jitter(rng, PALETTE[subject["color"]]) if subject["color"] else color
    for thing in plan["objects"]:
        frames += [frame(image, box, thing.get("facing") == "left") for box in thing.get("boxes", ())]
    scene(Pen(image), rng, plan, color, frames)
    return image.reduce(2)


def paint_apart(plan: Plan, side: int, seed: str, scene: Painter) -> tuple[Image.Image, Image.Image, Image.Image]:
    """For judges: the picture of a plan, the same without its objects that have "boxes", and where these are seen ("L",
    white there).

    What hides part of an object is left out of where it is seen: painted all white and all black, it differs there
    alone. seed: of the random stream, which every one of them begins anew.
    """
    whole, white, black = (
        paint(plan, side, Rng(seed), scene, partial(Pen, ink=ink)) for ink in (None, (255, 255, 255), (0, 0, 0))
    )
    without = paint(plan, side, Rng(seed), scene, lambda image, *place: Pen(image.copy(), *place))
    return whole, without, ImageChops.subtract(white, black).getchannel(0)
