"""Adversarial losses, penalties and the tables, against numbers worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from t2i import config
from t2i.errors import UserError
from t2i.interfaces import Batch, Judgement, Text
from t2i.losses import DISCRIMINATOR, GENERATOR, adversarial, choose, due, leaves, regularization, total
from t2i.rng import Rng
from t2i.views import Views


def text_of(sentence):
    b = len(sentence)
    return Text(sentence, torch.zeros(b, 1, 1), torch.ones(b, 1, dtype=torch.bool))


def bare_run(loss=None, **parts):
    """A run without networks but those that are given."""
    settings = config.load()
    settings.loss = loss or {}
    parts = {"D": nn.Module(), "config": settings, "queues": {}, "ada_p": 0.0, "perturb": None} | parts
    return SimpleNamespace(**parts)


def views(run=None, captions=("a", "b"), ids=None, sentence=None, captions2=None, **features):
    b, run = len(captions), bare_run() if run is None else run
    ids = torch.arange(b) if ids is None else torch.tensor(ids)
    batch = Batch(torch.zeros(b, 3, 4, 4), list(captions), ids, captions2)
    v = Views(run, batch, text_of(torch.eye(b) if sentence is None else sentence), torch.zeros(b, 3, 4, 4), Rng(0))
    for name, value in features.items():
        v.__dict__[name] = value  # fills the cached property
    return v


def test_adversarial_by_hand():
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([-3.0, 1.0])
    v = views(real_judgement=Judgement(real, torch.eye(2)), fake_judgement=Judgement(fake, torch.eye(2)))
    sp = lambda x: math.log1p(math.exp(x))
    d, g = adversarial.discriminator, adversarial.generator
    assert d(v).item() == pytest.approx((sp(-3) + sp(1)) / 2 + (sp(0) + sp(-2)) / 2)
    assert g(v).item() == pytest.approx((sp(3) + sp(-1)) / 2)
    assert d(v, "hinge").item() == pytest.approx((1 + 0) / 2 + (0 + 2) / 2)
    assert d(v, "hinge", fake_weight=0.5).item() == pytest.approx(0.5 + 0.5)
    assert d(v, "wgan").item() == pytest.approx(-1 + -1)
    assert d(v, "wgan", drift=0.001).item() == pytest.approx(-2 + 0.001 * 2)
    assert g(v, "hinge").item() == g(v, "wgan").item() == pytest.approx(1)
    assert d(v, "relativistic").item() == pytest.approx((sp(-3) + sp(-1)) / 2)
    assert g(v, "relativistic").item() == pytest.approx((sp(3) + sp(1)) / 2)


def test_the_generator_of_a_relativistic_game_does_not_move_real_logits():
    real, fake = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    v = views(real_judgement=Judgement(real, torch.eye(2)), fake_judgement=Judgement(fake, torch.eye(2)))
    adversarial.generator(v, "relativistic").backward()
    assert real.grad is None
    assert fake.grad.tolist() == pytest.approx([-0.25, -0.25])


class Late(nn.Module):
    """Captions enter this discriminator last: logit = score + ⟨d, t⟩."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, image, text):
        self.passes += 1
        score, d = image.sum((1, 2, 3))[:, None], torch.eye(len(image))
        return Judgement(self.logit(score, d, text), d, score=score)

    def logit(self, score, embedding, text):
        return score[:, 0] + (embedding * text.sentence).sum(1)


class Early(Late):
    """The same, said to need a second pass."""

    def forward(self, image, text):
        judgement = super().forward(image, text)
        judgement.score = None
        return judgement


@pytest.mark.parametrize(("D", "passes"), [(Late, 2), (Early, 6)])
def test_matching_by_hand(D, passes):
    # rows 0 and 1 are one picture, 1 and 2 have one caption: the next other one of each row
    wrong = [2, 3, 3, 0]
    sentence = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]) / 10
    v = views(bare_run({"adversarial": {"kind": "hinge"}}, D=D()), ("a", "b", "B ", "c"), [1, 1, 2, 3], sentence)
    v.fake = v.fake + 0.01
    logit = [sentence[w][i].item() for i, w in enumerate(wrong)]
    expected = sum(max(0, 1 + x) for x in logit) / 4
    assert adversarial.matching(v).item() == pytest.approx(expected)
    fakes = sum(max(0, 1 + x + 0.48) for x in logit) / 4
    assert adversarial.matching(v, fakes=True).item() == pytest.approx(expected + fakes)
    v.run.config.loss["adversarial"]["kind"] = "relativistic"
    real = [sentence[i][i].item() for i in range(4)]
    expected = sum(math.log1p(math.exp(x - r)) for x, r in zip(logit, real)) / 4
    assert adversarial.matching(v).item() == pytest.approx(expected)
    assert v.run.D.passes == passes


def test_matching_without_another_picture_is_nought():
    v = views(bare_run(D=Late()), ("a", "b"), [1, 1])
    assert adversarial.matching(v).item() == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_a_mismatched_caption_is_of_another_picture(rows):
    sentence = torch.arange(len(rows), dtype=torch.float)[:, None]
    v = views(captions=[f"caption {c}" for _, c in rows], ids=[i for i, _ in rows], sentence=sentence)
    text, exists = v.mismatch
    for row, (chosen, found) in enumerate(zip(text.sentence[:, 0].int().tolist(), exists.tolist())):
        others = [j for j, (i, c) in enumerate(rows) if i != rows[row][0] and c != rows[row][1]]
        assert found == bool(others)
        assert not found or chosen in others


