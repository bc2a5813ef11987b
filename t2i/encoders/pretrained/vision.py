"""Image models of Hugging Face's transformers (DINOv2, ViT, ConvNeXt, CLIP's image tower …): pooled features."""

import inspect
from typing import Any

import torch
import transformers
from torch import Tensor

from t2i.encoders.clip import standardised
from t2i.encoders.frozen import Frozen
from t2i.encoders.pretrained.hugging_face import reader
from t2i.errors import UserError
from t2i.rng import Rng


class Vision(Frozen):
    """A frozen image model of transformers."""

    network: Any
    mean: Tensor  # [1, 3, 1, 1] of pictures in [0, 1]
    std: Tensor

    def __init__(self, name: str, network: Any, size: int, mean: Any, std: Any, pooler: bool):
        """size: the side to which pictures are brought; pooler: whether the model's own pooling was trained."""
        super().__init__(network=network)
        self.name, self.size, self.pooler = name, size, pooler
        for key, value in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(list(value)).reshape(1, 3, 1, 1), persistent=False)
        takes = inspect.signature(network.forward).parameters  # position codes are fitted to the size by those that ask
        self.options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}

    def features(self, image: Tensor, rng: Rng | None = None) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] → [B, C]: what the model pools, or else its first token; nothing is drawn."""
        pixels = standardised(image, self.size, self.mean, self.std)
        if hasattr(self.network, "get_image_features"):  # of two towers, in the space of the captions
            return self.network.get_image_features(pixel_values=pixels, **self.options).pooler_output
        out = self.network(pixel_values=pixels, **self.options)
        pooled = getattr(out, "pooler_output", None) if self.pooler else None
        if pooled is None:  # [B, places, C] of transformers, [B, C, h, w] of convolutions
            pooled = out.last_hidden_state
            pooled = pooled[:, 0] if pooled.ndim == 3 else pooled.mean((2, 3))
        return pooled.flatten(1)


def load_vision(name: str, size: int, device: torch.device | str = "cpu") -> Vision:
    """`name`: hf:NAME (of the cache, or fetched) or hf:FOLDER; code that comes with a model is never run.

    UserError in one line where it cannot be had, lacks weights, or is no model of images.
    """
    part = reader(name, name.removeprefix("hf:"), "trunk")
    config = part(transformers.AutoConfig)
    processor = part(transformers.AutoImageProcessor)
    network, report = part(transformers.AutoModel, output_loading_info=True, dtype=torch.float32)
    lacking = [key for key in report["missing_keys"] if "pooler" not in key]
    if lacking:
        raise UserError(f"trunk {name!r}: the weights lack {lacking[0]} and {len(lacking) - 1} more that it needs")
    if "pixel_values" not in inspect.signature(network.forward).parameters:
        raise UserError(f"trunk {name!r}: a {config.model_type} reads no pictures; name an image model")
    mean, std = (getattr(processor, key, None) for key in ("image_mean", "image_std"))
    if mean is None or std is None:
        raise UserError(f"trunk {name!r}: its preprocessor_config.json has no image_mean and image_std")
    return Vision(name, network, size, mean, std, len(report["missing_keys"]) == 0).to(device)
