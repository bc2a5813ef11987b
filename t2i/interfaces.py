"""What the parts hand each other. Legend for shapes: B batch, L words, C channels, H height, W width."""

from dataclasses import dataclass, field, fields, replace

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

    def __getitem__(self, rows) -> "Text":
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


@dataclass
class Judgement:
    """What a discriminator says of pictures and captions."""

    logit: Tensor  # [B] above 0: real
    embedding: Tensor  # [B, C] in the space of Text.sentence, not normalised
    regions: Tensor | None = None  # [B, C, h, w], for losses between words and regions; None where nobody asked
    words: Tensor | None = None  # [B, L, C] the caption's words in the space of the regions
    score: Tensor | None = (
        None  # [B, K] from before the caption entered: D.logit(score, embedding, text) judges another
    )
