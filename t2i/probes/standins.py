"""What stands in an object's place and is none: shapes of its colour, scribbles, blurs, noise or nothing.

A judge is trained on them, and how often it falls for them is the floor of its every score.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.probes.classifier import floats
from t2i.rng import Rng

SIGMA = 5.0  # pixels of 64: blurred by it, nobody could tell what a picture is of but by its ground


@dataclass
class Apart:
    """N drawn pictures taken apart."""

    whole: Tensor  # [N, H, W, 3] uint8
    ground: Tensor  # [N, H, W, 3] uint8: the same without their objects
    mask: Tensor  # [N, H, W, 1] uint8: 255 where an object is seen
    boxes: Tensor  # [N, K, 4]: x, y, width and height in 0..1 of each object; zeros where there are fewer than K
    colors: Tensor  # [N, K, 3] uint8: those they were asked in, or on the whole have

    def __getitem__(self, rows: Tensor) -> "Apart":
        return Apart(self.whole[rows], self.ground[rows], self.mask[rows], self.boxes[rows], self.colors[rows])

    def __len__(self) -> int:
        return len(self.whole)

    def layers(self) -> tuple[Tensor, Tensor]:
        """Grounds [N, 3, H, W] in [-1, 1], and objects to `lay` on them [N, 4, H, W]."""
        ground, mask = floats(self.ground), self.mask.permute(0, 3, 1, 2).float() / 255
        return ground, torch.cat((floats(self.whole) - ground * (1 - mask), mask), 1)


def lay(ground: Tensor, thing: Tensor) -> Tensor:
    """Grounds [N, 3, H, W] with things on them: [N, 4, H, W], colours times mask, mask."""
    return ground * (1 - thing[:, 3:]) + thing[:, :3]


def floors(apart: Apart, rng: Rng) -> dict[str, Tensor]:
    """Pictures that show no object, by kind: each [N, 3, H, W] in [-1, 1] has the ground (but noise) and the colours
    of one that does."""
    whole, (ground, thing) = floats(apart.whole), apart.layers()
    return {
        "noise": 2 * rng.rand(*whole.shape) - 1,
        "background": ground,
        "ellipse": lay(ground, shapes(apart, 0, rng)),
        "box": lay(ground, shapes(apart, 0, rng, power=8.0)),
        "scribble": lay(ground, shapes(apart, 0.5, rng, marked=True)),
        "warped": lay(ground, warped(thing, torch.full((len(apart),), 0.3), rng)),
        "blurred": blur(whole, SIGMA),
    }


def shapes(apart: Apart, wild: float | Tensor, rng: Rng, power: float | Tensor = 2.0, marked: bool = False) -> Tensor:
    """In the place of every object a `contour` in its colour, marked as by `scrawled` or not, to `lay` on a ground."""
    n, side = apart.whole.shape[:2]
    out = torch.zeros(n, 4, side, side)
    for box, color in zip(apart.boxes.unbind(1), apart.colors.unbind(1)):
        mask = contour(box, wild, rng, power, side)
        paint = floats(color[:, None, None]).expand(n, 3, side, side)
        paint = scrawled(paint, rng) if marked else paint
        shape = torch.cat((paint * mask, mask), 1)
        out = shape + out * (1 - mask)
    return out


def contour(box: Tensor, wild: float | Tensor, rng: Rng, power: float | Tensor = 2.0, side: int = 64) -> Tensor:
    """What lies within a smooth random outline in each box [N, 4]: [N, 1, side, side] in 0..1, zeros for an empty box.

    wild: how far the outline strays, in radii; at 0 it is an ellipse, or with a high power nearly the box.
    """
    at = (torch.arange(side) + 0.5) / side
    (x, y, w, h), n = (v[:, None, None] for v in box.unbind(1)), len(box)
    u, v = (at - x) / w.clamp(min=1e-4) * 2 - 1, (at[:, None] - y) / h.clamp(min=1e-4) * 2 - 1
    u, v = (part.expand(n, side, side) for part in (u, v))
    power = torch.as_tensor(power).reshape(-1, 1, 1)
    distance = (u.abs().clamp(min=1e-4) ** power + v.abs().clamp(min=1e-4) ** power) ** (1 / power)
    waves, angle = torch.arange(2, 8), torch.atan2(v, u)[..., None]
    strays = rng.randn(n, 1, 1, 6) / waves**0.7 * torch.cos(waves * angle + 6.283 * rng.rand(n, 1, 1, 6))
    radius = 1 + torch.as_tensor(wild).reshape(-1, 1, 1) * strays.sum(-1)
    pixels = 0.5 * side * torch.minimum(w, h)
    return (torch.sigmoid(4 * (radius - distance) * pixels) * (w > 0))[:, None]


def scrawled(paint: Tensor, rng: Rng) -> Tensor:
    """[N, 3, H, W] with smooth random marks, darker, lighter, and nearly black."""
    n, _, side, _ = paint.shape
    field = smooth(rng.randn(n, 3, 11, 11), side)
    dark, light, black = (torch.sigmoid(12 * (f - 0.9)) for f in field.split(1, 1))
    paint = torch.lerp(paint, paint * 0.7 - 0.3, dark)
    paint = torch.lerp(paint, paint * 0.4 + 0.5, light)
    return torch.lerp(paint, torch.tensor(-0.75), black)


def smooth(field: Tensor, side: int) -> Tensor:
    """[N, C, h, w] → [N, C, side, side]."""
    return F.interpolate(field, (side, side), mode="bicubic", align_corners=False)


def warped(images: Tensor, strength: Tensor, rng: Rng) -> Tensor:
    """[N, C, H, W] with its places shifted by smooth random ways; strength [N]: their deviation, in half pictures."""
    n, _, side, _ = images.shape
    ways = smooth(rng.randn(n, 2, 5, 5), side).permute(0, 2, 3, 1) * strength[:, None, None, None]
    still = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, side, side], align_corners=False)
    return F.grid_sample(images, still + ways, padding_mode="border", align_corners=False)


def blur(images: Tensor, sigma: float) -> Tensor:
    """[N, C, H, W] by a Gaussian of `sigma` pixels, along one side and then the other."""
    reach = round(2.5 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (weight / weight.sum()).view(1, 1, 1, -1)
    flat = F.pad(images, [reach] * 4, mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, line), line.mT).view(images.shape)
