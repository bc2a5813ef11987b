"""What the parts hand each other. Legend for shapes: B batch, L words, C channels, H height, W width."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass
class Text:
    """Encoded captions, one a row."""

    sentence: Tensor  # [B, C] float, unit length
    words: Tensor  # [B, L, C'] float
    mask: Tensor  # [B, L] bool, True where a word stands

    def __len__(self) -> int:
        return len(self.sentence)

    def __getitem__(self, rows: Any) -> "Text":
        return Text(self.sentence[rows], self.words[rows], self.mask[rows])

    def detach(self) -> "Text":
        return Text(*(getattr(self, f.name).detach() for f in fields(self)))

    def to(self, device: torch.device | str) -> "Text":
        return Text(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass
class Batch:
    """Captioned pictures, as the loader yields them."""

    image: Tensor  # [B, 3, H, W] float32 in [-1, 1]
    captions: list[str]  # one drawn per picture
    image_id: Tensor  # [B] int64
    captions2: list[str] | None = None  # a second, distinct caption per picture, when a loss asks for it
    extra: dict[str, Tensor] = field(default_factory=dict)  # other cached fields, each [B, ...]
    broken: list[str] = field(default_factory=list)  # 'tar: key: reason' of samples that were replaced

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device | str) -> "Batch":
        extra = {k: v.to(device) for k, v in self.extra.items()}
        return replace(self, image=self.image.to(device), image_id=self.image_id.to(device), extra=extra)


@dataclass(frozen=True)
class Stage:
    """Where growth stands: a pure function of the configuration and the pictures seen."""

    resolution: int  # of the pictures that G gives and D takes
    alpha: float = 1.0  # weight of the layers that are newest, from 0 to 1; the rest is of the stage before


@dataclass
class Latent:
    """What a generator turns into pictures, one a row."""

    z: Tensor  # [B, latent_dim], N(0, 1)
    extra: dict[str, Tensor] = field(default_factory=dict)  # [B, ...] each: a partner of style mixing, camera poses

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: Any) -> "Latent":
        return Latent(self.z[rows], {name: value[rows] for name, value in self.extra.items()})


@dataclass
class Generated:
    """What a generator drew."""

    image: Tensor  # [B, 3, H, W] nominally in [-1, 1], not clamped
    extra: dict[str, Tensor] = field(default_factory=dict)  # [B, ...] each: depth, pose, another view


@dataclass
class Judgement:
    """What a discriminator says of pictures and captions."""

    logit: Tensor  # [B], or [B, K] of K heads; above 0: real
    embedding: Tensor  # [B, C] in the space of Text.sentence, not normalised
    # What only some discriminators or losses know. Where losses compare words with regions: "regions" [B, C, h, w], and
    # "words" [B, L, C], the caption's words in their space.
    extra: dict[str, Tensor] = field(default_factory=dict)
