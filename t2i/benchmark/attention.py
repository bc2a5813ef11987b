"""Fused attention against plain mathematics, over sequence lengths."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from t2i.benchmark.timing import kept, seconds
from t2i.nets.layers.attention import attention

COLUMNS = {
    "length": "", "form": "", "forward": ".1f", "+backward": ".1f", "penalty": ".1f", "MB kept": ".1f", "error": ".1e",
}  # fmt: skip


def compare(
    lengths: Sequence[int], batch: int, heads: int, precision: str, repeat: int, device: torch.device
) -> list[dict[str, Any]]:
    """Milliseconds forward, with backward, and of a gradient penalty, which differentiates twice; memory; and the
    largest error against float64. Every second sequence is masked in its second half."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    rows = []
    for length in lengths:
        shape = (batch, length, heads, 64)
        torch.manual_seed(0)
        q, k, v = (torch.randn(shape, device=device).to(dtype).requires_grad_() for _ in range(3))
        mask = torch.arange(length, device=device) < torch.tensor([[length], [length // 2]], device=device)
        mask = mask[torch.arange(batch, device=device) % 2]
        with torch.no_grad():
            exact = plain_attention(q.double(), k.double(), v.double(), mask)
        for name, function in (("plain", plain_attention), ("ours", attention)):
            forward = partial(function, q, k, v, mask)
            phases: dict[str, Callable[[], Any]] = {
                "forward": partial(_without_graph, forward),
                "+backward": partial(_backward, forward, (q, k, v)),
                "penalty": partial(_penalty, forward, q, v),
            }
            rows.append({
                "length": length, "form": name,
                **{phase: 1e3 * seconds(call, repeat, device) for phase, call in phases.items()},
                "MB kept": kept(forward) / 2**20,
                "error": float((_without_graph(forward).double() - exact).abs().max()),
            })  # fmt: skip
    return rows


def plain_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q, k, v [B, N, heads, C]; mask [B, N] bool: keys that count."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    logits = q @ k.mT * q.shape[-1] ** -0.5
    p = logits.masked_fill(~mask[:, None, None], -math.inf).softmax(-1)
    return (p @ v).transpose(1, 2)


def _without_graph(forward: Callable[[], Tensor]) -> Tensor:
    with torch.no_grad():
        return forward()


def _backward(forward: Callable[[], Tensor], inputs: tuple[Tensor, ...]) -> None:
    torch.autograd.grad(forward().sum(), inputs)


def _penalty(forward: Callable[[], Tensor], q: Tensor, v: Tensor) -> None:
    (slope,) = torch.autograd.grad(forward().sum(), v, create_graph=True)
    torch.autograd.grad(slope.square().sum(), q)
