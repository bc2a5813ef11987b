"""The network of all judges, which looks at objects: where they are first, then what is there and in which colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.probes.classifier import fit

WIDTHS = (24, 48, 96, 128)  # channels at 32, 16, 8 and 4 pixels a side


@dataclass(frozen=True)
class Seen:
    """Objects of one kind that a judge saw in a picture."""

    object: str
    color: str
    count: int = 1
    x: float = 0.5  # of their middle: 0 is the left edge, 1 the right one


class Sight(nn.Module):
    """A small U-Net (https://arxiv.org/abs/1505.04597): classes are pooled from where its masks see something.

    apart: every object has a mask of its own, so that a picture may show several kinds, each at most once. Otherwise
    one mask finds whatever there is of one kind, once or several times, and a second map marks the core of each: two
    that touch are still counted as two.
    """

    def __init__(self, objects: Sequence[str], colors: Sequence[str], apart: bool = False):
        super().__init__()
        self.objects, self.colors, self.apart = list(objects), list(colors), apart
        self.places = len(self.objects) if apart else 1
        self.down = nn.ModuleList(
            nn.Sequential(block(c_in, c_out, stride=2), block(c_out, c_out)) for c_in, c_out in pairwise((3, *WIDTHS))
        )
        upwards = list(pairwise(reversed(WIDTHS)))
        self.lift = nn.ModuleList(nn.Conv2d(c_in, c_out, 1) for c_in, c_out in upwards)
        self.up = nn.ModuleList(block(c_out, c_out) for _, c_out in upwards)
        self.maps = nn.Conv2d(WIDTHS[0], self.places + (not apart), 1)
        self.object = nn.Linear(2 * (WIDTHS[1] + WIDTHS[2]), len(self.objects) + 1)  # the last is none
        self.color = nn.Linear(2 * WIDTHS[1] + 3, len(self.colors))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1] → logits at each place: of objects, none last [N, P, objects + 1], and of
        colours [N, P, colours]; and logits of its masks [N, P, 32, 32], and of cores behind them if not `apart`."""
        x = images = fit(images)
        passed = []
        for layer in self.down:
            x = layer(x)
            passed.append(x)
        levels = []  # at 8, 16 and 32 pixels
        for lift, layer, fine in zip(self.lift, self.up, reversed(passed[:-1])):
            x = layer(F.interpolate(lift(x), scale_factor=2.0) + fine)
            levels.append(x)
        maps = self.maps(x)
        masks = maps[:, : self.places].float().sigmoid()
        coarse, middle, _ = (pool(level, masks) for level in levels)
        seen = weighted(images, masks)
        return self.object(torch.cat((coarse, middle), 2)), self.color(torch.cat((middle, seen), 2)), maps

    @torch.no_grad()
    def look(self, images: Tensor, batch: int = 256) -> list[list[Seen]]:
        """images [N, 3, H, W] in [-1, 1] → what is seen in each picture: nothing, or things of different kinds."""
        device = self.object.weight.device
        return [seen for part in images.split(batch) for seen in self._look(part.to(device).float())]

    def _look(self, images: Tensor) -> list[list[Seen]]:
        objects, colors, maps = self(images)
        kinds, paints = objects.argmax(2).tolist(), colors.argmax(2).tolist()
        masks, cores = maps[:, : self.places].sigmoid(), (maps[:, -1] > 0).cpu().numpy()
        across = (torch.arange(masks.shape[-1], device=masks.device) + 0.5) / masks.shape[-1]
        middles = ((masks.sum(2) * across).sum(2) / masks.sum((2, 3)).clamp(min=1e-6)).tolist()
        out = []
        for n, whole in enumerate(kinds):
            here = [p for p, k in enumerate(whole) if k < len(self.objects) and (k == p or not self.apart)]
            count = 1 if self.apart else max(counted(cores[n]), 1)
            out.append([Seen(self.objects[whole[p]], self.colors[paints[n][p]], count, middles[n][p]) for p in here])
        return out


def counted(cores: np.ndarray) -> int:
    """[H, W] bool → how many connected parts it has, diagonal neighbours being connected."""
    return ndimage.label(cores, np.ones((3, 3)))[1]


def block(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())


def weighted(x: Tensor, masks: Tensor) -> Tensor:
    """[N, C, H, W] and masks [N, P, h, w] in 0..1 → [N, P, C]: the mean over the places seen."""
    weight = F.interpolate(masks, x.shape[-2:], mode="area")
    return torch.einsum("nchw,nphw->npc", x.float(), weight) / (weight.sum((2, 3))[..., None] + 1)


def pool(x: Tensor, masks: Tensor) -> Tensor:
    """[N, C, H, W] and masks [N, P, h, w] in 0..1 → [N, P, 2·C]: mean and maximum over the places seen."""
    weight = F.interpolate(masks, x.shape[-2:], mode="area")
    most = (x[:, None] * weight[:, :, None]).amax((3, 4))
    return torch.cat((weighted(x, masks), most), 2)
