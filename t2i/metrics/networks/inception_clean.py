"""The Inception network of FID behind the resizing of clean-fid (Parmar et al. 2022, 2104.11222): Pillow's bicubic,
whose filter widens with the factor of reduction, in float and without rounding to whole numbers after. Its weights are
those of networks/inception.py."""

from collections.abc import Sequence
from typing import Any

from t2i.metrics.networks import Network, Setting, Settings, inception

SETTINGS: dict[str, Setting] = {}  # --inception is the file
SIDE = 299


def missing(settings: Settings) -> str | None:
    return inception.missing(settings)


def load(settings: Settings, device: Any) -> Network:
    """ "inception_clean" [N, 2048], of pictures looked at as uint8 and resized to 299 pixels."""
    import torch

    network, fingerprint = inception.read(settings, device)

    @torch.no_grad()
    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        return {"inception_clean": pooled(network, resized(images).to(device))}

    return Network(see, f"{fingerprint} Pillow bicubic to {SIDE}, float")


def resized(images: Any) -> Any:
    """[N, 3, H, W] in [-1, 1] → [N, 3, 299, 299] float32 in [0, 255] on the CPU, as clean-fid's mode "clean" has it."""
    import numpy as np
    import torch
    from PIL import Image

    from t2i.pictures import to_uint8

    pixels = to_uint8(images).cpu().numpy().astype(np.float32)  # [N, H, W, 3]
    out = np.empty((len(pixels), 3, SIDE, SIDE), np.float32)
    for picture, into in zip(pixels, out):
        for channel in range(3):
            one = Image.fromarray(np.ascontiguousarray(picture[:, :, channel]))  # mode F
            into[channel] = np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return torch.from_numpy(out.clip(0, 255))


def pooled(network: Any, images: Any) -> Any:
    """[N, 3, 299, 299] in [0, 255] → [N, 2048]: the layers alone, without the network's own resizing."""
    x = (images - 128) / 128
    for name, layer in network.named_children():
        if name == "fc":
            break
        x = layer(x)
    return x.flatten(1).float()
