"""How a judge learns: from things that are objects and things that only stand in their place, which are none."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.probes.classifier import fit, halve, moved, worsen
from t2i.probes.sight import Sight
from t2i.probes.standins import Apart, blur, lay, scrawled, shapes, warped
from t2i.rng import Rng

# What things become: themselves; moved, onto another's ground; nothing; ellipses, boxes, scribbles; warped.
KINDS = {"true": 0.33, "moved": 0.2, "bare": 0.07, "shaped": 0.33, "torn": 0.07}
BLURRED, NOISE = 0.1, 0.02  # of pictures, which then show nothing
CLEAN = 0.3  # of pictures, which stay as they were drawn, others being moved and worsened
CORE = 0.25  # of a box: the radius of what is marked in the middle of each object
LIQUID, TORN = 0.1, 0.3  # as standins.warped says: up to this an object's outline may stray; from this it is none


@dataclass
class Lesson:
    """N pictures [N, 3, 64, 64] in [-1, 1] and what a judge with P masks should say of them."""

    images: Tensor
    maps: Tensor  # [N, P, 64, 64] in 0..1: its masks, and perhaps cores
    objects: Tensor  # [N, P] class numbers, none last
    colors: Tensor  # [N, P] class numbers, -1 where there is none to tell


def lesson(judge: Sight, apart: Apart, objects: Tensor, colors: Tensor, rng: Rng) -> Lesson:
    """From pictures with T things each: objects and colours [N, T], -1 for a thing that has one look only.

    The mask of a judge that has only one is of whatever stands there; others are of their own objects.
    """
    ground, things = apart.layers()
    n, t, side = *things.shape[:2], things.shape[-1]
    odds = torch.tensor(list(KINDS.values())).cumsum(0)
    kind = torch.searchsorted(odds, rng.rand(n * t).clamp(max=0.9999))
    shown = kind <= 1
    things = disguised(apart, things.flatten(0, 1), kind, rng).unflatten(0, (n, t))
    shown, away = shown.view(n, t), (kind == 1).view(n, t).any(1)
    if t > 1:  # the second thing is another picture's: any object in any colour beside any other
        things[:, 1:], shown[:, 1:] = things[:, 1:].roll(1, 0), shown[:, 1:].roll(1, 0)
        objects = torch.cat((objects[:, :1], objects[:, 1:].roll(1, 0)), 1)
        colors = torch.cat((colors[:, :1], colors[:, 1:].roll(1, 0)), 1)
    ground[away] = ground.roll(1, 0)[away]
    images = lay(ground, things)

    u = rng.rand(n)
    blurred, noise = u < BLURRED, u > 1 - NOISE
    images[blurred] = blur(images[blurred], (3.5 + 4 * rng.uniform()) * side / 64)
    images[noise] = (rng.randn(int(noise.sum()), 3, side, side) * 0.6).clamp(-1, 1)
    things[noise] = 0.0
    shown[blurred | noise] = False

    if judge.apart:
        own = shown[..., None] & (objects[..., None] == torch.arange(judge.places))  # [N, T, P]
        maps = torch.einsum("nthw,ntp->nphw", things[:, :, 3], own.float())
        asked = torch.where(own.any(1), torch.arange(judge.places), judge.places)
        many = own.sum(1) > 1  # of two cars in two colours neither is the car's
        paint = torch.where(own, colors[..., None], -1).amax(1).masked_fill(many, -1)
    else:
        maps = things[:, 0, 3:]  # its mask, and cores
        asked, paint = torch.where(shown, objects, len(judge.objects)), torch.where(shown, colors, -1)

    flip = rng.rand(n) < 0.5
    both = torch.cat((images, maps), 1)
    both[flip] = both[flip].flip(3)
    u = rng.rand(n, 6)
    u[rng.rand(n) < CLEAN] = torch.tensor([0.5, 0.5, 0.5, 0, 0.5, 0])
    both = moved(both, u[:, :3])
    images, maps = both[:, :3], both[:, 3:].clamp(0, 1)
    images = fit(halve(images)) if rng.uniform() < 0.35 else images
    return Lesson(worsen(images, u[:, 3:], rng), maps, asked, paint)


def disguised(apart: Apart, things: Tensor, kind: Tensor, rng: Rng) -> Tensor:
    """Things [M, 4, H, W] and what each of them is to become → such things [M, 5, H, W], the last channel of cores."""
    boxes, paints, m = apart.boxes.flatten(0, 1), apart.paints.flatten(0, 1), len(things)
    _, away, bare, shaped, torn = (kind == k for k in range(len(KINDS)))
    n = int(shaped.sum())
    wild = 0.5 * rng.rand(n) * (rng.rand(n) < 0.55)
    power = torch.where(rng.rand(n) < 0.6, 2.0, 8.0)
    drawn = shapes(boxes[shaped], paints[shaped], things.shape[-1], wild, rng, power)
    marked = ((wild > 0) & (rng.rand(n) < 0.7))[:, None, None, None]
    drawn[:, :3] = torch.where(marked, scrawled(drawn[:, :3], rng) * drawn[:, 3:], drawn[:, :3])
    things[shaped] = drawn
    things = torch.cat((things, cores(boxes, things.shape[-1])), 1)
    things[away] = moved(F.pad(things[away], (8, 8, 8, 8)), rng.rand(int(away.sum()), 3))[..., 8:-8, 8:-8]
    strength = LIQUID * rng.rand(m)
    strength[torn] = TORN + TORN * rng.rand(m)[torn]
    things = warped(things, strength, rng)
    things[bare] = 0
    return things


def cores(boxes: Tensor, side: int) -> Tensor:
    """Boxes [M, K, 4] of objects → [M, 1, side, side], 1 in the middle of each, so that none touches another."""
    at = (torch.arange(side) + 0.5) / side
    x, y, w, h = (v[..., None] for v in boxes.unbind(-1))  # [M, K, 1]
    u, v = (at - x - w / 2) / w.clamp(min=1e-4), (at - y - h / 2) / h.clamp(min=1e-4)
    return (u.square()[:, :, None] + v.square()[..., None] < CORE**2).any(1, keepdim=True).float()


def learn(
    judge: Sight,
    apart: Apart,
    objects: Tensor,
    colors: Tensor,
    epochs: int,
    rng: Rng,
    progress: Callable[[str], None],
    batch: int = 64,
    lr: float = 2e-3,
) -> None:
    """Trains a judge on drawn pictures, as `lesson` takes them, and leaves it in eval mode."""
    count = len(apart)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=lr, weight_decay=0.05)
    steps = count // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * steps)
    for epoch in range(epochs):
        total, order = 0.0, rng.rand(count).argsort()
        for rows in order[: steps * batch].split(batch):
            value = loss(judge, lesson(judge, apart[rows], objects[rows], colors[rows], rng))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item()
        progress(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}")
    judge.eval().requires_grad_(False)


def loss(judge: Sight, given: Lesson) -> Tensor:
    """Cross entropies of what is where, in which colour, and of every place of its maps."""
    with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the processor computes it
        objects, colors, maps = (logits.float() for logits in judge(given.images))
    heavy = torch.ones(maps.shape[1])
    heavy[judge.places :] = 4.0  # cores are small
    truth = F.avg_pool2d(given.maps, 2)
    place = F.binary_cross_entropy_with_logits(maps, truth, heavy[:, None, None].expand_as(maps))
    object = F.cross_entropy(objects.flatten(0, 1), given.objects.flatten())
    color = F.cross_entropy(colors.flatten(0, 1), given.colors.flatten(), ignore_index=-1)
    return object + color + 3 * place