def test_r1_by_hand():
    v = views()
    v.real = torch.randn(2, 3, 4, 4, generator=torch.manual_seed(0)).requires_grad_()
    logit = (v.real * torch.tensor([1.0, 3.0])[:, None, None, None]).sum((1, 2, 3)) + v.real[:, 0, 0, 0] ** 2
    v.__dict__["real_judgement"] = Judgement(logit, torch.eye(2))
    g = torch.tensor([1.0, 3.0])[:, None, None, None].expand(2, 3, 4, 4).clone()
    g[:, 0, 0, 0] += 2 * v.real.detach()[:, 0, 0, 0]
    assert regularization.r1(v, gamma=0.8).item() == pytest.approx(0.4 * g.square().sum((1, 2, 3)).mean().item())


def linear_views(**more):
    """D(x, t) = scale·Σx + ⟨a, t⟩ with scales 1 and 3: its gradients are known."""
    scale, a = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.0])

    class D(nn.Module):
        def forward(self, image, text):
            return Judgement(scale * image.sum((1, 2, 3)) + text.sentence @ a, text.sentence)

    batch = Batch(torch.zeros(2, 3, 4, 4), ["a", "b"], torch.arange(2))
    run = bare_run(D=D())
    return Views(run, batch, text_of(torch.eye(2)), torch.ones(2, 3, 4, 4), Rng(0), **more)


def test_penalties_by_hand():
    squares = torch.tensor([48.0, 9 * 48.0])  # Σ scale² over 3·4·4 numbers
    real, fake = linear_views(leaves={"real"}), linear_views(leaves={"fake"})
    assert regularization.r1(real, gamma=0.5).item() == pytest.approx(0.25 * squares.mean().item())
    assert regularization.r2(fake, gamma=0.5).item() == pytest.approx(0.25 * squares.mean().item())
    expected = (squares.sqrt() - 1).square().mean().item()
    assert regularization.gradient_penalty(linear_views()).item() == pytest.approx(expected)
    both = linear_views(leaves=leaves(choose(DISCRIMINATOR, {"ma_gp": {}})))
    assert regularization.ma_gp(both, power=6).item() == pytest.approx((squares + 4).pow(3).mean().item())
    assert "fake_judgement" not in both.__dict__


def test_wgan_gp_looks_between_real_and_fake():
    v = linear_views()
    seen = []
    v.judge = lambda image, text: seen.append(image) or v.run.D(image, text)
    regularization.gradient_penalty(v)
    share = Rng(0).rand(2, 1, 1, 1)
    assert torch.allclose(seen[0], share.expand(2, 3, 4, 4))  # real is 0, fake is 1


@pytest.mark.parametrize("name", ["r1", "r2", "gradient_penalty", "ma_gp"])
def test_penalties_train_the_discriminator_exactly(name):
    """Their gradient by D's weights is a second derivative of D: compared with differences."""
    torch.manual_seed(0)
    double = lambda *shape: torch.randn(*shape, dtype=torch.float64)
    image, fake, sentence, second = double(2, 3, 2, 2), double(2, 3, 2, 2), double(2, 3), double(4, 3)
    terms = choose(DISCRIMINATOR, {name: {}})

    def penalty(weight):
        class D(nn.Module):
            def forward(self, image, text):
                x = torch.tanh(image.flatten(1) @ weight)
                return Judgement((torch.cat([x, x * text.sentence], 1).square() @ second.flatten()[:6]), x)

        batch = Batch(image, ["a", "b"], torch.arange(2))
        v = Views(bare_run(D=D()), batch, text_of(sentence), fake, Rng(0), leaves=leaves(terms))
        return total(terms, v)[0]

    weight = (0.3 * double(12, 3)).requires_grad_()
    assert torch.autograd.gradcheck(penalty, weight)
    assert penalty(weight) > 0


class LinearGenerator(nn.Module):
    """image = sum over layers of w, repeated over H·W: the length of Jᵀy is known."""

    latent_dim = 3

    def mapping(self, z, text):
        return z[:, None, :].repeat(1, 2, 1).requires_grad_()  # [b, 2, 3]

    def synthesis(self, w, text, noise):
        return w.sum(1)[:, :, None, None].expand(-1, -1, 4, 4)


def test_mode_seeking_by_hand():
    class Flat:  # brightness = the latent; the second picture of a caption is drawn at 0.5
        latent_dim = 1

        def __call__(self, z, text, noise):
            return torch.full((len(z), 3, 4, 4), 0.5, requires_grad=True)

    v = views(bare_run(G=Flat()), captions=("a", "b", "c", "d"))
    v.fake = torch.tensor([0.0, 0.3, 9.0, 9.0]).reshape(4, 1, 1, 1).expand(4, 3, 4, 4)
    loss = regularization.mode_seeking(v, floor=0.1)
    assert loss.item() == pytest.approx((1 / 0.6 + 1 / 0.3) / 2)  # of the first half of the batch
    assert loss.requires_grad


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
        ({"adversarial": {"kind": "hing"}}, "known: hinge, non_saturating, relativistic, wgan; did you mean 'hinge'"),
        ({"img_img_clip": {"temperature": 0}}, "temperature=0: must be above 0"),
        ({"img_img_clip": {"temperature": "low"}}, "temperature=low: a number"),
        ({"img_img_clip": {"queue": -1}}, "queue=-1: a whole number"),
        ({"img_img_clip": {"symmetric": "no"}}, "symmetric=no: true or false"),
        ({"img_img_clip": {"learnable": True}}, "known: every, queue, symmetric, temperature, weight"),
    ],
)
def test_unknown_names_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        choose(GENERATOR, config)
