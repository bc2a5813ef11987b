"""MS-SSIM between pictures of one caption (Wang et al. 2003; Odena et al. 2017, 1610.09585): lower is more varied."""

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Metric

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales
WINDOW = 11


def scales(side: int) -> int:
    """How many of the five scales a picture has room for: all above 175 pixels, three at 64."""
    fit = [n for n in range(1, 6) if side // max(n - 1, 1) ** 2 >= WINDOW and side >= 2**n]
    if not fit:
        raise UserError(f"ms_ssim: pictures of side {side}; it needs {WINDOW} pixels or more")
    return max(fit)


def compute(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Pictures [N, 3, H, W] in [-1, 1], two of each caption → {"ms_ssim": [N] in 0..1}; 1 for a picture and itself.

    Small pictures have fewer scales, whose weights are then made to sum to 1.
    """
    # slow to import
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    betas = BETAS[: scales(min(first.shape[-2:]))]
    betas = tuple(b / sum(betas) for b in betas)
    with torch.no_grad():
        values = measure(second.float(), first.float(), data_range=2.0, betas=betas, reduction="none")
    return {"ms_ssim": values.reshape(-1).double().cpu()}


METRIC = Metric(
    lambda e: {"ms_ssim": e.fake["ms_ssim"]},
    of_pairs=lambda first, second, networks: compute(first, second),
    lower=True,
    order=100,
)
