"""What keeps latents apart, and the path between them even. Lazy: the configuration's `every` runs them on some steps
and multiplies the weight."""

import math

import torch
from torch import Tensor

from t2i.interfaces import Latent
from t2i.objective import Loss
from t2i.parallel import mean
from t2i.views import Views


def path_length(v: Views, decay: float = 0.01, shrink: int = 2) -> Tensor:
    """E(‖Jᵀy‖ - a)² with y ~ N(0, 1)/√(H·W) and a the running mean of ‖Jᵀy‖ (1912.04958, eq. 4).

    J is the derivative of the picture by w; a batch 1/shrink of the usual suffices. The updated mean is used, and
    as a constant.
    """
    rows = max(len(v.batch) // shrink, 1)
    w = v.G.styles(Latent(v.rng.randn(rows, v.G.latent_dim)), v.text[:rows])  # [b, num_ws, w_dim]
    image = v.G.from_styles(w, v.text[:rows], v.stage, noise=v.rng).image
    y = v.rng.randn(*image.shape) / math.sqrt(image.shape[2] * image.shape[3])
    (gradient,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
    lengths = gradient.float().square().sum(2).mean(1).sqrt()  # [b]
    before = v.memory.get("path_length", {}).get("mean", torch.zeros_like(lengths[0]))
    average = before.detach().lerp(mean(lengths.detach().mean()), decay)
    v.memory["path_length"] = {"mean": average}
    return (lengths - average).square().mean()


def mode_seeking(v: Views, floor: float = 0.02, shrink: int = 2) -> Tensor:
    """mean 1 / (|G(z, t) - G(z', t)| + floor): pictures of one caption differ where their latents do (MSGAN,
    1903.05628, eq. 4, with the distance of the latents, which is much the same for all pairs, left out).

    |·| is the mean absolute difference of two pictures in [-1, 1]; a batch 1/shrink of the usual is drawn again.
    """
    rows = max(len(v.batch) // shrink, 1)
    again = v.G(v.G.latent(rows, v.rng), v.text[:rows], v.stage, noise=v.rng).image  # [b, 3, H, W]
    apart = (again.float() - v.fake[:rows].float()).abs().mean((1, 2, 3))  # [b]
    return (apart + floor).reciprocal().mean()


LOSSES = {
    "path_length": Loss(generator=path_length, styles=True),
    "mode_seeking": Loss(generator=mode_seeking),
}
