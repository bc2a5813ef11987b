"""Contrastive losses. Each is a choice of feature space and of who receives the gradient; the mathematics is
`info_nce` alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.parallel import gather, rank
from t2i.views import Views


def info_nce(
    anchors: Tensor, keys: Tensor, temperature: float = 0.1, same: Tensor | None = None, symmetric: bool = True
) -> Tensor:
    """InfoNCE (1807.03748, eq. 4) with the keys, and in the other direction the anchors, of every process as
    negatives.

    anchors, keys: [B, C], row i of one belongs to row i of the other; normalised here. same: [B, world·B] bool,
    True where a row of this process and a row of any process show the same thing and so are no negatives of each
    other. The mean over both directions (or anchors → keys alone) as a scalar in
    float32 or wider. Processes whose gradients
    are averaged afterwards get the gradient of one process with the whole batch.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    wide = torch.promote_types(anchors.dtype, torch.float32)
    anchors, keys = (F.normalize(x.to(wide), dim=1) for x in (anchors, keys))
    positives = torch.arange(len(anchors), device=anchors.device) + rank() * len(anchors)

    def one_way(rows: Tensor, columns: Tensor) -> Tensor:
        # bf16 would round logits of 1/temperature by several per cent: stay in float32
        with torch.autocast(rows.device.type, enabled=False):
            logits = rows @ gather(columns).T / temperature  # [B, world·B]
            if same is not None:
                own = F.one_hot(positives, logits.shape[1]).bool()
                logits = logits.masked_fill(same & ~own, float("-inf"))
            return F.cross_entropy(logits, positives)

    if not symmetric:
        return one_way(anchors, keys)
    return (one_way(anchors, keys) + one_way(keys, anchors)) / 2


def img_txt_d_real(v: Views, temperature: float = 0.1, symmetric: bool = True) -> Tensor:
    """d(real) ↔ its caption: the discriminator learns what captions mean (LAFITE's itd, 2111.13792, eq. 6, with
    one exponential and over all processes)."""
    return info_nce(v.real_judgement.embedding, v.text.sentence, temperature, v.same, symmetric)


def img_txt_d_fake(v: Views, temperature: float = 0.1, symmetric: bool = True) -> Tensor:
    """d(fake) ↔ its caption: the generator draws what the discriminator reads as the caption."""
    return info_nce(v.fake_judgement.embedding, v.text.sentence, temperature, v.same, symmetric)


def img_txt_clip(v: Views, temperature: float = 0.1, symmetric: bool = True) -> Tensor:
    """CLIP(fake) ↔ its caption in the frozen CLIP's own space (LAFITE's itc, 2111.13792, eq. 7)."""
    return info_nce(v.fake_clip, v.clip_text.sentence, temperature, v.same, symmetric)
