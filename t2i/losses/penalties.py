"""Gradient penalties of the discriminator. Lazy: the configuration's `every` runs them on some steps and multiplies the
weight."""

from typing import Literal

import torch
from torch import Tensor

from t2i.objective import Loss
from t2i.views import Views

At = Literal["pictures", "looks"]


def r1(v: Views, gamma: float = 1.0, at: At = "pictures") -> Tensor:
    """γ/2 · E‖∇ D(real)‖², summed over C, H, W (1801.04406, eq. 9), through the augmentation.

    Shares the discriminator's pass over real pictures. at: "looks" differentiates by what a frozen trunk of the
    discriminator sees, and so not through that trunk.
    """
    return gamma / 2 * _squared_gradient(v.real_judgement.logit, v.real if at == "pictures" else v.real_look).mean()


def r2(v: Views, gamma: float = 1.0, at: At = "pictures") -> Tensor:
    """γ/2 · E‖∇ D(fake)‖², the same at fakes (1801.04406, eq. 10). Shares the discriminator's pass over fakes."""
    return gamma / 2 * _squared_gradient(v.fake_judgement.logit, v.fake if at == "pictures" else v.fake_look).mean()


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


LOSSES = {
    "r1": Loss(r1, differentiated_inputs=("real {at}",)),
    "r2": Loss(r2, differentiated_inputs=("fake {at}",)),
    "gradient_penalty": Loss(gradient_penalty),
    "ma_gp": Loss(ma_gp, differentiated_inputs=("real pictures", "sentence")),
}
