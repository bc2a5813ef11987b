"""Gradient penalties. Lazy: the configuration's `every` runs them on some steps and multiplies the weight."""

import math

import torch
from torch import Tensor

from t2i.parallel import mean
from t2i.views import Views


def r1(v: Views, gamma: float = 1.0) -> Tensor:
    """γ/2 · E‖∇ D(real)‖², summed over C, H, W (1801.04406, eq. 9), through the augmentation.

    Shares the discriminator's pass over real pictures: v.real must require a gradient.
    """
    (gradient,) = torch.autograd.grad(v.real_judgement.logit.sum(), v.real, create_graph=True)
    return gamma / 2 * gradient.float().square().sum(dim=(1, 2, 3)).mean()


def path_length(v: Views, decay: float = 0.01, shrink: int = 2) -> Tensor:
    """E(‖Jᵀy‖ - a)² with y ~ N(0, 1)/√(H·W) and a the running mean of ‖Jᵀy‖ (1912.04958, eq. 4).

    J is the derivative of the picture by w; a batch 1/shrink of the usual suffices. The updated mean is used, and
    as a constant.
    """
    rows = max(len(v.batch) // shrink, 1)
    G = v.run.G
    w = G.mapping(v.rng.randn(rows, G.latent_dim), v.text[:rows])  # [b, num_ws, style_dim]
    image = G.synthesis(w, v.text[:rows], noise=v.rng if v.run.config.model.noise else None)
    y = v.rng.randn(*image.shape) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
    lengths = gradient.float().square().sum(2).mean(1).sqrt()  # [b]
    average = v.run.path_mean.lerp(mean(lengths.detach().mean()), decay)
    v.run.path_mean.copy_(average)
    return (lengths - average).square().mean()
