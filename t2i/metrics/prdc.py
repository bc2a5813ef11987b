"""Precision and recall (Kynkäänniemi et al. 2019, 1904.06991), density and coverage (Naeem et al. 2020, 2002.09797)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.rng import derive_seed

SAME = 1e-12  # of the squared lengths: a squared distance below that is rounding, and the two are one
TIE = 1e-9  # of a radius: what is nearer to it than that is as far
CHUNK = 512  # rows at a time: with 50,000 pictures a block of distances takes 0.2 GB


def compute(fake: Tensor, real: Tensor, k: int = 5, chunk: int = CHUNK) -> dict[str, Tensor]:
    """fake [N, C], real [M, C] → one value a picture, whose mean is the score:

    "precision" [N]: it lies in the ball of some real picture, whose radius is the distance to its k-th neighbour;
    "recall" [M]: the same with the roles exchanged; "density" [N]: in how many balls of real pictures, over k (so
    it may exceed 1); "coverage" [M]: some fake lies in this real picture's ball. float64; memory grows with chunk·M,
    not with N·M. Published: k = 3 with 50,000 pictures, k = 5 with 10,000.
    """
    if min(len(fake), len(real)) <= k:
        raise UserError(f"prdc: {len(fake)} and {len(real)} pictures; more than k = {k} of each")
    # Of equal distances, as duplicates have, neither is smaller, whatever their rounding.
    real_radius, fake_radius = (radii(x, k, chunk) * (1 - TIE) for x in (real, fake))
    balls = torch.zeros(len(fake), dtype=torch.float64)  # of real pictures, each fake in how many
    recall, coverage = [], []
    for rows, far in distances(real, fake, chunk):  # [c, N]
        inside = far < real_radius[rows, None]
        balls += inside.sum(0).cpu()
        coverage.append(inside.any(1))
        recall.append((far < fake_radius).any(1))
    return {
        "precision": (balls > 0).double(),
        "recall": torch.cat(recall).double().cpu(),
        "density": balls / k,
        "coverage": torch.cat(coverage).double().cpu(),
    }


def radii(x: Tensor, k: int, chunk: int = CHUNK) -> Tensor:
    """x [N, C] → [N] float64: the distance of each to its k-th nearest other."""
    nearest = []
    for rows, far in distances(x, x, chunk):
        far[torch.arange(len(far), device=x.device), torch.arange(len(x), device=x.device)[rows]] = (
            torch.inf
        )  # not to itself
        nearest.append(far.topk(k, 1, largest=False).values[:, -1])
    return torch.cat(nearest)


def distances(a: Tensor, b: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a, and their distances [c, len(b)] to all of b, in float64, of which only a chunk is held."""
    centre = torch.stack([part.double().sum(0) for part in b.split(chunk)]).sum(0) / len(b)
    for start in range(0, len(a), chunk):
        rows = slice(start, min(start + chunk, len(a)))
        x = a[rows].double() - centre  # near 0, so that the difference below loses few digits
        far = []
        for part in b.split(8 * chunk):
            y = part.double() - centre
            lengths = x.square().sum(1, keepdim=True) + y.square().sum(1)
            square = lengths - 2 * x @ y.T
            far.append(square.masked_fill_(square < SAME * lengths, 0))
        yield rows, torch.cat(far, 1).clamp_(min=0).sqrt_()


def measured(e: Evidence, features: str, prefix: str = "") -> dict[str, Tensor | float]:
    """Of the named features, of as many pictures of either set: with more real than generated ones their balls shrink
    and precision with them, and recall rises. Of the larger set the seed draws so many.

    Recall and coverage have no interval: their rows are real pictures, and say nothing of other generated ones."""
    fake, real = equally_many(e.fake[features], e.real[features], e.seed)
    rows = compute(fake, real, neighbours(len(fake)))
    return {prefix + name: v if name in ("precision", "density") else float(v.mean()) for name, v in rows.items()}


def equally_many(fake: Tensor, real: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """[N, C], [M, C] → as many rows of each, of the larger set drawn by the seed."""
    count, rng = min(len(fake), len(real)), np.random.default_rng(derive_seed(seed, 0x93DC))
    some = lambda x: x if len(x) == count else x[torch.from_numpy(rng.permutation(len(x))[:count]).to(x.device)]
    return some(fake), some(real)


def neighbours(count: int) -> int:
    """k as published for so many pictures."""
    return 3 if count >= 50000 else 5


def settings(samples: int, reference_count: int) -> dict[str, Any]:
    """For the protocol."""
    count = min(samples, reference_count)
    return {"k": neighbours(count), "of each": count}


METRIC = Metric(
    lambda e: measured(e, "inception"),
    networks=("inception",),
    features=("inception",),
    reference=True,
    version=2,  # 1 took all pictures of both sets, however many of each
    settings=settings,
    scores=("precision", "recall", "density", "coverage"),
    distance=True,  # nor is density ever below 0
    order=40,
)
