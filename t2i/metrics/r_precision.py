"""R-precision (Xu et al. 2018, 1711.10485): is a picture's own caption the nearest of 100?"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.rng import derive_seed


def compute(
    images: Tensor, texts: Tensor, captions: Sequence[str], wrong: int = 99, seed: int = 0
) -> dict[str, Tensor]:
    """Features of pictures [N, C] and their captions [N, C], and the captions → {"r_precision": [N] 1 or 0}.

    Each picture's caption stands against `wrong` others, drawn without replacement from those of other words (fewer,
    with a warning, where there are not so many). Ties count as wrong. The published ± is over ten folds of 3,000
    pictures: `folds` gives it.
    """
    if not len(images) == len(texts) == len(captions):
        raise UserError(f"r_precision: {len(images)} pictures, {len(texts)} texts, {len(captions)} captions; one each")
    images, texts = F.normalize(images.double(), dim=1), F.normalize(texts.double(), dim=1)
    number = {words: i for i, words in enumerate(dict.fromkeys(captions))}
    words = torch.tensor([number[c] for c in captions], device=images.device)
    counts = torch.bincount(words) if len(words) else words
    most = len(captions) - int(counts.max()) if len(words) else 0
    if most < 1:
        raise UserError("r_precision: all captions are alike; give captions that differ")
    if most < wrong:
        warnings.warn(f"r_precision: {most} wrong captions a picture, not {wrong}: there are no more", stacklevel=2)
        wrong = most
    generator = torch.Generator().manual_seed(derive_seed(seed, 0x9C))
    right = []
    for start in range(0, len(images), 256):
        rows = slice(start, min(start + 256, len(images)))
        n = rows.stop - rows.start
        draw = torch.rand(n, len(texts), generator=generator).to(images.device)
        draw = draw.masked_fill(words[rows, None] == words[None], -1.0)  # never one of the same words
        others = draw.topk(wrong, 1).indices  # [n, wrong]
        cosine = images[rows] @ texts.T  # [n, N]
        own = (images[rows] * texts[rows]).sum(1)
        right.append((own > cosine.gather(1, others).amax(1) + 1e-12).double())
    return {"r_precision": torch.cat(right).cpu()}


def folds(right: Tensor, count: int = 10) -> Tensor:
    """[N] → the mean of each of ten runs of pictures, as the published ± is taken over."""
    return torch.stack([part.mean() for part in right.tensor_split(min(count, len(right)))])


def _measure(e: Evidence) -> dict[str, Any]:
    right = compute(e.fake["clip"], e.fake["clip_text"], [c.text for c in e.captions], seed=e.seed)["r_precision"]
    return {"r_precision": right, "r_precision_fold_std": float(folds(right).std(correction=0))}


METRIC = Metric(
    _measure,
    networks=("clip",),
    features=("clip", "clip_text"),
    reads=True,
    beside=("r_precision_fold_std",),
    order=80,
)
