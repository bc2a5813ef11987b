"""Contrast between the words of a caption and the regions of a picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.errors import UserError
from t2i.interfaces import Judgement
from t2i.objective import Loss
from t2i.parallel import gather, rows
from t2i.views import Views


def word_region_real(v: Views, gamma1: float = 5.0, gamma2: float = 5.0, gamma3: float = 50.0) -> Tensor:
    """Words ↔ regions of real pictures: the discriminator learns where words are (XMC-GAN, 2101.04702, section 4.1)."""
    return _contrast(v, v.real_judgement, gamma1, gamma2, gamma3)


def word_region_fake(v: Views, gamma1: float = 5.0, gamma2: float = 5.0, gamma3: float = 50.0) -> Tensor:
    """Words ↔ regions of fakes: the generator puts there what the words say."""
    return _contrast(v, v.fake_judgement, gamma1, gamma2, gamma3)


def _contrast(v: Views, judgement: Judgement, gamma1: float, gamma2: float, gamma3: float) -> Tensor:
    """Both directions, negatives of all processes, pictures and captions that show the same masked."""
    if not {"regions", "words"} <= judgement.extra.keys():
        raise UserError(
            f"loss.word_region: at {v.stage.resolution} pixels the discriminator gives no regions; set its weight to 0 "
            "there, or choose another discriminator.name"
        )
    regions, words = judgement.extra["regions"], judgement.extra["words"]
    wide = torch.promote_types(regions.dtype, torch.float32)
    regions, words = regions.flatten(2).to(wide), words.to(wide)  # [B, C, R], [B, L, C]
    own = rows(len(words), words.device)
    everyone = gather(v.text.mask.byte()).bool()  # [N, L]
    hidden = v.same & ~F.one_hot(own, len(everyone)).bool()
    with torch.autocast(words.device.type, enabled=False):
        to_words = gamma3 * match(regions, gather(words), everyone, gamma1, gamma2)  # [B, N] my pictures
        to_regions = to_words.T  # [B, N] my captions; one process has all pictures and captions at hand
        if len(everyone) > len(words):
            to_regions = gamma3 * match(gather(regions), words, v.text.mask, gamma1, gamma2).T
        logits = (x.masked_fill(hidden, float("-inf")) for x in (to_words, to_regions))
        return torch.stack([F.cross_entropy(x, own) for x in logits]).mean()


def match(regions: Tensor, words: Tensor, mask: Tensor, gamma1: float, gamma2: float) -> Tensor:
    """How well pictures and captions match, word by word: [B, N] (2101.04702, section 4.1; 1711.10485, eq. 9-10).

    regions [B, C, R], words [N, L, C], mask [N, L]. Word i of a caption looks at regions with softmax(γ1 · cos), sees
    their weighted sum cᵢ, and the match is log Σᵢ exp(γ2 · cos(cᵢ, wordᵢ)) / γ2. Memory: B·N·L·R numbers.
    """
    longest = int(mask.any(0).nonzero().max()) + 1  # the rest is padding of all captions
    words, mask = F.normalize(words[:, :longest], dim=2), mask[:, :longest]
    seen = torch.einsum("nlc,bcr->bnlr", words, F.normalize(regions, dim=1))
    context = torch.einsum("bnlr,bcr->bnlc", (gamma1 * seen).softmax(3), regions)
    found = torch.einsum("bnlc,nlc->bnl", F.normalize(context, dim=3), words)
    return (gamma2 * found).masked_fill(~mask, float("-inf")).logsumexp(2) / gamma2


LOSSES = {"word_region": Loss(word_region_real, word_region_fake, regions=True)}
