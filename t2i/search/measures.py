"""What MAP-Elites tells pictures apart by: how they look, in two numbers."""

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 8  # pixels of the picture that is looked at


class AppearanceMeasures:
    """The first two principal components of plain samples at 8×8 pixels, in their standard deviations."""

    def __init__(self, plain: Tensor):
        """plain: [n, 3, H, W] in [-1, 1]."""
        x = _shrink(plain).double()
        self.mean = x.mean(0)
        _, s, v = torch.linalg.svd(x - self.mean, full_matrices=False)
        self.basis = v[:2].T / (s[:2] / len(x) ** 0.5).clamp(min=1e-9)  # [3·8·8, 2]

    def __call__(self, images: Tensor) -> Tensor:
        """[n, 3, H, W] → [n, 2] float64."""
        return (_shrink(images).double().cpu() - self.mean.cpu()) @ self.basis.cpu()


def _shrink(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.float(), SIDE).flatten(1)
