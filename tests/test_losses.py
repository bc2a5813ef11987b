"""Every loss against numbers worked out by hand or by a slower, plainer formula."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from t2i import config
from t2i.errors import UserError
from t2i.interfaces import Batch, Judgement, Text
from t2i.losses import DISCRIMINATOR, GENERATOR, adversarial, choose, contrastive, due, regularization, total
from t2i.losses.contrastive import info_nce
from t2i.rng import Rng
from t2i.views import Views


def text_of(sentence):
    b = len(sentence)
    return Text(sentence, torch.zeros(b, 1, 1), torch.ones(b, 1, dtype=torch.bool))


def views(run=None, captions=("a", "b"), ids=None, sentence=None, **features):
    b = len(captions)
    batch = Batch(torch.zeros(b, 3, 4, 4), list(captions), torch.arange(b) if ids is None else torch.tensor(ids))
    v = Views(run, batch, text_of(torch.eye(b) if sentence is None else sentence), torch.zeros(b, 3, 4, 4), Rng(0))
    for name, value in features.items():
        v.__dict__[name] = value  # fills the cached property
    return v


def test_adversarial_by_hand():
    v = views(
        real_judgement=Judgement(torch.tensor([0.0, 2.0]), torch.eye(2)),
        fake_judgement=Judgement(torch.tensor([-1.0, 1.0]), torch.eye(2)),
    )
    sp = lambda x: math.log1p(math.exp(x))
    assert adversarial.discriminator(v).item() == pytest.approx((sp(-1) + sp(1)) / 2 + (sp(0) + sp(-2)) / 2)
    assert adversarial.generator(v).item() == pytest.approx((sp(1) + sp(-1)) / 2)


def test_info_nce_by_hand():
    # two unit vectors at 60°: similarities 1 on the diagonal, 1/2 beside it
    a = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    expected = -math.log(math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0.5 / 0.5)))
    assert info_nce(a, a, temperature=0.5).item() == pytest.approx(expected, rel=1e-6)
    eye = torch.eye(4, dtype=torch.float64)
    # lengths do not matter, orthogonal keys give ln(1 + (n-1)·e^(-1/τ))
    assert info_nce(7 * eye, 3 * eye, 0.1).item() == pytest.approx(math.log1p(3 * math.exp(-10)))


def test_info_nce_is_symmetric_and_one_way_on_request():
    a, b = torch.randn(5, 8, generator=torch.manual_seed(0)), torch.randn(5, 8, generator=torch.manual_seed(1))
    both = info_nce(a, b)
    assert both == pytest.approx(info_nce(b, a).item())
    one, other = info_nce(a, b, symmetric=False), info_nce(b, a, symmetric=False)
    assert one.item() != pytest.approx(other.item())
    assert both.item() == pytest.approx((one + other).item() / 2)


def test_info_nce_masks_rows_that_show_the_same():
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    e = math.exp(1 / 0.5)
    row = -math.log(e / (e + 1))  # rows 0 and 1 have one negative left, row 2 has two
    last = -math.log(e / (e + 2))
    assert info_nce(a, a, 0.5, same).item() == pytest.approx((2 * row + last) / 3, rel=1e-6)
    unmasked = -math.log(e / (2 * e + 1))
    assert info_nce(a, a, 0.5).item() == pytest.approx((2 * unmasked + last) / 3, rel=1e-6)


def test_info_nce_stays_in_float32_under_bf16():
    a = torch.randn(6, 16, generator=torch.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(a, a.roll(1, 1), 0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(info_nce(a, a.roll(1, 1), 0.05).item(), rel=1e-6)


def test_info_nce_gradient():
    a, b = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    numeric = []
    x = a.clone().requires_grad_()
    (analytic,) = torch.autograd.grad(info_nce(x, b, 0.5), x)
    for i in range(a.numel()):
        step = torch.zeros(a.numel(), dtype=torch.float64)
        step[i] = 1e-6
        up, down = (info_nce(a + s * step.view_as(a), b, 0.5) for s in (1, -1))
        numeric.append((up - down).item() / 2e-6)
    assert analytic.flatten().tolist() == pytest.approx(numeric, abs=1e-8)


def test_same_picture_or_caption_is_no_negative():
    v = views(captions=("A red bus.", "a red bus. ", "a dog", "a cat"), ids=[1, 2, 3, 3])
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = True
    assert torch.equal(v.same, expected)


def test_text_losses_take_the_right_features():
    right, wrong = torch.eye(2), torch.eye(2).flip(0)
    v = views(
        real_judgement=Judgement(torch.zeros(2), right),
        fake_judgement=Judgement(torch.zeros(2), wrong),
        fake_clip=wrong,
        clip_text=text_of(right),
    )
    good, bad = math.log1p(math.exp(-10)), math.log1p(math.exp(10))
    assert contrastive.img_txt_d_real(v).item() == pytest.approx(good, rel=1e-3)
    assert contrastive.img_txt_d_fake(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_txt_clip(v).item() == pytest.approx(bad, rel=1e-5)


def test_r1_by_hand():
    v = views()
    v.real = torch.randn(2, 3, 4, 4, generator=torch.manual_seed(0)).requires_grad_()
    logit = (v.real * torch.tensor([1.0, 3.0])[:, None, None, None]).sum((1, 2, 3)) + v.real[:, 0, 0, 0] ** 2
    v.__dict__["real_judgement"] = Judgement(logit, torch.eye(2))
    g = torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 3, 4, 4).clone()
    g[:, 0, 0, 0] += 2 * v.real.detach()[:, 0, 0, 0]
    assert regularization.r1(v, gamma=0.8).item() == pytest.approx(0.4 * g.square().sum((1, 2, 3)).mean().item())


class LinearGenerator(nn.Module):
    """image = sum over layers of w, repeated over H·W: the length of Jᵀy is known."""

    latent_dim = 3

    def mapping(self, z, text):
        return z[:, None, :].repeat(1, 2, 1).requires_grad_()  # [b, 2, 3]

    def synthesis(self, w, text, noise):
        return w.sum(1)[:, :, None, None].expand(-1, -1, 4, 4)


def test_path_length_by_hand():
    run = SimpleNamespace(G=LinearGenerator(), config=config.load(), path_mean=torch.tensor(0.5))
    v = views(run, captions=("a", "b", "c", "d"))
    loss = regularization.path_length(v, decay=0.1)
    rng = Rng(0)
    rng.randn(2, 3)
    y = rng.randn(2, 3, 4, 4) / 4
    length = y.sum((2, 3)).norm(dim=1)  # the same for both layers of w
    average = 0.5 + 0.1 * (length.mean().item() - 0.5)
    assert run.path_mean.item() == pytest.approx(average)
    assert loss.item() == pytest.approx((length - average).square().mean().item(), rel=1e-5)


def test_weight_nought_costs_nothing_and_lazy_terms_wait():
    config = {
        "adversarial": {"weight": 1.0},
        "r1": {"weight": 2.0, "every": 4, "gamma": 3.0},
        "img_txt_d": {"weight": 0.0},
        "img_txt_clip": {"weight": 0},
        "path_length": {"weight": 0.0},
    }
    d, g = choose(DISCRIMINATOR, config), choose(GENERATOR, config)
    assert [t.name for t in d] == ["adversarial", "r1"]
    assert [t.name for t in g] == ["adversarial"]
    assert [[t.name for t in due(d, step)] for step in (0, 4)] == [["adversarial", "r1"]] * 2
    assert [t.name for t in due(d, 1)] == ["adversarial"]
    assert d[1].options == {"gamma": 3.0}

    seen = []

    class Watched(Views):
        def __getattribute__(self, name):
            if name in ("fake_judgement", "real_judgement", "fake_clip", "clip_text"):
                seen.append(name)
            return super().__getattribute__(name)

    v = views(fake_judgement=Judgement(torch.zeros(2), torch.eye(2)))
    v.__class__ = Watched
    loss, terms = total(g, v)
    assert seen == ["fake_judgement"]
    assert loss.item() == pytest.approx(math.log(2))
    assert terms["adversarial"].item() == pytest.approx(math.log(2))


def test_total_weighs_and_reports_unweighted():
    v = views(
        fake_judgement=Judgement(torch.zeros(2), torch.eye(2)), fake_clip=torch.eye(2), clip_text=text_of(torch.eye(2))
    )
    terms = choose(GENERATOR, {"adversarial": {"weight": 2.0}, "img_txt_clip": {"weight": 5, "temperature": 1.0}})
    loss, values = total(terms, v)
    nce = math.log1p(math.exp(-1))
    assert values["img_txt_clip"].item() == pytest.approx(nce)
    assert loss.item() == pytest.approx(2 * math.log(2) + 5 * nce)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"img_text_clip": {"weight": 1}}, "did you mean 'img_txt_clip'"),
        ({"r1": {"weight": 1, "gama": 1}}, "did you mean 'gamma'"),
        ({"img_txt_d": {"wieght": 1}}, "did you mean 'weight'"),
    ],
)
def test_unknown_names_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        choose(GENERATOR, config)
