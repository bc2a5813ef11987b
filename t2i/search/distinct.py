"""The best candidates that are not all the same one."""

import numpy as np

NEAR = 0.9  # cosine from which two latents count as the same


def distinct(points: np.ndarray, scores: np.ndarray, count: int, near: float = NEAR) -> list[int]:
    """Indices of the `count` best of points [n, d] (scores [n], higher is better), no two with a cosine of `near`.

    Greedy, the best first; fewer where there are not as many. Scores that are not finite are left out.
    """
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    open_ = np.isfinite(scores)
    ranked = np.argsort(-np.where(open_, scores, -np.inf), kind="stable")
    chosen: list[int] = []
    for i in ranked:
        if len(chosen) == count:
            break
        if open_[i]:
            chosen.append(int(i))
            open_ &= unit @ unit[i] < near
    return chosen


def similarity(rows: np.ndarray) -> float:
    """The mean cosine between pairs of rows [n, d]: 1 all the same, about 0 unrelated; NaN for fewer than two."""
    n = len(rows)
    if n < 2:
        return float("nan")
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return float((np.square(unit.sum(0)).sum() - n) / (n * (n - 1)))
