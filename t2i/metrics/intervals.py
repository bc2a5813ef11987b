"""How far a score may be off for the pictures that chance drew: intervals that cover what they say in 95 % of draws.

What is covered is the score that as many other pictures of the same source would have on average. tests/test_intervals
draws many sets and counts. Resampling with replacement is not used: duplicates are what no drawn set has, and scores
of whole sets, such as FID, take them for lost variety.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

from t2i.rng import derive_seed

LEVEL = 0.95
NORMAL = 1.959964  # deviations of a normal distribution within which 95 % lie

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A score that knows its own standard deviation."""

    value: float
    deviation: float

    @property
    def interval(self) -> Interval:
        return self.value - NORMAL * self.deviation, self.value + NORMAL * self.deviation


def student(freedom: int) -> float:
    """Deviations within which 95 % lie where the deviation itself is estimated with so many degrees of freedom."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def of_mean(values: Tensor, owner: Tensor | None = None) -> Interval:
    """values [N ≥ 2] → the interval of their mean: Wilson's (1927) of rows that are all 0 or 1, else Student's.

    owner [N]: the picture each belongs to, where several of one picture are not independent.
    """
    x = values.double().cpu()
    if owner is not None and len(owner.unique()) < len(x):
        groups = owner.cpu().unique(return_inverse=True)[1]
        count = int(groups.max()) + 1
        sums = torch.zeros(count, dtype=x.dtype).index_add_(0, groups, x - x.mean())
        half = student(count - 1) * math.sqrt(count / (count - 1) * float(sums.square().sum())) / len(x)
        return float(x.mean()) - half, float(x.mean()) + half
    n, mean = len(x), float(x.mean())
    if ((x == 0) | (x == 1)).all():
        z2 = NORMAL**2
        middle = (mean + z2 / (2 * n)) / (1 + z2 / n)
        half = NORMAL / (1 + z2 / n) * math.sqrt(mean * (1 - mean) / n + z2 / (4 * n * n))
        return max(middle - half, 0.0), min(middle + half, 1.0)
    half = student(n - 1) * float(x.std()) / math.sqrt(n)
    return mean - half, mean + half


def parts_of(count: int, parts: int, seed: int = 0) -> list[Tensor]:
    """The rows of each of so many parts of `count` pictures, drawn by the seed."""
    order = np.random.default_rng(derive_seed(seed, 0xB1)).permutation(count)
    return [torch.from_numpy(np.sort(part)) for part in np.array_split(order, min(parts, count))]


def of_sets(
    measure: Callable[[Tensor], dict[str, float]], count: int, value: dict[str, float], parts: int, seed: int = 0
) -> tuple[dict[str, Interval], dict[str, float]]:
    """Intervals of scores that only a whole set has, such as FID, and their bias, by `jackknife`.

    measure: rows of the `count` judged pictures → scores; value: those of all. Each of `parts` parts is left out once;
    what is left has no picture twice.
    """
    split = parts_of(count, parts, seed)
    left = lambda number: torch.cat([part for n, part in enumerate(split) if n != number]).sort().values
    return jackknife(lambda number: measure(left(number)), len(split), value)


def jackknife(
    without: Callable[[int], dict[str, float]], parts: int, value: dict[str, float]
) -> tuple[dict[str, Interval], dict[str, float]]:
    """Intervals and bias by Tukey (1958). without: the scores of all pictures but one part's, by its number; value:
    those of all. Bias: what as many pictures add to the score of infinitely many."""
    found = [without(number) for number in range(parts)]
    out, bias = {}, {}
    for name, v in value.items():
        scores = np.array([f[name] for f in found])
        half = student(parts - 1) * math.sqrt((parts - 1) / parts * float(np.square(scores - scores.mean()).sum()))
        out[name] = v - half, v + half
        bias[name] = (parts - 1) * (float(scores.mean()) - v)
    return out, bias
