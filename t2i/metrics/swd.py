"""Sliced Wasserstein distance of patches at every scale (Karras et al. 2018, 1710.10196, section 5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Metric
from t2i.rng import Rng, SampleRng

SMALLEST, SIDE, PATCHES = 16, 7, 128  # pixels of the last level, pixels of a patch, patches a picture and level
PICTURES = 16384  # the most that are looked at
CHUNK = 256  # pictures in float32 at a time
DIRECTIONS = 64  # that both sets are projected on at a time


def sides(resolution: int) -> list[int]:
    """The levels of a picture: its side, halved down to 16."""
    if resolution < SMALLEST or resolution & (resolution - 1):
        raise UserError(f"swd: pictures of side {resolution}; it needs a power of two from {SMALLEST} up")
    return [resolution >> n for n in range(int(math.log2(resolution // SMALLEST)) + 1)]


def pyramid(images: Tensor) -> list[Tensor]:
    """[N, 3, H, H] → its Laplacian pyramid (Burt & Adelson 1983), finest first, the last the picture at 16 pixels."""
    levels = []
    for _ in sides(images.shape[-1])[1:]:
        small = _half(_half(images).transpose(2, 3)).transpose(2, 3)
        levels.append(images - _twice(_twice(small).transpose(2, 3)).transpose(2, 3))
        images = small
    return [*levels, images]


def _half(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, H, W/2]: every second value along rows of the binomial filter 1 4 6 4 1, the border
    mirrored."""
    x = F.pad(x, (2, 2, 0, 0), mode="reflect")
    even, odd = x[..., ::2], x[..., 1::2]  # [N, C, H, W/2 + 2] each
    out = (even[..., :-2] + even[..., 2:]).add_(even[..., 1:-1], alpha=6)
    return out.add_(odd[..., :-2] + odd[..., 1:-1], alpha=4).div_(16)


def _twice(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, H, 2·W]: the same filter, doubled, of x with a 0 behind each value, whose border is
    mirrored too; only what is not times 0 is computed."""
    before, after = torch.cat([x[..., 1:2], x[..., :-1]], -1), torch.cat([x[..., 1:], x[..., -1:]], -1)
    out = x.new_empty(*x.shape[:-1], x.shape[-1], 2)
    torch.add(before + after, x, alpha=6, out=out[..., 0])
    torch.add(x, after, out=out[..., 1])
    out[..., 0] /= 8
    out[..., 1] /= 2
    return out.flatten(-2)


def patches(images: Tensor, seeds: list[int]) -> Tensor:
    """images [N, 3, H, H], any range → [N, levels, 128, 3, 49] float16: patches at places drawn from its own seed."""
    out = []
    rng = SampleRng(seeds)
    for level in pyramid(images):
        n, c, side, _ = level.shape
        place = (rng.rand(n, PATCHES, 2) * (side - SIDE + 1)).long().to(level.device)  # top, left
        step = torch.arange(SIDE, device=level.device)
        rows = (place[..., 0, None, None] + step[:, None]).expand(n, PATCHES, SIDE, SIDE)
        columns = (place[..., 1, None, None] + step).expand(n, PATCHES, SIDE, SIDE)
        flat = (rows * side + columns).reshape(n, 1, -1).expand(n, c, -1)
        cut = level.flatten(2).gather(2, flat).reshape(n, c, PATCHES, SIDE * SIDE)
        out.append(cut.transpose(1, 2).half())
    return torch.stack(out, 1)


def compute(fake: Tensor, real: Tensor, repeats: int = 4, directions: int = 128, seed: int = 0) -> dict[str, float]:
    """patches [N, levels, P, 3, K] of either set → {"swd": mean over levels, "swd_64": of one, ...}, × 10³.

    Each set's patches are brought to mean 0 and deviation 1 a colour; then the mean |difference| of both sets'
    sorted projections on random directions, in float32. Of unequal counts the first so many are taken. Memory: 16,384
    pictures are 0.6 GB a set and level, and 1.2 GB more at most while they are computed.
    """
    count, levels = min(len(fake), len(real)), fake.shape[1]
    if not count:
        raise UserError("swd: no pictures were given")
    names = [SMALLEST << n for n in reversed(range(levels))]
    scores = {}
    for i, name in enumerate(names):
        sets = [(x[:count, i], *_statistics(x[:count, i])) for x in (fake, real)]
        rng, total = Rng(seed, 0x5D, i), 0.0
        for _ in range(repeats):
            d = rng.randn(fake.shape[-2] * fake.shape[-1], directions).to(fake.device)
            d = d / d.norm(dim=0)
            for few in d.split(DIRECTIONS, 1):
                a, b = (_sorted(_projected(*one, few)) for one in sets)
                total += float(a.sub_(b).abs_().mean(1).sum())
        scores[f"swd_{name}"] = 1000 * total / (repeats * directions)
    return {"swd": sum(scores.values()) / levels} | scores


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """[n, P, 3, K] → mean and deviation of each colour, [3, 1] float32, of which only a chunk is held in float64."""
    each = x.shape[0] * x.shape[1] * x.shape[3]
    mean = torch.stack([part.double().sum((0, 1, 3)) for part in x.split(CHUNK)]).sum(0)[:, None] / each
    square = torch.stack([(part.double() - mean).square_().sum((0, 1, 3)) for part in x.split(CHUNK)]).sum(0)[:, None]
    return mean.float(), (square / each).sqrt().clamp(min=1e-8).float()


def _projected(x: Tensor, mean: Tensor, deviation: Tensor, directions: Tensor) -> Tensor:
    """[n, P, 3, K] brought to mean 0 and deviation 1, on directions [3·K, D] → [D, n·P].

    Bringing them there is left to the directions: (x − m) / s · d = x · (d / s) − (m / s) · d.
    """
    each = x.shape[3]
    scaled = directions / deviation.repeat_interleave(each, 0)  # [3·K, D]
    shift = (mean.repeat_interleave(each, 0) * scaled).sum(0)[:, None]  # [D, 1]
    out = torch.empty(directions.shape[1], x.shape[0] * x.shape[1], device=x.device)
    for start, part in zip(range(0, out.shape[1], CHUNK * x.shape[1]), x.split(CHUNK)):
        flat = part.float().flatten(0, 1).flatten(1)  # [n·P, 3·K]
        out[:, start : start + len(flat)] = (scaled.T @ flat.T).sub_(shift)
    return out


def _sorted(rows: Tensor) -> Tensor:
    """Each row sorted, in place where NumPy does it, whose sort of float32 is ten times as fast as torch's on a CPU."""
    if rows.device.type != "cpu":
        return rows.sort(1).values
    for row in rows.numpy():
        row.sort()
    return rows


METRIC = Metric(
    lambda e: compute(e.fake["patches"], e.real["patches"], seed=e.seed),
    networks=("patches",),
    features=("patches",),
    reference=True,
    smallest=SMALLEST,
    power_of_two=True,
    lower=True,
    distance=True,
    order=90,
)
