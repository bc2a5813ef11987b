"""What losses may look at: a batch, its fakes and every feature of either, each computed at most once."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2i.augment import augment
from t2i.interfaces import Batch, Judgement, Text
from t2i.nets import ops
from t2i.parallel import gather
from t2i.rng import Rng

if TYPE_CHECKING:
    from t2i.step import Run


class Views:
    """Lazy features of one round of one network's update. A loss that nobody asks for costs nothing."""

    def __init__(self, run: Run, batch: Batch, text: Text, fake: Tensor, rng: Rng):
        self.run, self.batch, self.text, self.fake, self.rng = run, batch, text, fake, rng
        self.real = batch.image  # [B, 3, H, W] in [-1, 1]

    def _judge(self, image: Tensor) -> Judgement:
        image = blur(image, blur_sigma(self.run))
        if self.run.ada_p > 0:
            image = augment(image, self.run.ada_p, self.rng, self.run.config.ada.ops)
        return self.run.D(image, self.text)

    @cached_property
    def real_judgement(self) -> Judgement:
        return self._judge(self.real)

    @cached_property
    def fake_judgement(self) -> Judgement:
        return self._judge(self.fake)

    @cached_property
    def fake_clip(self) -> Tensor:
        """[B, C] CLIP image features of random crops of the fakes, unit length."""
        assert self.run.clip is not None
        return self.run.clip.image_features(self.fake, self.rng, self.run.config.encoders.cut_size)

    @cached_property
    def clip_text(self) -> Text:
        """The captions in the space of `fake_clip`."""
        encoders = self.run.config.encoders
        if encoders.text == encoders.clip:
            return self.text
        assert self.run.clip is not None
        return self.run.clip.text(self.batch.captions)

    @cached_property
    def same(self) -> Tensor:
        """[B, world·B] bool: rows of one picture, or with one caption, are no negatives of each other."""
        digests = [hashlib.blake2b(c.strip().lower().encode(), digest_size=7).digest() for c in self.batch.captions]
        caption = torch.tensor([int.from_bytes(d) for d in digests], device=self.real.device)
        key = torch.stack([self.batch.image_id, caption], dim=1)  # [B, 2]
        return (key[:, None] == gather(key)[None]).any(2)


def blur_sigma(run: Run) -> float:
    """σ, in pixels, of the blur over all that the discriminator sees; falls to 0 with the pictures seen."""
    train, model = run.config.train, run.config.model
    sigma = train.d_blur
    if sigma is None:
        sigma = 10.0 if (model.name, model.stylegan3) == ("stylegan3", "r") else 0.0
    return sigma and sigma * max(1 - run.images / (1000 * train.d_blur_kimg), 0.0)


def blur(image: Tensor, sigma: float) -> Tensor:
    """image [B, C, H, W] convolved with 2^-(x/σ)² for |x| ≤ ⌊3σ⌋ (2106.12423, appendix D.1), zeros outside of it."""
    reach = int(3 * sigma)
    if reach == 0:
        return image
    f = torch.arange(-reach, reach + 1, device=image.device).div(sigma).square().neg().exp2()
    return ops.filter2d(image, f / f.sum())
