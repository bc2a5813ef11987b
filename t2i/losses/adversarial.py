"""The adversarial game: non-saturating logistic loss (1406.2661, section 3; StyleGAN2's choice, 1912.04958)."""

import torch.nn.functional as F
from torch import Tensor

from t2i.views import Views


def discriminator(v: Views) -> Tensor:
    """mean softplus(D(fake)) + mean softplus(-D(real)): logits of real pictures up, of fakes down."""
    return F.softplus(v.fake_judgement.logit).mean() + F.softplus(-v.real_judgement.logit).mean()


def generator(v: Views) -> Tensor:
    """mean softplus(-D(fake)): logits of fakes up."""
    return F.softplus(-v.fake_judgement.logit).mean()
