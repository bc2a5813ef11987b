"""Adaptive discriminator augmentation (2006.06676, section 2 and appendix B).

Every operation acts on a picture with probability p, so that for p < 1 the generator cannot hide behind it. All of
them are differentiable any number of times with respect to the pictures: R1 goes through them.
"""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.nets.layers.ops import upfirdn2d
from t2i.rng import Rng, SampleRng

# Orthogonal low-pass wavelet filters (Daubechies, Ten Lectures on Wavelets, chapter 6 and table 8.1).
SYM2 = np.array([1 - math.sqrt(3), 3 - math.sqrt(3), 3 + math.sqrt(3), 1 + math.sqrt(3)]) / (4 * math.sqrt(2))
SYM6 = np.array([
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
])  # fmt: skip
POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # expected power of natural pictures in the four bands, low to high
LUMA = 1 / math.sqrt(3)  # each component of the unit vector along grey


def adjust(p: float, mean_sign: float, batch: int, every: int, target: float = 0.6, speed_kimg: float = 500.0) -> float:
    """The next p, in [0, 1], after `every` steps of `batch` pictures: up where D(real) is too often positive.

    mean_sign is the mean sign of D(real) over them, in [-1, 1] (section 3.1); p crosses [0, 1] in speed_kimg.
    """
    direction = (mean_sign > target) - (mean_sign < target)
    return min(max(p + direction * batch * every / (speed_kimg * 1000), 0.0), 1.0)


def augment(images: Tensor, p: float, rng: Rng | SampleRng, ops: str = "bgc") -> Tensor:
    """Square pictures [B, 3, H, H], nominally in [-1, 1], each differently augmented; same shape and dtype.

    ops: letters of b (pixel blitting), g (geometry), c (colour), f (image filter), n (noise), o (cutout).
    p = 0 returns `images` itself.
    """
    if p <= 0:
        return images
    draw = _Draw(rng, len(images), p)
    size = images.shape[-1]
    # In float32 or wider, also under autocast: rounding would be noise that D learns to see.
    with torch.autocast(images.device.type, enabled=False):
        x = images.to(torch.promote_types(images.dtype, torch.float32))
        if "g" in ops:
            matrix = _geometry(draw, size) if "b" not in ops else _blit(draw, size) @ _geometry(draw, size)
            x = _resample(x, matrix.to(x.dtype))
        elif "b" in ops:
            x = _move(x, _blit(draw, size).to(x.dtype))
        if "c" in ops:
            matrix = _colour(draw).to(x.dtype)
            x = (matrix[:, :3, :3] @ x.flatten(2) + matrix[:, :3, 3:]).view_as(x)
        if "f" in ops:
            x = _filter(x, _gains(draw).to(x.dtype))
        if "n" in ops:
            sigma = draw.gate(draw.normal(0.1).abs(), 0.0)
            x = x + (sigma[:, None, None, None] * rng.randn(*x.shape)).to(x.dtype)
        if "o" in ops:
            x = x * _cutout(draw, size).to(x.dtype)
        return x.to(images.dtype)


class _Draw:
    """Random numbers of a batch, [B] float32 each."""

    def __init__(self, rng: Rng | SampleRng, batch: int, p: float):
        self.rng, self.batch, self.p = rng, batch, p

    def normal(self, deviation: float) -> Tensor:
        return self.rng.randn(self.batch) * deviation

    def uniform(self, bound: float) -> Tensor:
        """In ±bound."""
        return (self.rng.rand(self.batch) * 2 - 1) * bound

    def choice(self, number: int) -> Tensor:
        """0, 1, ... number - 1."""
        return (self.rng.rand(self.batch) * number).floor()

    def gate(self, value: Tensor, neutral: float, p: float | None = None) -> Tensor:
        """value [B, ...] with probability p, the same gate for a sample's numbers, else what changes nothing."""
        chosen = self.rng.rand(self.batch) < (self.p if p is None else p)
        return value.where(chosen.view(-1, *[1] * (value.ndim - 1)), neutral)


# ---- where pixels come from: matrices [B, 3, 3] take centred output coordinates (x, y, 1), in pixels, to input ones


def _blit(draw: _Draw, size: int) -> Tensor:
    """Mirror, quarter turns and whole-pixel shifts: every pixel comes from a pixel."""
    mirror = 1 - 2 * draw.gate(draw.choice(2), 0)
    turns = draw.gate(draw.choice(4), 0) * (math.pi / 2)
    shift = torch.stack([draw.uniform(0.125), draw.uniform(0.125)], 1)  # [B, 2]
    shift = draw.gate((shift * size).round(), 0)
    # The inverses, in the order in which the operations are applied to the picture.
    return _scale(mirror, torch.ones_like(mirror)) @ _rotate(-turns) @ _translate(-shift)


