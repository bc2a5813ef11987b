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

    Compared on [0, 1], since the terms for luminance and contrast are of intensities, which are not below 0. Small
    pictures have fewer scales, whose weights are then made to sum to 1.
    """
    # slow to import
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as measure

    betas = BETAS[: scales(min(first.shape[-2:]))]
    betas = tuple(b / sum(betas) for b in betas)
    first, second = ((x.float() + 1) / 2 for x in (first, second))
    with torch.no_grad():
        values = measure(second, first, data_range=1.0, betas=betas, reduction="none")
    return {"ms_ssim": values.reshape(-1).double().cpu()}


METRIC = Metric(
    lambda e: {"ms_ssim": e.fake["ms_ssim"]},
    of_pairs=lambda first, second, networks: compute(first, second),
    smallest=WINDOW,
    version=2,  # 1 compared on [-1, 1]
    lower=True,
    order=100,
)
