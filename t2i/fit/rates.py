"""How fast a fitted network learns."""

import math


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest: a tenth of the steps up, then half a cosine down."""
    warm = max(1, steps // 10)
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
