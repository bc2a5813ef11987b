"""Gradient penalties of the discriminator, against numbers worked out by hand and differences."""

import pytest
import torch
from test_losses import bare_run, text_of, views, with_losses

from t2i.interfaces import Batch, Generated, Judgement, Latent
from t2i.losses import choose, differentiated_inputs, penalties, total
from t2i.nets.contract import Discriminator
from t2i.rng import Rng
from t2i.views import Views


def test_r1_by_hand():
    v = views()
    v.real = torch.randn(2, 3, 4, 4, generator=torch.manual_seed(0)).requires_grad_()
    logit = (v.real * torch.tensor([1.0, 3.0])[:, None, None, None]).sum((1, 2, 3)) + v.real[:, 0, 0, 0] ** 2
    v.__dict__["real_judgement"] = Judgement(logit, torch.eye(2))
    g = torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 3, 4, 4).clone()
    g[:, 0, 0, 0] += 2 * v.real.detach()[:, 0, 0, 0]
    assert penalties.r1(v, gamma=0.8).item() == pytest.approx(0.4 * g.square().sum((1, 2, 3)).mean().item())


def penalty_views(run, image, sentence, fake, differentiated=()):
    batch = Batch(image, ["a", "b"], torch.arange(2))
    latent = Latent(torch.zeros(2, 1))
    return Views(run, batch, text_of(sentence), latent, Generated(fake), Rng(0), differentiated)


def linear_views(*differentiated):
    """D(x, t) = scale·Σx + ⟨a, t⟩ with scales 1 and 3: its gradients are known."""
    scale, a = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0])

    class D(Discriminator):
        def forward(self, image, text, stage):
            return Judgement(scale * image.sum((1, 2, 3)) + text.sentence @ a, text.sentence)

    return penalty_views(bare_run(D=D()), torch.zeros(2, 3, 4, 4), torch.eye(2), torch.ones(2, 3, 4, 4), differentiated)


def test_penalties_by_hand():
    squares = torch.tensor([48.0, 9 * 48.0])  # Σ scale² over 3·4·4 numbers
    real, fake = linear_views("real pictures"), linear_views("fake pictures")
    assert penalties.r1(real, gamma=0.5).item() == pytest.approx(0.25 * squares.mean().item())
    assert penalties.r2(fake, gamma=0.5).item() == pytest.approx(0.25 * squares.mean().item())
    expected = (squares.sqrt() - 1).square().mean().item()
    assert penalties.gradient_penalty(linear_views()).item() == pytest.approx(expected)
    both = linear_views(*differentiated_inputs(choose("discriminator", with_losses({"ma_gp": {}}))))
    assert penalties.ma_gp(both, power=6).item() == pytest.approx((squares + 4).pow(3).mean().item())
    assert "fake_judgement" not in both.__dict__


def test_wgan_gp_looks_between_real_and_fake():
    v = linear_views()
    seen, judge = [], v.judge
    v.judge = lambda image, text: seen.append(image) or judge(image, text)
    penalties.gradient_penalty(v)
    share = Rng(0).rand(2, 1, 1, 1)
    assert torch.allclose(seen[0], share.expand(2, 3, 4, 4))  # real is 0, fake is 1


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty", "ma_gp"])
def test_penalties_train_the_discriminator_exactly(name):
    """Their gradient by D's weights is a second derivative of D: compared with differences."""
    torch.manual_seed(0)
    double = lambda *shape: torch.randn(*shape, dtype=torch.float64)
    image, fake, sentence, second = double(2, 3, 2, 2), double(2, 3, 2, 2), double(2, 3), double(4, 3)
    terms = choose("discriminator", with_losses({name: {}}))

    def penalty(weight):
        class D(Discriminator):
            def forward(self, image, text, stage):
                x = torch.tanh(image.flatten(1) @ weight)
                return Judgement((torch.cat([x, x * text.sentence], 1).square() @ second.flatten()[:6]), x)

        v = penalty_views(bare_run(D=D()), image, sentence, fake, differentiated_inputs(terms))
        return total(terms, v)[0]

    weight = (0.3 * double(12, 3)).requires_grad_()
    assert torch.autograd.gradcheck(penalty, weight)
    assert penalty(weight) > 0
