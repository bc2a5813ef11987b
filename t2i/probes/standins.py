"""What stands in an object's place and is none: shapes of its colour, scribbles, blurs, noise or nothing.

A judge is trained on them, and how often it falls for them is the floor of its every score.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.painting.pen import PALETTE, Plan
from t2i.probes.classifier import floats, small
from t2i.rng import Rng

BLUR = 5 / 64  # of a side: blurred by it, nobody could tell what a picture is of but by its ground
BEND = 0.4  # of its size: an object whose parts stray so far has no shape any more


@dataclass
class Apart:
    """N drawn pictures taken apart into T things each, which may be several of a kind: two apples are one thing.

    Thing t is all there is in the t-th of the T parts of a picture's width.
    """

    whole: Tensor  # [N, H, W, 3] uint8
    ground: Tensor  # [N, H, W, 3] uint8: the same without things
    masks: Tensor  # [N, H, W, T] uint8: 255 where each thing is seen
    boxes: Tensor  # [N, T, K, 4]: x, y, width and height in 0..1 of each object; zeros where there are fewer than K
    paints: Tensor  # [N, T, K, 3] uint8: the colours they were asked in, or on the whole have

    def __getitem__(self, rows: Tensor) -> "Apart":
        return Apart(self.whole[rows], self.ground[rows], self.masks[rows], self.boxes[rows], self.paints[rows])

    def __len__(self) -> int:
        return len(self.whole)

    def layers(self) -> tuple[Tensor, Tensor]:
        """Grounds [N, 3, H, W] in [-1, 1], and things to `lay` on them [N, T, 4, H, W]."""
        whole, ground = floats(self.whole), floats(self.ground)
        masks = self.masks.permute(0, 3, 1, 2)[:, :, None].float() / 255  # [N, T, 1, H, W]
        seen = whole[:, None] - ground[:, None] * (1 - masks)
        return ground, torch.cat((seen, masks), 2) * parts(self.masks.shape[3], whole.shape[-1])[:, None, None]


def parts(things: int, side: int) -> Tensor:
    """[T, side] of 0 and 1: which columns are each thing's."""
    return (torch.arange(side) * things // side == torch.arange(things)[:, None]).to(torch.uint8)


def taken_apart(count: int, draw: Callable[[int], tuple], side: int, things: int = 1) -> tuple[Apart, list[Plan]]:
    """Drawn pictures as the data set has them at `side` pixels, taken apart, and their plans.

    draw: index → (picture, ground, where objects are, plan).
    """
    pixels, plans = np.empty((count, side, side, 7), np.uint8), []
    for i in range(count):
        *images, plan = draw(i)
        pixels[i] = np.dstack([small(image, side) for image in images])
        plans.append(plan)
    whole, ground, mask = torch.from_numpy(pixels).split((3, 3, 1), 3)
    masks = mask * parts(things, side).mT
    kept = [[thing for thing in plan["objects"] if "boxes" in thing] for plan in plans]
    boxes = torch.zeros(count, things, max(len(thing["boxes"]) for of in kept for thing in of), 4)
    paints = torch.empty(*boxes.shape[:3], 3, dtype=torch.uint8)
    for i, of in enumerate(kept):
        for t, thing in enumerate(of):
            boxes[i, t, : len(thing["boxes"])] = torch.tensor(thing["boxes"])
            own = whole[i][masks[i, ..., t] > 250].float().mean(0)  # of what has one look only
            paints[i, t] = torch.tensor(PALETTE[thing["color"]]) if thing["color"] else own.byte()
    return Apart(whole, ground, masks, boxes, paints), plans


def lay(ground: Tensor, things: Tensor) -> Tensor:
    """Grounds [N, 3, H, W] with things on them: [N, T, 4 or more, H, W], colours times mask, mask, whatever else."""
    for thing in things.unbind(1):
        ground = ground * (1 - thing[:, 3:4]) + thing[:, :3]
    return ground


def bends(apart: Apart, rng: Rng) -> dict[str, Tensor]:
    """Pictures [N, 3, H, W] in [-1, 1] whose things are `warped` more and more: to find the line between an object and
    none."""
    ground, things = apart.layers()
    n, t = things.shape[:2]
    bent = lambda strength: warped(things.flatten(0, 1), torch.full((n * t,), strength), rng).unflatten(0, (n, t))
    return {f"bent_{percent}": lay(ground, bent(percent / 100)) for percent in (10, 15, 20, 25, 30)}


def floors(apart: Apart, rng: Rng) -> dict[str, Tensor]:
    """Pictures that show no object, by kind: each [N, 3, H, W] in [-1, 1] has the ground (but noise) and the colours
    of one that does."""
    whole, (ground, things) = floats(apart.whole), apart.layers()
    n, t, side = *things.shape[:2], things.shape[-1]
    boxes, paints = apart.boxes.flatten(0, 1), apart.paints.flatten(0, 1)
    drawn = lambda wild, **how: shapes(boxes, paints, side, wild, rng, **how).unflatten(0, (n, t))
    return {
        "noise": 2 * rng.rand(*whole.shape) - 1,
        "background": ground,
        "ellipse": lay(ground, drawn(0)),
        "box": lay(ground, drawn(0, power=8.0)),
        "scribble": lay(ground, drawn(0.5, marked=True)),
        "warped": lay(ground, warped(things.flatten(0, 1), torch.full((n * t,), BEND), rng).unflatten(0, (n, t))),
        "blurred": blur(whole, BLUR * side),
    }


def taken_in(
    share: Callable[..., float], what: str, bent: Mapping[str, Sequence[Any]],
    floors: Callable[[int], Mapping[str, Sequence[Any]]],
) -> dict[str, float]:  # fmt: skip
    """How often a judge says that it sees what is asked: of things bent more and more, and of floors at either side
    that a model may have. share: (pictures, *asked) → in 0..1; what: the end of the names of what is returned."""
    seen = {f"{kind}_{what}": share(*shown) for kind, shown in bent.items()}
    return seen | {f"{kind}_{side}_{what}": share(*shown) for side in (64, 32) for kind, shown in floors(side).items()}


def shapes(
    boxes: Tensor,
    paints: Tensor,
    side: int,
    wild: float | Tensor,
    rng: Rng,
    power: float | Tensor = 2.0,
    marked: bool = False,
) -> Tensor:
    """In each box [M, K, 4] a `contour` in the colour of paints [M, K, 3], marked as by `scrawled` or not: things to
    `lay` [M, 4, side, side]."""
    out = torch.zeros(len(boxes), 4, side, side)
    for box, color in zip(boxes.unbind(1), paints.unbind(1)):
        mask = contour(box, wild, rng, power, side)
        paint = floats(color[:, None, None]).expand(-1, 3, side, side)
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


def warped(thing: Tensor, strength: Tensor, rng: Rng) -> Tensor:
    """Things to `lay` [N, C, H, W], their parts shifted by smooth random ways while the whole stays in its place.

    strength [N]: how far parts stray, root mean square, in sizes of the thing (the root of its area). The ways are
    drawn as finely as the thing is large: bends span about a half of it.
    """
    n, _, side, _ = thing.shape
    mask = thing[:, 3:4]
    size = mask.mean((1, 2, 3)).sqrt().clamp(min=0.05)  # of the picture
    at = (torch.arange(side) + 0.5) / side * 2 - 1
    place = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1)  # [H, W, 2]: x, y in -1..1
    still = place.expand(n, side, side, 2)
    field = rng.randn(n, 2, 9, 9)  # of which a thing of size 1 would span all
    ways = F.grid_sample(field, still * (0.28 / size).clamp(max=1)[:, None, None, None], "bicubic", align_corners=True)
    weight = mask / mask.sum((2, 3), keepdim=True).clamp(min=1)
    ways = ways - (ways * weight).sum((2, 3), keepdim=True)
    strays = (ways.square() * weight).sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-3)
    ways = ways / strays * (2 * strength * size)[:, None, None, None]  # a picture is 2 wide in its own coordinates
    return F.grid_sample(thing, still + ways.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)


def blur(images: Tensor, sigma: float) -> Tensor:
    """[N, C, H, W] by a Gaussian of `sigma` pixels, along one side and then the other."""
    reach = round(2.5 * sigma)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    line = (weight / weight.sum()).view(1, 1, 1, -1)
    flat = F.pad(images, [reach] * 4, mode="reflect").flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, line), line.mT).view(images.shape)
