"""CLIP score (Hessel et al. 2021, 2104.08718): the cosine of a picture and its caption.

Beside it as others report it: "clip_score_x100", 100 · max(cos, 0), as torchmetrics and most papers on pictures from
text; and "clip_score_x2.5", 2.5 · max(cos, 0), the paper's own. Its code also puts "A photo depicts" before captions,
which nobody does for pictures from text, and which is not done here. Only scores of one CLIP compare.

Beside it stands how well the encoder finds real pictures by their captions: a score is worth no more than that.
The encoder must not be one that the generator was trained with or against.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics.metric import Evidence, Metric
from t2i.rng import derive_seed


def compute(images: Tensor, texts: Tensor) -> dict[str, Tensor]:
    """Features of pictures [N, C] and of their captions [N, C] → {"clip_score": cosines [N] in -1..1, and both forms
    that others report}."""
    if images.shape != texts.shape or not len(images):
        raise UserError(f"clip_score: features {tuple(images.shape)} and {tuple(texts.shape)}; a caption a picture")
    cosine = F.cosine_similarity(images.double(), texts.double()).cpu()
    positive = cosine.clamp(min=0)
    return {"clip_score": cosine, "clip_score_x100": 100 * positive, "clip_score_x2.5": 2.5 * positive}


def retrieval(images: Tensor, texts: Tensor, owner: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[str, Tensor]:
    """Pictures [N, C], captions [M, C] and the picture each is of [M] → "image_to_text_r1" [N], "text_to_image_r1"
    [M], ...: 1 where what belongs to the query is among the k nearest, else 0.

    A picture with several captions asks for the best of its own. Ties count against the encoder.
    """
    images, texts = F.normalize(images.double(), dim=1), F.normalize(texts.double(), dim=1)
    owner = owner.to(images.device)
    to_text, to_image = [], torch.zeros(len(texts), device=images.device)  # how many others are as near or nearer
    own_cosine = (images[owner] * texts).sum(1)
    for start in range(0, len(images), 1024):
        rows = torch.arange(start, min(start + 1024, len(images)), device=images.device)
        cosine = images[rows] @ texts.T  # [n, M]
        own = owner[None] == rows[:, None]
        best = cosine.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        to_text.append(((cosine >= best - 1e-12) & ~own).sum(1))
        to_image += ((cosine >= own_cosine - 1e-12) & ~own).sum(0)
    ranks = {"image_to_text": torch.cat(to_text), "text_to_image": to_image}
    return {f"{name}_r{k}": (rank < k).double().cpu() for name, rank in ranks.items() for k in ks}


def agreement(images: Tensor, texts: Tensor, owner: Tensor, names: Sequence[str], seed: int = 0) -> Tensor:
    """How often people's own captions beat wrong ones: [M] 1 where caption m is nearer to its picture than one drawn
    from another picture's, ½ where both are equally near.

    images [N, C]; texts [M, C], the picture each is of [M] and its words, none of which a picture's wrong caption has.
    """
    images, texts = F.normalize(images.double(), dim=1), F.normalize(texts.double(), dim=1)
    own: dict[int, set[str]] = {}
    for picture, words in zip(owner.tolist(), names):
        own.setdefault(picture, set()).add(words)
    rng = np.random.default_rng(derive_seed(seed, 0xA6))
    wrong = []
    for picture in owner.tolist():
        for _ in range(1000):
            other = int(rng.integers(len(names)))
            if names[other] not in own[picture]:
                break
        else:
            raise UserError("agreement: all captions are alike; give shards whose captions differ")
        wrong.append(other)
    right = (images[owner] * texts).sum(1)
    beaten = (images[owner] * texts[torch.tensor(wrong)]).sum(1)
    tie = (right - beaten).abs() <= 1e-12
    return torch.where(tie, 0.5, (right > beaten).double()).cpu()


def _measure(e: Evidence) -> dict[str, Tensor | float]:
    scores: dict[str, Tensor | float] = {}
    scores |= compute(e.fake["clip"], e.fake["clip_text"])
    if e.captioned:
        images, texts = e.captioned["clip"], e.captioned["clip_text"]
        scores |= {"real_clip_score": compute(images, texts)["clip_score"]}
        found = retrieval(images, texts, torch.arange(len(images)))
        # Numbers, without intervals: all pictures compete for each caption, so that rows are not independent.
        scores |= {f"encoder_{name}": float(value.mean()) for name, value in found.items()}
    return scores


METRIC = Metric(
    _measure,
    networks=("clip",),
    features=("clip", "clip_text"),
    reads=True,
    captioned=1000,
    of_reference=("real_clip_score", "encoder_"),
    order=50,
)
