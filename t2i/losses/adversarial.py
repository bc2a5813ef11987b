"""The adversarial game, in the forms that the field uses. D's logit is above 0 for "real, and as the caption says"."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.objective import Loss
from t2i.parallel import mean_where
from t2i.views import Views

Kind = Literal["non_saturating", "hinge", "wgan", "relativistic"]

# What D pays for the logit of a fake; for that of a real picture it pays the same of the negative.
COST: dict[str, Callable[[Tensor], Tensor]] = {
    "non_saturating": F.softplus,  # 1406.2661, section 3
    "hinge": lambda logit: F.relu(1 + logit),  # 1705.02894
    "wgan": lambda logit: logit,  # 1701.07875; to be used with gradient_penalty
    "relativistic": F.softplus,  # of D(fake) - D(real): 1807.00734; R3GAN, 2501.05441, to be used with r1 and r2
}


def discriminator(v: Views, kind: Kind = "non_saturating", fake_weight: float = 1.0, drift: float = 0.0) -> Tensor:
    """mean cost(-D(real)) + fake_weight · mean cost(D(fake)) + drift · mean D(real)².

    drift keeps the critic of a WGAN near 0 (1710.10196, appendix A.1: 0.001). fake_weight=0.5 beside `matching` of
    weight 0.5 is DF-GAN's objective (2008.05865, section 3.3). relativistic compares row by row, without fake_weight.
    """
    real, fake = v.real_judgement.logit, v.fake_judgement.logit
    loss = drift * real.square().mean() if drift else real.new_zeros(())
    if kind == "relativistic":
        return loss + F.softplus(fake - real).mean()
    return loss + COST[kind](-real).mean() + fake_weight * COST[kind](fake).mean()


def generator(v: Views, kind: Kind = "non_saturating") -> Tensor:
    """The generator wants its logits up: softplus(-D(fake)), or -D(fake) for hinge and wgan, or above those of the
    real pictures for relativistic."""
    logit = v.fake_judgement.logit
    if kind == "relativistic":
        return F.softplus(v.real_judgement.logit.detach() - logit).mean()
    return F.softplus(-logit).mean() if kind == "non_saturating" else -logit.mean()


def matching(v: Views, fakes: bool = False) -> Tensor:
    """A real picture with the caption of another is a fake, to D (matching-aware, 1605.05396, algorithm 1).

    The cost is that of `adversarial`. fakes: also a fake with the caption of another (GigaGAN, 2303.05511, section
    3.3). A row that has no other picture in the whole batch is left out.
    """
    kind = v.options("adversarial").get("kind", "non_saturating")
    text, exists = v.mismatch
    logits = [v.logit_of(v.real_judgement, v.real, text)]
    if fakes:
        logits.append(v.logit_of(v.fake_judgement, v.fake, text))
    base = v.real_judgement.logit if kind == "relativistic" else 0.0
    costs = (COST[kind](logit - base) for logit in logits)
    return torch.stack([mean_where(cost.view(len(cost), -1).mean(1), exists) for cost in costs]).sum()


LOSSES = {"adversarial": Loss(discriminator, generator), "matching": Loss(matching)}
