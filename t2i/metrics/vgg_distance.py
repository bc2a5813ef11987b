"""The Fréchet distance between pooled VGG features of generated and real pictures, labelled VGG.

Never to be called FID: that is the same formula on an Inception network's features (Heusel et al. 2017,
1706.08500), and the numbers have nothing to do with each other. Like it, this is biased upwards by few pictures:
compare only distances of equally many.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from t2i.encoders.vgg import Vgg
from t2i.errors import UserError


@torch.no_grad()
def features(images: Tensor | Iterable[Tensor], vgg: Vgg, batch: int = 64) -> Tensor:
    """images [N, 3, H, W], or batches of them, in [-1, 1] → [N, C] float64 on the CPU.

    C counts the channels of all of vgg.layers, each averaged over the picture, in order.
    """
    pieces = images.split(batch) if isinstance(images, Tensor) else images
    device = vgg.mean.device
    pooled = [torch.cat(list(vgg.pooled(piece.to(device)).values()), dim=1).double().cpu() for piece in pieces]
    if not pooled:
        raise UserError("VGG distance: no pictures were given")
    return torch.cat(pooled)


def frechet(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance of two normal distributions fitted to a [N, C] and b [M, C] (Dowson & Landau
    1982, eq. 16): |μa − μb|² + Tr(Σa + Σb − 2 (Σa Σb)^½), in float64.

    The trace of the root is the sum of the roots of the eigenvalues of Σa^½ Σb Σa^½, which is symmetric: no
    complex numbers come up, also with fewer pictures than channels.
    """
    for x in (a, b):
        if x.ndim != 2 or len(x) < 2 or x.shape[1] != a.shape[1]:
            raise UserError(
                f"Fréchet distance: features {tuple(a.shape)} and {tuple(b.shape)} must be [N > 1, C], one C"
            )
    a, b = a.double().cpu(), b.double().cpu()
    if not (a.isfinite().all() and b.isfinite().all()):
        raise UserError("Fréchet distance: features are not finite")
    cov_a, cov_b = (torch.from_numpy(np.atleast_2d(np.cov(x.numpy(), rowvar=False))) for x in (a, b))
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # Σa^½ [C, C]
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap
    return max(float(distance), 0.0)


def compute(fake: Tensor, real: Tensor, layers: Mapping[str, int]) -> dict[str, float]:
    """Features as `features` gives them, layers as in `Vgg.layers` → {"VGG": of all at once, "VGG relu1_2": ...}."""
    if sum(layers.values()) != fake.shape[1]:
        raise UserError(f"VGG distance: {fake.shape[1]} features but layers of {sum(layers.values())}")
    pairs = zip(layers, fake.split(list(layers.values()), 1), real.split(list(layers.values()), 1))
    return {"VGG": frechet(fake, real)} | {f"VGG {name}": frechet(a, b) for name, a, b in pairs}
