"""CLIP's image features, differentiable with respect to the picture (Radford et al. 2021, 2103.00020)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.encoders import pretrained
from t2i.encoders.frozen import Frozen
from t2i.encoders.text import TextEncoder
from t2i.errors import UserError
from t2i.interfaces import Text
from t2i.rng import Rng


class Clip(Frozen):
    """Both towers of a frozen CLIP. Gradients reach the picture, never the weights."""

    text: TextEncoder
    mean: Tensor  # [1, 3, 1, 1]
    std: Tensor
    encode_image: Callable[[Tensor], Tensor]  # [B, 3, size, size] normalised by mean and std → [B, dim]

    def __init__(self, text: TextEncoder, cut_size: float = 1.0):
        """cut_size: the smallest side of a random crop, as a share of the picture's."""
        super().__init__(text=text)
        model = text.model
        if model.encode_image is None:
            raise UserError(f"encoder {model.name!r} reads text only: name a CLIP for encoders.clip")
        self.name, self.size, self.cut_size = text.name, model.image_size, cut_size
        self.encode_image, self.dim = model.encode_image, text.dim
        device = next(model.network.parameters()).device
        for key in ("mean", "std"):
            value = torch.tensor(getattr(model, key), device=device).reshape(1, 3, 1, 1)
            self.register_buffer(key, value, persistent=False)

    def features(self, image: Tensor, rng: Rng | None = None) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] → [B, dim] float32, unit length.

        With an rng and cut_size below 1 each picture is cropped on its own: the side a share of the picture's
        drawn from U(cut_size, 1), the place uniform. The crop, or the whole, is resampled to the encoder's size.
        """
        with torch.autocast(image.device.type, enabled=False):  # bfloat16 has too few digits for pixels
            image = image.float()
            if rng is not None and self.cut_size < 1:
                draw = rng.rand(len(image), 3).to(image.device)
                side = self.cut_size + (1 - self.cut_size) * draw[:, 0]  # [B], as shares of the picture
                place = (1 - side)[:, None] * draw[:, 1:]  # [B, 2] top, left
                image = resample(image, self.size, side, place)
            image = standardised(image, self.size, self.mean, self.std)
        return F.normalize(self.encode_image(image).float(), dim=-1)

    def forward(self, image: Tensor, captions: Sequence[str]) -> tuple[Tensor, Text]:
        """Features of pictures and captions; their products are cosines."""
        return self.features(image), self.text(captions)


def load(
    settings: Any, device: torch.device | str = "cpu", layout: torch.memory_format = torch.contiguous_format
) -> Clip:
    """The CLIP that settings.clip names, with crops of settings.cut_size. Its weights stay as they are laid out: other
    users share them, and a transformer has one convolution."""
    return load_clip(settings.clip, device, settings.cut_size)


def load_clip(name: str, device: torch.device | str = "cpu", cut_size: float = 1.0) -> Clip:
    """The named CLIP (names as for `load_text_encoder`); its network is the same if that was loaded before.

    Raises UserError as `load_text_encoder` does, and where the model has no image tower.
    """
    return Clip(TextEncoder(pretrained.load(name, device)), cut_size)


def standardised(image: Tensor, size: int, mean: Tensor, std: Tensor) -> Tensor:
    """What an image network reads: pictures [B, 3, H, W] in [-1, 1] brought to `size` (0: as they are), and of their
    colours in [0, 1] the distance from the mean [1, 3, 1, 1], in deviations."""
    if size and image.shape[-2:] != (size, size):
        image = resample(image, size)
    return ((image + 1) / 2 - mean) / std


def resample(image: Tensor, size: int, side: Tensor | None = None, place: Tensor | None = None) -> Tensor:
    """[B, C, H, W] → [B, C, size, size]: bicubic with antialiasing, of one window per picture.

    side [B] and place [B, 2] (top, left) give the window as shares of the picture; None is all of it, which
    equals `interpolate(mode="bicubic", antialias=True)`. Two products with matrices of weights: differentiable
    any number of times, and crops of different sizes stay one operation.
    """
    height, width = image.shape[-2:]
    if side is None or place is None:
        side, place = image.new_ones(1), image.new_zeros(1, 2)
    rows = _weights(height, size, side, place[:, 0])  # [B or 1, size, H]
    columns = _weights(width, size, side, place[:, 1])  # [B or 1, size, W]
    return rows[:, None] @ image @ columns[:, None].transpose(2, 3)


def _weights(length: int, size: int, side: Tensor, start: Tensor) -> Tensor:
    """[B, size, length]: the share of each of `length` pixels in each of `size` samples of the window.

    Keys' kernel (1981, eq. 15: a = -1/2), widened by the factor of reduction so that it averages.
    """
    step = side[:, None, None] * length / size  # [B, 1, 1] pixels from sample to sample
    sample = torch.arange(size, device=side.device)[None, :, None] + 0.5
    pixel = torch.arange(length, device=side.device)[None, None] + 0.5
    x = ((pixel - start[:, None, None] * length - sample * step) / step.clamp(min=1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weight = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weight / weight.sum(2, keepdim=True)
