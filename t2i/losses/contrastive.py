"""Contrastive losses. Each is a choice of feature space and of who receives the gradient; the mathematics is
`info_nce`, and for pairs of fakes `nt_xent`."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.objective import Loss
from t2i.parallel import gather, mean_where, rows
from t2i.views import Views


def info_nce(
    anchors: Tensor,
    keys: Tensor,
    temperature: Tensor | float = 0.1,
    same: Tensor | None = None,
    symmetric: bool = True,
    more: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """InfoNCE (1807.03748, eq. 4) with the keys, and in the other direction the anchors, of every process as
    negatives.

    anchors, keys: [B, C], row i of one belongs to row i of the other; normalised here. more: anchors and keys
    [Q, C] of earlier batches, as further negatives. same: [B, world·B + Q] bool, True where a row of this process and
    another show the same thing and so are no negatives of each other. The mean over both directions (or anchors → keys
    alone) as a scalar in float32 or wider. Processes whose gradients are averaged afterwards get the gradient of one
    process with the whole batch.
    """
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"temperature={temperature}: must be above 0")
    anchors, keys = _unit(anchors), _unit(keys)
    positives = rows(len(anchors), anchors.device)
    hidden = None if same is None else same & ~F.one_hot(positives, same.shape[1]).bool()

    def one_way(mine: Tensor, others: Tensor, older: Tensor | None) -> Tensor:
        # bf16 would round logits of 1/temperature by several per cent: stay in float32
        with torch.autocast(mine.device.type, enabled=False):
            columns = gather(others) if older is None else torch.cat([gather(others), _unit(older)])
            logits = mine @ columns.T / temperature  # [B, world·B + Q]
            if hidden is not None:
                logits = logits.masked_fill(hidden, float("-inf"))
            return F.cross_entropy(logits, positives)

    older_anchors, older_keys = more or (None, None)
    if not symmetric:
        return one_way(anchors, keys, older_keys)
    return (one_way(anchors, keys, older_keys) + one_way(keys, anchors, older_anchors)) / 2


def _unit(x: Tensor) -> Tensor:
    """Rows of unit length in float32 or wider."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=1)


def contrast(
    v: Views, name: str, anchors: Tensor, keys: Tensor, temperature: Tensor | float, symmetric: bool, queue: int
) -> Tensor:
    """`info_nce` with what a run adds: rows that show the same are masked, and the newest `queue` pairs of earlier
    batches (of all processes, without gradient) are further negatives."""
    if queue == 0:
        return info_nce(anchors, keys, temperature, v.same, symmetric)
    old = v.memory.get(name)
    if old is None:
        loss = info_nce(anchors, keys, temperature, v.same, symmetric)
    else:
        same = torch.cat([v.same, v.same_as(old["identity"])], 1)
        loss = info_nce(anchors, keys, temperature, same, symmetric, (old["anchors"], old["keys"]))
    new = {"anchors": _unit(anchors.detach()), "keys": _unit(keys.detach()), "identity": v.identity}
    new = {key: gather(x) for key, x in new.items()}
    v.memory[name] = {key: (x if old is None else torch.cat([old[key], x]))[-queue:] for key, x in new.items()}
    return loss


