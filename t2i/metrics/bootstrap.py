"""How far a score may be off for the pictures that chance drew (Efron 1979)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from t2i.rng import derive_seed

LEVEL = 0.95
RESAMPLES = 1000  # of a mean, which costs nothing


def of_mean(values: Tensor, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """values [N] → the 95 % interval of their mean, from the percentiles of means of resampled values."""
    x = values.double().cpu().numpy()
    rng = np.random.default_rng(derive_seed(seed, 0xB0))
    means = [x[rng.integers(len(x), size=len(x))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_sets(
    measure: Callable[[Tensor], dict[str, float]], count: int, value: dict[str, float], resamples: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Intervals of scores that only a whole set has, such as FID: value ± 1.96 deviations of resampled sets.

    measure: rows [count] of the judged pictures → scores; value: those of all. The spread only is taken from the
    resampled sets: their own scores are biased, because they hold fewer different pictures.
    """
    rng = np.random.default_rng(derive_seed(seed, 0xB1))
    drawn = [measure(torch.from_numpy(rng.integers(count, size=count))) for _ in range(resamples)]
    spread = {name: 1.959964 * float(np.std([d[name] for d in drawn], ddof=1)) for name in value}
    return {name: (v - spread[name], v + spread[name]) for name, v in value.items()}
