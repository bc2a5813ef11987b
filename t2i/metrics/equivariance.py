"""Equivariance (2106.12423, section 2 and appendix E): does a moved input give the moved picture, and nothing else?

PSNR in dB between the picture of a transformed input and the transformed picture, where both are valid; above 60 dB
nobody sees the difference. EQ-T: shifts by whole pixels; EQ-T frac: any shifts; EQ-R: rotations about the middle.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError, closest
from t2i.interfaces import Latent, Stage, Text
from t2i.metrics.metric import Evidence, Networks
from t2i.metrics.networks import Settings
from t2i.metrics.sources import Generated, Source
from t2i.nets.layers import ops
from t2i.rng import SampleRng

KINDS = ("EQ-T", "EQ-T frac", "EQ-R")
SMALLEST = 32  # pixels a side; of a smaller turned picture nothing is valid
FARTHEST = 0.125  # the longest shift along an axis, in pictures
LOBES = 3  # half the width of a Lanczos window, in pixels
OVERSAMPLED = 4  # pictures are turned at so many times their resolution
SIDE = 64  # half the width, in pixels, of the sinc functions that a rotation's filter is made of
Moved = tuple[Tensor, Tensor]  # a picture [B, C, H, W] in float64 and where it is valid, [H, W] of 0 and 1


def lanczos(x: Tensor) -> Tensor:
    """sinc(x) in its window sinc(x / 3); x in pixels."""
    return torch.sinc(x) * torch.sinc(x / LOBES) * (x.abs() < LOBES)


def translate(x: Tensor, tx: float, ty: float) -> Moved:
    """Square pictures x moved right by tx and down by ty pixels, between pixels by Lanczos' filter.

    Valid where all pixels that the filter needs are inside.
    """
    x = x.double()
    valid = []
    for t, axis in ((ty, 2), (tx, 3)):
        size = x.shape[axis]
        index = torch.arange(size, dtype=x.dtype, device=x.device)
        place = index - t  # where each new pixel was
        taps = lanczos(place[:, None] - torch.arange(-LOBES - size, 2 * size + LOBES, device=x.device))
        matrix = lanczos(place[:, None] - index) / taps.sum(1, keepdim=True)  # [new, old]
        x = torch.einsum("oi,bchi->bcho" if axis == 3 else "oi,bciw->bcow", matrix, x)
        before, after = (LOBES - 1, LOBES) if t % 1 else (0, 0)
        valid.append((place.floor() >= before) & (place.floor() + after < size))
    return x, (valid[0][:, None] & valid[1]).to(x.dtype)


def rotation(angle: float) -> Tensor:
    """[2, 2] in float64."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def turning_filter(matrix: Tensor, up: int = 1) -> Tensor:
    """The low-pass filter of both a pixel grid and the one turned by matrix [2, 2], at `up` taps a pixel.

    [n, n], n odd, reaching ±6 pixels, float64; of gain 1 for each of the up² offsets (times up²).
    """

    def separable(function, x, y):
        return function(x).numpy() * function(y).numpy()

    def both(function, reach):
        x = torch.arange(-reach * up, reach * up + 1, dtype=torch.float64) / up
        y, x = torch.meshgrid(x, x, indexing="ij")
        turned_x, turned_y = (matrix @ torch.stack([x.flatten(), y.flatten()])).view(2, *x.shape)
        grids = separable(function, x, y), separable(function, turned_x, turned_y)
        return scipy.signal.fftconvolve(*grids, mode="same")

    window = both(lambda x: torch.sinc(x / LOBES) * (x.abs() < LOBES), 2 * LOBES)
    cut = (SIDE - 2 * LOBES) * up
    f = both(torch.sinc, SIDE)[cut:-cut, cut:-cut] * window  # [12·up + 1, 12·up + 1]
    if up > 1:
        for i, j in np.ndindex(up, up):
            f[i::up, j::up] /= f[i::up, j::up].sum() * up**2
    return torch.from_numpy(f / f.sum())


