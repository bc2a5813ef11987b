"""The network of a judge that looks at the object: where it is first, then what is there and in which colour."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (24, 48, 96, 128)  # channels at 32, 16, 8 and 4 pixels a side


class Sight(nn.Module):
    """A small U-Net (https://arxiv.org/abs/1505.04597): classes are pooled from where its mask sees an object."""

    def __init__(self, objects: int, colors: int):
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(block(c_in, c_out, stride=2), block(c_out, c_out)) for c_in, c_out in pairwise((3, *WIDTHS))
        )
        upwards = list(pairwise(reversed(WIDTHS)))
        self.lift = nn.ModuleList(nn.Conv2d(c_in, c_out, 1) for c_in, c_out in upwards)
        self.up = nn.ModuleList(block(c_out, c_out) for _, c_out in upwards)
        self.mask = nn.Conv2d(WIDTHS[0], 1, 1)
        self.object = nn.Linear(2 * (WIDTHS[1] + WIDTHS[2]), objects)
        self.color = nn.Linear(2 * WIDTHS[1] + 3, colors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images [N, 3, 64, 64] in [-1, 1] → logits of objects [N, objects], of colours [N, colours], and of the place
        of the object [N, 1, 32, 32]."""
        x, passed = images, []
        for layer in self.down:
            x = layer(x)
            passed.append(x)
        levels = []  # at 8, 16 and 32 pixels
        for lift, layer, fine in zip(self.lift, self.up, reversed(passed[:-1])):
            x = layer(F.interpolate(lift(x), scale_factor=2.0) + fine)
            levels.append(x)
        mask = self.mask(x)
        coarse, middle, _ = (pool(level, mask) for level in levels)
        seen = weighted(images, mask)
        return self.object(torch.cat((coarse, middle), 1)), self.color(torch.cat((middle, seen), 1)), mask


def block(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


def weighted(x: Tensor, mask: Tensor) -> Tensor:
    """[N, C, H, W] and logits of places [N, 1, h, w] → [N, C]: the mean over the places seen."""
    weight = F.interpolate(mask.float().sigmoid(), x.shape[-2:], mode="area")
    return (x * weight).sum((2, 3)) / (weight.sum((2, 3)) + 1)


def pool(x: Tensor, mask: Tensor) -> Tensor:
    """[N, C, H, W] and logits of places [N, 1, h, w] → [N, 2·C]: mean and maximum over the places seen."""
    weight = F.interpolate(mask.float().sigmoid(), x.shape[-2:], mode="area")
    return torch.cat((weighted(x, mask), (x * weight).amax((2, 3))), 1)
