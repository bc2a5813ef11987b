"""Frozen networks as guides of the generator, picture by picture, without negatives."""

import torch
from torch import Tensor

from t2i.encoders.vgg import lpips_distance
from t2i.objective import Loss
from t2i.views import Views


def clip_spherical(v: Views) -> Tensor:
    """The mean squared angle, in radians, between CLIP(fake) and its caption (StyleGAN-T, 2301.09515, section 3.3,
    weight 0.2)."""
    a, b = v.features("clip", "fake"), v.clip_text.sentence
    # exact and with finite slopes for all angles, unlike arccos of the cosine
    angle = 2 * torch.atan2((a - b).norm(dim=1), (a + b).norm(dim=1))
    return angle.square().mean()


def clip_cosine(v: Views) -> Tensor:
    """The negative mean cosine of CLIP(fake) and its caption (GALIP, 2301.12959, section 3, weight 4)."""
    return -(v.features("clip", "fake") * v.clip_text.sentence).sum(1).mean()


def lpips(v: Views) -> Tensor:
    """LPIPS between a fake and the real picture of its caption (1801.03924, eq. 1), with VGG16 features."""
    return lpips_distance(v.features("vgg", "fake"), v.features("vgg", "real")).mean()


LOSSES = {
    "clip_spherical": Loss(generator=clip_spherical, frozen=("clip",)),
    "clip_cosine": Loss(generator=clip_cosine, frozen=("clip",)),
    "lpips": Loss(generator=lpips, frozen=("vgg",)),
}