def _geometry(draw: _Draw, size: int) -> Tensor:
    """Scaling, rotation before and after stretching, and fractional shifts."""
    # Two rotations, one of which alone makes a picture "rotated": together they are so with probability p.
    p = 1 - math.sqrt(1 - draw.p)
    zoom = torch.exp2(-draw.gate(draw.normal(0.2), 0))
    before = draw.gate(draw.uniform(math.pi), 0, p)
    stretch = torch.exp2(-draw.gate(draw.normal(0.2), 0))
    after = draw.gate(draw.uniform(math.pi), 0, p)
    shift = torch.stack([draw.normal(0.125), draw.normal(0.125)], 1)
    shift = draw.gate(shift * size, 0)
    return _scale(zoom, zoom) @ _rotate(-before) @ _scale(stretch, 1 / stretch) @ _rotate(-after) @ _translate(-shift)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], 1))


def _rotate(angle: Tensor) -> Tensor:
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)


def _translate(shift: Tensor) -> Tensor:
    matrix = torch.eye(3, device=shift.device).repeat(len(shift), 1, 1)
    matrix[:, :2, 2] = shift
    return matrix


def _coordinates(matrix: Tensor, centres: Tensor) -> Tensor:
    """Input (x, y) [B, n, n, 2] of the output positions with centred coordinates `centres` [n] along each axis."""
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    where = torch.stack([x, y, torch.ones_like(x)], -1)  # [n, n, 3]
    return torch.einsum("bij,xyj->bxyi", matrix[:, :2], where)


def _fold(position: Tensor, low: float, high: float) -> Tensor:
    """Positions reflected, as often as it takes, into [low, high]: the distance to the nearest image of `low`."""
    period = 2 * (high - low)
    turns = (position - low) / period
    return (turns - turns.round()).abs() * period + low


def _fold_pixels(position: Tensor, size: int) -> Tensor:
    """Whole positions, up to rounding, as indices of a row of `size` pixels continued by reflection."""
    return _fold(position, 0, size - 1).round().long()


def _move(x: Tensor, matrix: Tensor) -> Tensor:
    """Exactly: each output pixel is one input pixel, of the picture continued by reflection."""
    size = x.shape[-1]
    centre = (size - 1) / 2
    centres = torch.arange(size, device=x.device, dtype=x.dtype) - centre
    source = _fold_pixels(_coordinates(matrix, centres) + centre, size)  # [B, H, W, 2]
    index = (source[..., 1] * size + source[..., 0]).flatten(1)  # [B, H·W]
    return x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1)).view_as(x)


MARGIN = 6  # half of sym6's 12 taps
# Pixel i of the picture stands at 2i + OFFSET among the upsampled ones, of which the first has number -MARGIN. The
# filter's centre of mass is not its middle: without that part of the offset a mirrored picture would also shift.
OFFSET = 0.5 + float((SYM6 * np.arange(12)).sum() / SYM6.sum()) - 5.5


def _resample(x: Tensor, matrix: Tensor) -> Tensor:
    """Anti-aliased: ×2 upsampling with sym6, bilinear sampling, downsampling with sym6 reversed.

    The two filters undo each other, so the identity matrix gives x back. The picture is continued by reflection
    without end: sampling positions are folded back, so the size of what is sampled does not depend on the matrices.
    """
    size = x.shape[-1]
    taps = _taps(x.device)
    x = _pad(x, MARGIN)
    x = upfirdn2d(x, taps, up=2, padding=(0, -1, 0, -1), gain=4)  # [B, 3, n, n], n = 2·size + 2·MARGIN
    n, centre = x.shape[-1], (size - 1) / 2
    positions = torch.arange(n, device=x.device, dtype=x.dtype) - MARGIN
    source = (_coordinates(matrix, (positions - OFFSET) / 2 - centre) + centre) * 2 + OFFSET
    outside = (source < -MARGIN) | (source > n - 1 - MARGIN)
    source = torch.where(outside, _fold(source, OFFSET, 2 * (size - 1) + OFFSET), source)
    grid = (source + MARGIN + 0.5) * (2 / n) - 1  # grid_sample's coordinates: the edges are ±1
    x = _Bilinear.apply(x, grid)
    return upfirdn2d(x, taps, down=2, padding=-1, flip_filter=True)


@cache
def _taps(device: torch.device) -> Tensor:
    return torch.tensor(SYM6 / SYM6.sum(), device=device)


def _pad(x: Tensor, margin: int) -> Tensor:
    """Continued by reflection on all sides, also by more than its own size."""
    size = x.shape[-1]
    index = _fold_pixels(torch.arange(-margin, size + margin, device=x.device), size)
    return x.index_select(2, index).index_select(3, index)


