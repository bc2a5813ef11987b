"""How far an estimate of the squared MMD lies from the truth, from the kernel itself (Gretton et al. 2012, 0805.2368;
Serfling 1980, section 5.3): what single pictures add to it, and what pairs of them do."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2i.rng import derive_seed

MOST = 5000  # pictures of either set that the spread is estimated from
CHUNK = 1000

Kernel = Callable[[Tensor, Tensor], Tensor]  # [n, C], [m, C] → [n, m]


def deviation(x: Tensor, y: Tensor, kernel: Kernel, reference_too: bool, seed: int = 0) -> float:
    """x [N, C], y [M, C], 3 rows or more each → the standard deviation of the MMD² of x and y over draws of x; of y
    too where `reference_too`."""
    rng = np.random.default_rng(derive_seed(seed, 0x33D))
    pick = lambda a: a[torch.from_numpy(rng.permutation(len(a))[:MOST]).to(a.device)].double()
    m, n = len(x), len(y)
    x, y = pick(x), pick(y)
    xx, yy, xy = _Block.of(x, x, kernel, same=True), _Block.of(y, y, kernel, same=True), _Block.of(x, y, kernel)
    spread = _part(xx, xy.rows, m, len(y), xy.pairs) + 4 * xy.pairs / (m * n)
    if reference_too:
        spread += _part(yy, xy.columns, n, len(x), xy.pairs)
    return math.sqrt(max(spread, 0.0))


def _part(own: "_Block", across: Tensor, count: int, others: int, cross: float) -> float:
    """What one set of `count` adds to the variance. Means of few others are noisy: that part of theirs is taken off."""
    single = float((own.rows - across).var()) - own.pairs / (len(own.rows) - 1) - cross / others
    return 4 * max(single, 0.0) / count + 2 * own.pairs / (count * (count - 1))


@dataclass
class _Block:
    rows: Tensor  # mean of each row of the kernel's matrix
    columns: Tensor
    pairs: float  # variance of what is left of the kernel without its rows' and columns' means

    @classmethod
    def of(cls, a: Tensor, b: Tensor, kernel: Kernel, same: bool = False) -> "_Block":
        rows, columns, square = [], torch.zeros(len(b), dtype=a.dtype, device=a.device), 0.0
        for start in range(0, len(a), CHUNK):
            k = kernel(a[start : start + CHUNK], b)
            if same:  # no picture with itself
                k[torch.arange(len(k)), torch.arange(start, start + len(k))] = 0
            rows.append(k.sum(1))
            columns += k.sum(0)
            square += float(k.square().sum())
        each, down = (len(b) - 1, len(a) - 1) if same else (len(b), len(a))
        r, c = torch.cat(rows) / each, columns / down
        pairs = square / (len(a) * each) - float(r.square().mean() + c.square().mean() - r.mean() ** 2)
        return cls(r, c, max(pairs, 0.0))
