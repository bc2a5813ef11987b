"""The Fréchet distance between pooled VGG features of generated and real pictures, labelled VGG.

Never to be called FID: that is the same formula on an Inception network's features (Heusel et al. 2017,
1706.08500), and the numbers have nothing to do with each other. Like it, this is biased upwards by few pictures:
compare only distances of equally many.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from t2i.encoders.vgg import Vgg
from t2i.errors import UserError
from t2i.metrics.frechet import Moments, frechet, moments, no_interval, warn_of_few
from t2i.metrics.metric import Metric


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


def compute(fake: Tensor | Moments, real: Tensor | Moments, layers: Mapping[str, int]) -> dict[str, float]:
    """Features as `features` gives them, layers as in `Vgg.layers` → {"VGG": of all at once, "VGG relu1_2": ...}."""
    fake, real = moments(fake), moments(real)
    if sum(layers.values()) != len(fake.mean):
        raise UserError(f"VGG distance: {len(fake.mean)} features but layers of {sum(layers.values())}")
    warn_of_few("VGG", fake, real)
    scores, first = {"VGG": frechet(fake, real)}, 0
    for name, width in layers.items():
        columns = slice(first, first + width)
        scores[f"VGG {name}"] = frechet(fake.part(columns), real.part(columns))
        first += width
    return scores


METRIC = Metric(
    lambda e: compute(e.fake["vgg"], e.real["vgg"], e.networks["vgg"].itself.layers),
    networks=("vgg",),
    features=("vgg",),
    reference=True,
    moments=True,
    scores=("VGG",),
    lower=True,
    distance=True,
    whole=True,
    no_interval=lambda e: no_interval(e.fake["vgg"]),
    order=160,
)