class _Bilinear(torch.autograd.Function):
    """F.grid_sample(x, grid), any number of times differentiable with respect to x; PyTorch's own is so once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return _BilinearTransposed.apply(g, ctx.saved_tensors[0], ctx.shape), None


class _BilinearTransposed(torch.autograd.Function):
    """The transpose of sampling, which is linear in x: spreads each value over the pixels that it was read from."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        x = g.new_zeros(()).expand(shape)  # only its shape matters: sampling is linear
        return torch.ops.aten.grid_sampler_2d_backward(g, x, grid, 0, 0, False, [True, False])[0]

    @staticmethod
    def backward(ctx: Any, gg: Tensor) -> Any:
        return _Bilinear.apply(gg, ctx.saved_tensors[0]), None, None


# ---- what pixels become


def _colour(draw: _Draw) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation as one matrix [B, 4, 4] on (r, g, b, 1)."""
    brightness = draw.gate(draw.normal(0.2), 0)
    contrast = torch.exp2(draw.gate(draw.normal(0.5), 0))
    flip = draw.gate(draw.choice(2), 0)
    hue = draw.gate(draw.uniform(math.pi), 0)
    saturation = torch.exp2(draw.gate(draw.normal(1.0), 0))

    one = torch.eye(4, device=hue.device)
    rgb = one.clone()
    rgb[3, 3] = 0
    grey = torch.zeros_like(one)
    grey[:3, :3] = LUMA * LUMA  # projects colours on the grey axis
    turn = torch.zeros_like(one)  # the cross product with the grey axis
    turn[0, 1] = turn[1, 2] = turn[2, 0] = -LUMA
    turn[1, 0] = turn[2, 1] = turn[0, 2] = LUMA
    homogeneous = one - rgb

    def each(value: Tensor) -> Tensor:
        return value[:, None, None]

    matrix = one.repeat(draw.batch, 1, 1)
    matrix[:, :3, 3] = brightness[:, None]
    matrix = (homogeneous + rgb * each(contrast)) @ matrix
    matrix = (one - 2 * grey * each(flip)) @ matrix
    # Rodrigues' rotation about the grey axis.
    matrix = (homogeneous + grey + (rgb - grey) * each(hue.cos()) + turn * each(hue.sin())) @ matrix
    return (homogeneous + grey + (rgb - grey) * each(saturation)) @ matrix


def _gains(draw: _Draw) -> Tensor:
    """Amplification of the four bands [B, 4], which keeps the expected power of a picture."""
    power = torch.tensor(POWER, device=draw.rng.device)
    gains = torch.ones(draw.batch, 4, device=draw.rng.device)
    for band in range(4):
        change = torch.ones_like(gains)
        change[:, band] = torch.exp2(draw.gate(draw.normal(1.0), 0))
        gains = gains * change / (power * change.square()).sum(1, keepdim=True).sqrt()
    return gains


def _filter(x: Tensor, gains: Tensor) -> Tensor:
    """Bands of x, along each axis, amplified by gains [B, 4]; x is continued by reflection."""
    bank = _bands(x.shape[-1]).to(x.device, x.dtype)
    matrix = torch.einsum("bk,kij->bij", gains, bank)[:, None]  # [B, 1, H, H]
    return matrix @ x @ matrix.mT


@cache
def _bands(size: int) -> Tensor:
    """[4, size, size]: the matrices that take each band, low to high, out of a row. They sum to the identity.

    A low-pass filter L and a high-pass filter with L + H = 1 are the products of sym2 with its mirror image; stretched
    to twice and four times their length, they split the low band again: L·L₂·L₄, L·L₂·H₄, L·H₂, H.
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = low * (-1.0) ** (np.arange(7) - 3)  # a half-band pair: the odd taps cancel, the middle ones are ½ each

    def stretch(taps: np.ndarray, factor: int) -> np.ndarray:
        out = np.zeros((len(taps) - 1) * factor + 1)
        out[::factor] = taps
        return out

    low2, high2, low4, high4 = stretch(low, 2), stretch(high, 2), stretch(low, 4), stretch(high, 4)
    lows = np.convolve(low, low2)
    bands = [np.convolve(lows, low4), np.convolve(lows, high4), np.convolve(low, high2), high]
    matrix = np.zeros((4, size, size))
    for band, taps in enumerate(bands):
        half = len(taps) // 2
        for row in range(size):
            columns = _fold_pixels(torch.arange(row - half, row + half + 1), size).numpy()
            np.add.at(matrix[band, row], columns, taps)
    return torch.from_numpy(matrix)


def _cutout(draw: _Draw, size: int) -> Tensor:
    """[B, 1, H, W]: 0 in a square of half the picture's side, centred anywhere in the picture, else 1."""
    side = draw.gate(torch.full((draw.batch,), 0.5, device=draw.rng.device), 0)
    position = (torch.arange(size, device=draw.rng.device) + 0.5) / size
    x, y = (
        (position - draw.rng.rand(draw.batch)[:, None]).abs() >= side[:, None] / 2 for _ in range(2)
    )  # [B, size] each
    return (x[:, None, None, :] | y[:, None, :, None]).float()
