"""What keeps latents apart and their paths even, against numbers worked out by hand."""

import pytest
import torch
from test_losses import bare_run, views
from torch import nn

from t2i.interfaces import Generated
from t2i.losses import latents
from t2i.nets.contract import Generator
from t2i.rng import Rng


class LinearGenerator(nn.Module):
    """image = sum over layers of w, repeated over H·W: the length of Jᵀy is known."""

    latent_dim = 3

    def styles(self, latent, text):
        return latent.z[:, None, :].repeat(1, 2, 1).requires_grad_()  # [b, 2, 3]

    def from_styles(self, ws, text, stage, noise):
        return Generated(ws.sum(1)[:, :, None, None].expand(-1, -1, 4, 4))


def test_mode_seeking_by_hand():
    class Flat(Generator):  # brightness = the latent; the second picture of a caption is drawn at 0.5
        latent_dim = 1

        def forward(self, latent, text, stage, noise):
            return Generated(torch.full((len(latent), 3, 4, 4), 0.5, requires_grad=True))

    v = views(bare_run(G=Flat()), captions=("a", "b", "c", "d"))
    v.fake = torch.tensor([0.0, 0.3, 9.0, 9.0]).reshape(4, 1, 1, 1).expand(4, 3, 4, 4)
    loss = latents.mode_seeking(v, floor=0.1)
    assert loss.item() == pytest.approx((1 / 0.6 + 1 / 0.3) / 2)  # of the first half of the batch
    assert loss.requires_grad


def test_path_length_by_hand():
    run = bare_run(G=LinearGenerator(), memory={"path_length": {"mean": torch.tensor(0.5)}})
    v = views(run, captions=("a", "b", "c", "d"))
    loss = latents.path_length(v, decay=0.1)
    rng = Rng(0)
    rng.randn(2, 3)
    y = rng.randn(2, 3, 4, 4) / 4
    length = y.sum((2, 3)).norm(dim=1)  # the same for both layers of w
    average = 0.5 + 0.1 * (length.mean().item() - 0.5)
    assert run.memory["path_length"]["mean"].item() == pytest.approx(average)
    assert loss.item() == pytest.approx((length - average).square().mean().item(), rel=1e-5)
