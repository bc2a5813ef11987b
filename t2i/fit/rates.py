"""How fast a fitted network learns."""

import math
from collections.abc import Sequence

import torch
from torch import nn


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest: a tenth of the steps up, then half a cosine down."""
    warm = max(1, steps // 10)
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def adamw(
    parts: Sequence[tuple[nn.Module, float]], steps: int, eps: float = 1e-8
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    """Optimizer of all that learns in modules, each with its highest learning rate, and the schedule of those rates;
    matrices decay."""
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad and (p.ndim > 1) == matrix], "lr": lr,
         "weight_decay": 0.1 * matrix}
        for part, lr in parts for matrix in (True, False)
    ]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=eps)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step + 1, steps))
