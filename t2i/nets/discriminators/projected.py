"""A discriminator that sees through a frozen image network (Projected GAN, 2111.01007), conditioned on text.

The trunk's maps of several scales are mixed by fixed random convolutions, and a small head judges each. The trunk and
the mixing never learn. Legend: B batch, C channels, K logits; pictures are nominally in [-1, 1].
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from t2i.encoders.clip import resample
from t2i.encoders.trunk import Trunk, load_trunk
from t2i.errors import not_one_of, wrong
from t2i.interfaces import Judgement, Stage, Text
from t2i.nets import contract
from t2i.nets.contract import Dimensions
from t2i.nets.layers.equalised import FullyConnected

REGIONS = 16  # side of the map of regions that words are compared with, at most
MAP = 64  # channels in which text and picture meet: cmap_dim of the published code


@dataclass
class Options:
    """Of `discriminator` in a configuration."""

    GROWS: ClassVar[bool] = True  # the trunk sees pictures of one size, whatever they are

    name: str = "projected"
    trunk: str = "efficientnet-lite0"  # ... -lite2 (of t2i[pretrained]), or timm:NAME, as in t2i/encoders/trunk.py
    input: int = 0  # side to which pictures are brought before the trunk; 0: that of the finished ones (published: 224)
    levels: list[int] = field(default_factory=lambda: [1, 2, 3, 4])  # of the trunk's maps, from fine to coarse
    mixing: str = "scales"  # scales (top-down, as published), channels (each level by itself) or none
    channels: int = 32  # of the finest mixed map, doubled from level to level (published: 64)
    double: bool = True  # mixed maps are judged at twice the trunk's resolution, as published
    head_channels: int = 128  # of a head's last map, halved towards its first ... (published: 512)
    head_least: int = 32  # ... but no fewer than these (published: 64)
    pixels: int = 0  # channels of one more head, on the pictures themselves, as trunks hardly mind colour; 0: none
    norm: str = "group"  # between a head's layers: group, batch (published; statistics of one process) or none

    def problems(self, resolution: int) -> list[str]:
        positive = ("channels", "head_channels", "head_least")
        return [
            *(p for name in positive for p in wrong(getattr(self, name) > 0, name, getattr(self, name), "above 0")),
            *wrong(self.pixels >= 0 and self.pixels % 8 == 0, "pixels", self.pixels, "a multiple of 8, or 0"),
            *not_one_of("mixing", self.mixing, "scales", "channels", "none"),
            *not_one_of("norm", self.norm, "group", "batch", "none"),
            *wrong(
                self.levels == sorted({n for n in self.levels if n >= 0}) != [],
                "levels", self.levels, "rising numbers of the trunk's maps, as [1,2,3,4]",
            ),
            *wrong(self.input == 0 or self.input >= 32, "input", self.input, "0, or 32 and more"),
        ]  # fmt: skip


class Projector(nn.Module):
    """Pictures → mixed maps of the trunk, each with variance near 1 on natural pictures. Nothing of it learns; the
    random mixing is saved with the discriminator, the trunk is not."""

    scale: Tensor  # [levels]

    def __init__(self, trunk: Trunk, levels: Sequence[int], mixing: str, channels: int, twice: bool, side: int):
        """twice: at twice the resolution. side: of the pictures that the trunk sees."""
        super().__init__()
        self.trunk = trunk
        wide = [trunk.channels[n] for n in levels]
        out = [channels << k for k in range(len(levels))] if mixing != "none" else wide
        # 1×1 convolutions commute with bilinear resizing, so that they come before it, where they are cheap.
        self.across = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(wide, out) if mixing != "none")
        down = [out[0], *out[:-1]]
        self.along = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(out, down) if mixing == "scales")
        self.levels, self.twice = list(levels), twice and mixing == "scales"
        self.channels = down if self.twice else out
        self.register_buffer("scale", torch.ones(len(levels)))
        for conv in (*self.across, *self.along):
            conv.requires_grad_(False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")  # type: ignore[arg-type]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            maps = self(clouds(32, side))
            self.sides = [x.shape[-1] for x in maps]
            self.scale.copy_(torch.stack([1 / x.std() for x in maps]))

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B, 3, H, W] in [-1, 1] → a map [B, C, h, w] a level, from fine to coarse."""
        # A CPU computes the backward pass of the trunk's depthwise convolutions twice as fast in float32.
        with nullcontext() if image.is_cuda else torch.autocast(image.device.type, enabled=False):
            maps = self.trunk.pyramid(image if image.is_cuda else image.float(), self.levels)
            maps = [conv(x) for conv, x in zip(self.across, maps)] if len(self.across) else maps
            if len(self.along):
                finer = [2 * maps[0].shape[-1], *(x.shape[-1] for x in maps)]
                coarse = maps[-1].new_zeros(())
                for k in reversed(range(len(maps))):
                    maps[k] = maps[k] + coarse
                    if k or self.twice:
                        coarse = F.interpolate(
                            self.along[k](maps[k]), [finer[k]] * 2, mode="bilinear", align_corners=True
                        )
                    if self.twice:
                        maps[k] = coarse
            return [x * s for x, s in zip(maps, self.scale)]


