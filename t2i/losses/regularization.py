"""Gradient penalties, and what keeps latents apart. Lazy: the configuration's `every` runs them on some steps and
multiplies the weight."""

import math

import torch
from torch import Tensor

from t2i.parallel import mean
from t2i.views import Views


def r1(v: Views, gamma: float = 1.0) -> Tensor:
    """γ/2 · E‖∇ D(real)‖², summed over C, H, W (1801.04406, eq. 9), through the augmentation.

    Shares the discriminator's pass over real pictures.
    """
    return gamma / 2 * _squared_gradient(v.real_judgement.logit, v.real).mean()


def r2(v: Views, gamma: float = 1.0) -> Tensor:
    """γ/2 · E‖∇ D(fake)‖², the same at fakes (1801.04406, eq. 10). Shares the discriminator's pass over fakes."""
    return gamma / 2 * _squared_gradient(v.fake_judgement.logit, v.fake).mean()


def gradient_penalty(v: Views, target: float = 1.0) -> Tensor:
    """E(‖∇ D(x)‖ - target)² at x drawn uniformly between a real picture and a fake (WGAN-GP, 1704.00028, eq. 3,
    weight 10)."""
    share = v.rng.rand(len(v.real), 1, 1, 1).to(v.fake.dtype)
    between = v.real.detach().lerp(v.fake.detach(), share).requires_grad_()
    squared = _squared_gradient(v.judge(between, v.text).logit, between)
    # the root has no slope at 0, where any direction is as good
    return ((squared + 1e-12).sqrt() - target).square().mean()


def ma_gp(v: Views, power: float = 6.0) -> Tensor:
    """E‖∇ D(real, sentence)‖^power by picture and sentence together, at pairs that match (DF-GAN's matching-aware
    penalty, 2008.05865, section 3.3, weight 2; one norm of both, as in its code)."""
    return _squared_gradient(v.real_judgement.logit, v.real, v.text.sentence).pow(power / 2).mean()


def _squared_gradient(logit: Tensor, *inputs: Tensor) -> Tensor:
    """[B] Σ (∂logit / ∂inputs)², a row, in float32 or wider and differentiable."""
    gradients = torch.autograd.grad(logit.sum(), inputs, create_graph=True)
    wide = torch.promote_types(gradients[0].dtype, torch.float32)
    return torch.stack([g.to(wide).square().flatten(1).sum(1) for g in gradients]).sum(0)


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


def mode_seeking(v: Views, floor: float = 0.02, shrink: int = 2) -> Tensor:
    """mean 1 / (|G(z, t) - G(z', t)| + floor): pictures of one caption differ where their latents do (MSGAN,
    1903.05628, eq. 4, with the distance of the latents, which is much the same for all pairs, left out).

    |·| is the mean absolute difference of two pictures in [-1, 1]; a batch 1/shrink of the usual is drawn again.
    """
    rows = max(len(v.batch) // shrink, 1)
    G = v.run.G
    again = G(v.rng.randn(rows, G.latent_dim), v.text[:rows], noise=v.rng)  # [b, 3, H, W]
    apart = (again.float() - v.fake[:rows].float()).abs().mean((1, 2, 3))  # [b]
    return (apart + floor).reciprocal().mean()