def published(anchors: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """LAFITE's contrast as its code has it: exp(cos / τ) fed to a softmax, so that two exponentials stand on each
    other; anchors → keys alone; negatives of this process alone, none masked."""
    with torch.autocast(anchors.device.type, enabled=False):
        logits = (_unit(anchors) @ _unit(keys).T / temperature).exp()  # [B, B]
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


# --- pictures and captions


def img_txt_d_real(
    v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0, learnable: bool = False,
    compat: bool = False,
) -> Tensor:  # fmt: skip
    """d(real) ↔ its caption: the discriminator learns what captions mean (LAFITE's itd, 2111.13792, eq. 6, with
    one exponential and over all processes).

    learnable: the temperature starts there and is trained with D's weights alone. compat: as `published`.
    """
    if compat:
        return published(v.real_judgement.embedding, v.text.sentence, temperature)
    value = v.temperature("img_txt_d", temperature) if learnable else temperature
    return contrast(v, "D/img_txt_d", v.real_judgement.embedding, v.text.sentence, value, symmetric, queue)


def img_txt_d_fake(
    v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0, learnable: bool = False,
    compat: bool = False,
) -> Tensor:  # fmt: skip
    """d(fake) ↔ its caption: the generator draws what the discriminator reads as the caption."""
    if compat:
        return published(v.fake_judgement.embedding, v.text.sentence, temperature)
    value = v.temperature("img_txt_d", temperature) if learnable else temperature
    return contrast(v, "G/img_txt_d", v.fake_judgement.embedding, v.text.sentence, value, symmetric, queue)


def img_txt_clip(
    v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0, compat: bool = False
) -> Tensor:
    """CLIP(fake) ↔ its caption in the frozen CLIP's own space (LAFITE's itc, 2111.13792, eq. 7).

    temperature=0.01, symmetric=false and weight 0.1 are GigaGAN's CLIP guidance (2303.05511, section 3.3).
    """
    if compat:
        return published(v.features("clip", "fake"), v.clip_text.sentence, temperature)
    return contrast(v, "img_txt_clip", v.features("clip", "fake"), v.clip_text.sentence, temperature, symmetric, queue)


# --- fakes and real pictures of the same caption


def img_img_d(v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0) -> Tensor:
    """d(fake) ↔ d(real), the latter constant (XMC-GAN's image-image loss, 2101.04702, section 4.1)."""
    return contrast(v, "img_img_d", v.fake_judgement.embedding, v.real_embedding, temperature, symmetric, queue)


def img_img_clip(v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0) -> Tensor:
    """CLIP(fake) ↔ CLIP(real), the latter constant."""
    return contrast(
        v, "img_img_clip", v.features("clip", "fake"), v.features("clip", "real"), temperature, symmetric, queue
    )


def img_img_vgg(v: Views, temperature: float = 0.1, symmetric: bool = True, queue: int = 0) -> Tensor:
    """VGG(fake) ↔ VGG(real), the latter constant: features averaged over the picture, the mean of all layers'
    losses (after XMC-GAN, 2101.04702, section 4.1)."""
    losses = []
    for layer, fake in v.features("vgg", "fake").items():
        ours, theirs = (x.float().mean((2, 3)) for x in (fake, v.features("vgg", "real")[layer]))  # [B, C]
        losses.append(contrast(v, f"img_img_vgg/{layer}", ours, theirs, temperature, symmetric, queue))
    return torch.stack(losses).mean()


# --- two fakes of one picture's captions


def fake_fake(v: Views, temperature: float = 0.5, code: Literal["clip", "d"] = "clip") -> Tensor:
    """Fakes of two captions of one picture, from one latent, show the same (2107.02423, section 3).

    code: what reads the fakes, CLIP (frozen, as in the paper) or the discriminator. Rows whose picture has only one
    caption are no positives.
    """
    if code == "clip":
        one, two = v.features("clip", "fake"), v.features("clip", "fake2")
    else:
        one, two = v.fake_judgement.embedding, v.judge(v.fake2, v.text2).embedding
    return nt_xent(one, two, temperature, v.same2, v.distinct)


def nt_xent(one: Tensor, two: Tensor, temperature: float, same: Tensor, valid: Tensor) -> Tensor:
    """NT-Xent (2002.05709, eq. 1): each of the 2·world·B codes finds its partner among all but itself.

    one, two: [B, C], row i of both a pair. same: [B, world·B] bool, rows that are no negatives of each other, each
    row itself among them. valid: [B] bool, rows that count as anchors; the others are negatives only.
    """
    one, two = _unit(one), _unit(two)
    own = rows(len(one), one.device)
    with torch.autocast(one.device.type, enabled=False):
        columns = torch.cat([gather(one), gather(two)])  # [2·world·B, C]
        logits = torch.cat([one, two]) @ columns.T / temperature  # [2·B, 2·world·B]
        partner = torch.cat([own + len(columns) // 2, own])
        hidden = same.repeat(2, 2) & ~F.one_hot(partner, len(columns)).bool()
        losses = F.cross_entropy(logits.masked_fill(hidden, float("-inf")), partner, reduction="none")
        return mean_where(losses, valid.repeat(2))


LOSSES = {
    "img_txt_d": Loss(img_txt_d_real, img_txt_d_fake),
    "img_txt_clip": Loss(generator=img_txt_clip, frozen=("clip",)),
    "img_img_d": Loss(generator=img_img_d),
    "img_img_clip": Loss(generator=img_img_clip, frozen=("clip",)),
    "img_img_vgg": Loss(generator=img_img_vgg, frozen=("vgg",)),
    "fake_fake": Loss(generator=fake_fake, frozen=("{code}",), captions=2),
}