def clouds(count: int, side: int) -> Tensor:
    """[count, 3, side, side] in [-1, 1]: noise with the power spectrum of natural pictures, 1/f² (Field 1987), always
    the same one; what the scale of features is found on."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 3, side, side, generator=generator)
    f = torch.fft.fftfreq(side)
    distance = (f[:, None].square() + f[None].square()).sqrt().clamp(min=1 / side)
    x = torch.fft.ifft2(torch.fft.fft2(noise) / distance).real
    mixed = 0.9 * x.mean(1, keepdim=True) * math.sqrt(3) + 0.45 * x  # channels of photographs are alike
    return (mixed / mixed.std() * 0.5).clamp(-1, 1)


class Head(nn.Module):
    """Judges one map: [B, C, h, w] → hidden [B, W, e, e], and [B, MAP, K] for the text to be projected on."""

    def __init__(self, i: int, side: int, end: int, most: int, least: int, norm: str):
        super().__init__()
        layers: list[nn.Module] = []
        while side > end:
            side //= 2
            o = max(most * end // side, least)
            layers += [spectral_norm(nn.Conv2d(i, o, 4, 2, 1)), normalisation(norm, o), nn.LeakyReLU(0.2)]
            i = o
        self.body = nn.Sequential(*layers)
        self.out = spectral_norm(nn.Conv2d(i, MAP, min(4, end), bias=False))
        self.width = i

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return hidden, self.out(hidden).flatten(2)


def normalisation(kind: str, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(8, channels)


class Discriminator(contract.Discriminator):
    """Picture and caption → Judgement: K logits of all heads and places, each the projection of the caption on a place
    (1802.05637); the embedding is of all heads' hidden maps, averaged over places."""

    def __init__(self, options: Options, dimensions: Dimensions):
        super().__init__()
        o, d = options, dimensions
        side = o.input or d.resolution
        self.projector = Projector(load_trunk(o.trunk, size=side), o.levels, o.mixing, o.channels, o.double, side)
        sides = self.projector.sides
        end = max(sides[-1] // 2, 1)
        most, least = (max(8, round(n * d.width / 8) * 8) for n in (o.head_channels, o.head_least))
        self.side, self.shapes = side, [(c, s, s) for c, s in zip(self.projector.channels, sides)]
        self.heads = nn.ModuleList(Head(c, s, end, most, least, o.norm) for c, s, _ in self.shapes)
        if o.pixels:
            self.heads.append(Head(3, side, 4, o.pixels, o.pixels, o.norm))
            self.shapes.append((3, side, side))
        self.text = FullyConnected(d.text, MAP, bias=1.0)
        self.embed = FullyConnected(sum(head.width for head in self.heads), d.text)  # type: ignore[misc]
        self.region_level = next((k for k, side in enumerate(sides) if side <= REGIONS), None) if d.regions else None
        if self.region_level is not None:
            self.regions = nn.Conv2d(self.projector.channels[self.region_level], d.text, 1)
            self.words = FullyConnected(d.words, d.text)

    def look(self, image: Tensor, stage: Stage | None = None) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] → [B, N], the mixed maps of all levels end to end, and the pixels if they are
        judged."""
        maps = self.projector(image)
        if len(self.heads) > len(maps):
            maps.append(image if image.shape[-1] == self.side else resample(image, self.side))
        return torch.cat([x.flatten(1) for x in maps], 1)

    def forward(self, image: Tensor, text: Text, stage: Stage | None = None) -> Judgement:
        """image [B, 3, H, W] in [-1, 1], or the look at it [B, N] → logit [B, K] and embedding [B, text], float32.

        extra: "places" [B, MAP, K], for other captions; where losses compare words with regions, "regions"
        [B, text, h, w] of the first map of at most 16 × 16, and "words" [B, L, text].
        """
        seen = self.look(image, stage) if image.ndim == 4 else image
        parts = seen.split([math.prod(shape) for shape in self.shapes], 1)
        maps = [x.unflatten(1, shape) for x, shape in zip(parts, self.shapes)]  # [B, C, h, w] each
        hidden, places = zip(*(head(x) for head, x in zip(self.heads, maps)))
        embedding = self.embed(torch.cat([h.float().mean((2, 3)) for h in hidden], 1))
        joined = torch.cat(places, 2).float()
        judgement = Judgement(self.logit(joined, text), embedding, {"places": joined})
        if self.region_level is not None:
            judgement.extra |= {"regions": self.regions(maps[self.region_level]), "words": self.words(text.words)}
        return judgement

    def judge_again(self, seen: Judgement, text: Text) -> Tensor:
        """[B, K]; captions enter last."""
        return self.logit(seen.extra["places"], text)

    def logit(self, places: Tensor, text: Text) -> Tensor:
        """[B, K] of places [B, MAP, K] and any captions."""
        sentence = text.sentence * math.sqrt(text.sentence.shape[1])  # to variance 1, or it goes unheard
        return (places * self.text(sentence)[:, :, None]).sum(1) / math.sqrt(MAP)
