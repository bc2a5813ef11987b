"""Differentiable augmentation (DiffAugment, 2006.10738): all that the discriminator sees is changed a little."""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.rng import Rng, SampleRng


def diffaugment(
    images: Tensor, rng: Rng | SampleRng, color: float = 1.0, translation: float = 1.0, cutout: float = 1.0
) -> Tensor:
    """images [B, 3, H, W], nominally in [-1, 1], each differently augmented.

    Strengths from 0, not at all, to 1, as published: brightness ±0.5, saturation times 0 to 2, contrast times 0.5 to
    1.5; shifts by up to an eighth of the side; a grey square of half the side somewhere.
    """
    x = images
    size = x.shape[-1]
    uniform = lambda n: (rng.rand(len(x), n) * 2 - 1).to(x.dtype)
    if color:
        brightness, saturation, contrast = (uniform(3) * color)[:, :, None, None, None].unbind(1)  # [B, 1, 1, 1]
        x = x + 0.5 * brightness
        x = torch.lerp(x.mean(1, keepdim=True), x, 1 + saturation)
        x = torch.lerp(x.mean((1, 2, 3), keepdim=True), x, 1 + 0.5 * contrast)
    if translation:
        reach = round(size * translation / 8)
        shift = ((rng.rand(len(x), 2) * (2 * reach + 1)).floor() - reach).long()  # [B, 2]
        at = torch.arange(size, device=x.device)
        rows, columns = ((at + shift[:, n, None]).clamp(-1, size) + 1 for n in (0, 1))  # [B, H] of the padded picture
        padded = F.pad(x, (1, 1, 1, 1))
        batch = torch.arange(len(x), device=x.device)[:, None, None]
        x = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
    if cutout:
        side = round(size * cutout / 2)
        first = (rng.rand(len(x), 2) * (size + 1 - side % 2)).floor() - side // 2  # [B, 2]
        at = torch.arange(size, device=x.device)
        rows, columns = ((at >= first[:, n, None]) & (at < first[:, n, None] + side) for n in (0, 1))  # [B, H]
        x = x * ~(rows[:, None, :, None] & columns[:, None, None])
    return x