def rotate(x: Tensor, angle: float) -> Moved:
    """Square pictures x turned: the colour at p, from the middle, is that which was at rotation(angle)·p.

    Band-limited to what both the old and the new pixels carry. Valid where the filter stays inside.
    """
    x = x.double()
    size = x.shape[2]
    matrix = rotation(angle)
    f = turning_filter(matrix.T, OVERSAMPLED)
    fine = ops.upsample2d(x, f.to(x.device), OVERSAMPLED)
    middle = (size - 1) / 2
    index = torch.arange(size, dtype=x.dtype, device=x.device) - middle
    px, py = torch.meshgrid(index, index, indexing="xy")
    old = (matrix.to(x.device) @ torch.stack([px.flatten(), py.flatten()])).view(2, size, size) + middle
    # Pixel i has its centre at i·up + offset of the fine picture: its first padding less half the filter.
    offset = (len(f) + OVERSAMPLED - 1) // 2 - len(f) // 2
    place = (old * OVERSAMPLED + offset + 0.5) / fine.shape[2] * 2 - 1
    grid = place.permute(1, 2, 0).expand(len(x), -1, -1, -1)
    y = F.grid_sample(fine, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    reach = 2 * LOBES
    return y, ((old >= reach) & (old <= size - 1 - reach)).all(0).to(x.dtype)


def band_limit(x: Tensor, angle: float) -> Moved:
    """x as `rotate` would filter it, but not turned: what a picture that is turned already is compared as."""
    x = x.double()
    f = turning_filter(rotation(angle)).to(x.device)
    mask = torch.zeros(x.shape[2:], dtype=x.dtype, device=x.device)
    reach = 2 * LOBES
    mask[reach:-reach, reach:-reach] = 1
    return ops.filter2d(x, f), mask


@torch.no_grad()
def compute(
    generator: Any,
    latent: Latent,
    text: Text,
    seed: int = 0,
    batch: int = 4,
    kinds: Collection[str] = KINDS,
    stage: Stage | None = None,
) -> dict[str, float]:
    """The PSNR of each kind in dB, of pictures of N latents and N captions; higher is better.

    The generator must be `movable` (see t2i/nets/contract.py).

    A transform is drawn for every `batch` pictures. The published figures take 50,000 pictures. Pictures are taken
    as they are, nominally in [-1, 1], not clamped. Raises UserError for an unknown kind or pictures too small.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UserError(f"equivariance: {kind}: {closest(kind, KINDS)}")
    random = Random(seed)
    errors = {kind: [0.0, 0.0] for kind in kinds}
    for start in range(0, len(latent), batch):
        rows = slice(start, start + batch)
        draw = lambda rows=rows: generator(latent[rows], text[rows], stage, noise="const").image.float()
        plain = draw()
        size = plain.shape[2]
        for kind in KINDS:  # all are drawn, so that one does not depend on which others are wanted
            tx, ty = (random.uniform(-FARTHEST, FARTHEST) * size for _ in range(2))
            angle = random.uniform(-math.pi, math.pi)
            if kind not in kinds:
                continue
            matrix = torch.eye(3, dtype=torch.float64)
            if kind == "EQ-R":
                matrix[:2, :2] = rotation(angle)
            else:
                tx, ty = (tx, ty) if kind == "EQ-T frac" else (round(tx), round(ty))
                matrix[:2, 2] = torch.tensor([-tx, -ty]) / size
            with generator.moved(matrix):
                found = draw()
            if kind == "EQ-R":
                (wanted, mask), (found, inside) = rotate(plain, angle), band_limit(found, angle)
                mask = mask * inside
            else:
                wanted, mask = translate(plain, tx, ty)
            errors[kind][0] += float(((found - wanted).square() * mask).sum())
            errors[kind][1] += float(mask.sum()) * found.shape[0] * found.shape[1]
    result = {}
    for kind, (error, count) in errors.items():
        if not count:
            raise UserError(f"{kind}: pictures of {size} pixels are too small to compare; use {SMALLEST} or more")
        result[kind] = 10 * math.log10(4 / max(error / count, 1e-30))  # 2² is the range of [-1, 1], squared
    return result


# ---- what the metrics of it share: rows of squared errors of each block of pictures, then decibels of their mean


def squared_errors(kinds: Mapping[str, str]) -> Callable[[Generated, Networks, Sequence[int]], dict[str, Tensor]]:
    """Squared errors of pictures whose input was moved. kinds: of KINDS → the score's name."""

    def rows(source: Generated, _: Networks, numbers: Sequence[int]) -> dict[str, Tensor]:
        generator, seeds = source.model.generator, [source.seed + n for n in numbers]
        latent = generator.latent(len(numbers), SampleRng(seeds, source.model.device))
        text = source.model.text_encoder([source.captions[n].text for n in numbers])
        found = compute(generator, latent, text, seed=seeds[0], kinds=kinds, stage=source.model.stage)
        repeated = lambda db: torch.full((len(numbers),), 4 / 10 ** (db / 10), dtype=torch.float64)
        return {kinds[kind]: repeated(db) for kind, db in found.items()}

    return rows


def decibels(e: Evidence, *names: str) -> dict[str, float]:
    """PSNR of pictures in [-1, 1] from their squared errors."""
    return {name: 10 * math.log10(4 / max(float(e.fake[name].mean()), 1e-30)) for name in names}


def lacks(source: Source, settings: Settings) -> str | None:
    assert isinstance(source, Generated)
    return None if source.model.generator.movable else "the generator's input cannot be moved"
