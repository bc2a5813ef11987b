"""The exponential moving average of the generator's weights, from which pictures are drawn."""

import torch
from torch import nn

from t2i.encoders.frozen import own_buffers, own_parameters


def decay(batch: int, images: float, half_life_kimg: float, ramp: float | None) -> float:
    """β of one step: half the weight is newer than `half_life_kimg` thousand pictures (StyleGAN2-ADA).

    Early in training the half-life is at most `ramp` of the pictures seen, so that the average forgets the start.
    """
    half_life = half_life_kimg * 1000
    if ramp is not None:
        half_life = min(half_life, images * ramp)
    return 0.5 ** (batch / max(half_life, 1e-8))


@torch.no_grad()
def update(average: nn.Module, model: nn.Module, beta: float) -> None:
    """average ← lerp(model, average, β) for parameters; buffers are copied. Frozen networks inside serve both."""
    torch._foreach_lerp_([*own_parameters(average)], [*own_parameters(model)], 1 - beta)
    for a, b in zip(own_buffers(average), own_buffers(model), strict=True):
        a.copy_(b)
