"""Every loss against numbers worked out by hand or by a slower, plainer formula."""

import math
import sys
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from t2i import checkpoint, config, train
from t2i.encoders.clip import Clip
from t2i.encoders.vgg import Vgg, load_vgg, lpips_distance
from t2i.errors import UserError
from t2i.interfaces import Batch, Judgement, Text
from t2i.losses import (
    DISCRIMINATOR,
    GENERATOR,
    adversarial,
    choose,
    contrastive,
    due,
    guidance,
    leaves,
    regularization,
    total,
    words,
)  # fmt: skip
from t2i.losses.contrastive import info_nce, nt_xent
from t2i.rng import Rng
from t2i.step import train_step
from t2i.views import Views


def text_of(sentence):
    b = len(sentence)
    return Text(sentence, torch.zeros(b, 1, 1), torch.ones(b, 1, dtype=torch.bool))


def bare_run(loss=None, **parts):
    """A run without networks but those that are given."""
    settings = config.load()
    settings.loss = loss or {}
    parts = {"D": nn.Module(), "config": settings, "queues": {}, "ada_p": 0.0} | parts
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


def test_picture_losses_take_the_right_features_and_leave_real_ones_alone():
    right, wrong = torch.eye(2), torch.eye(2).flip(0)
    good, bad = math.log1p(math.exp(-10)), math.log1p(math.exp(10))
    fake, real = wrong.clone().requires_grad_(), right.clone().requires_grad_()
    maps = lambda x: {"relu1_2": x[:, :, None, None].expand(2, 2, 4, 4), "relu2_2": right[:, :, None, None]}
    v = views(
        real_judgement=Judgement(torch.zeros(2), real),
        fake_judgement=Judgement(torch.zeros(2), fake),
        fake_clip=fake,
        real_clip=right,
        fake_vgg=maps(fake),
        real_vgg=maps(right),
    )
    assert contrastive.img_img_d(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_img_clip(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_img_vgg(v).item() == pytest.approx((bad + good) / 2, rel=1e-4)  # the mean of two layers
    (contrastive.img_img_d(v) + contrastive.img_img_vgg(v)).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


def test_features_of_real_pictures_are_constants_and_stored_ones_are_used():
    seen = Counter()

    class Tower:
        def image_features(self, image, *crop):
            seen["clip", bool(crop)] += 1
            return F.normalize(image.flatten(1), dim=1)

    v = views(bare_run(clip=Tower(), vgg=lambda image: {"relu1_2": 1 * image}))
    v.real.add_(1).requires_grad_()
    assert not v.real_clip.requires_grad
    assert not v.real_vgg["relu1_2"].requires_grad
    assert seen == {("clip", False): 1}
    v = views(bare_run(clip=None))
    v.batch.extra["clip_image"] = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float16)
    assert torch.allclose(v.real_clip, torch.tensor([[0.6, 0.8], [0.0, 1.0]]), atol=1e-3)


def test_pictures_are_reduced_before_vgg():
    run = bare_run(vgg=lambda image: {"relu1_2": image})
    v = views(run)
    assert v.fake_vgg["relu1_2"].shape[-1] == 4
    run.config.encoders.vgg_size = 2
    v = views(run)
    v.fake = torch.arange(4.0).expand(2, 3, 4, 4)
    assert v.fake_vgg["relu1_2"].shape == (2, 3, 2, 2)
    assert v.fake_vgg["relu1_2"].mean().item() == pytest.approx(1.5)


def test_gigagans_guidance_is_img_txt_clip_one_way_at_the_scale_of_clip():
    image = F.normalize(torch.randn(4, 8, generator=torch.manual_seed(0)), dim=1)
    sentence = F.normalize(torch.randn(4, 8, generator=torch.manual_seed(1)), dim=1)
    v = views(captions="abcd", fake_clip=image, clip_text=text_of(sentence))
    expected = -sum((100 * image @ sentence.T).log_softmax(1)[i, i] for i in range(4)) / 4
    found = contrastive.img_txt_clip(v, temperature=0.01, symmetric=False)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_guides_by_hand():
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2, math.pi])
    image = torch.stack([angles.cos(), angles.sin()], 1).requires_grad_()
    sentence = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    v = views(captions="abcd", fake_clip=image, clip_text=text_of(sentence))
    spherical, cosine = guidance.clip_spherical(v), guidance.clip_cosine(v)
    assert spherical.item() == pytest.approx((0 + 1 / 9 + 1 / 4 + 1) * math.pi**2 / 4)
    assert cosine.item() == pytest.approx(-(1 + 0.5 + 0 - 1) / 4, abs=1e-6)
    spherical.backward()
    assert image.grad.isfinite().all()
    # d(angle²)/d(angle) at 60°: 2π/3, over 4 rows
    assert image.grad[1].norm().item() == pytest.approx(2 * math.pi / 3 / 4, rel=1e-5)


def test_published_lafite_by_hand():
    # cosines 1 and 0: the softmax is over e^(1/τ) and e^0, whatever the masks and the direction
    v = views(
        ids=[1, 1], fake_clip=torch.eye(2), clip_text=text_of(torch.eye(2)),
        real_judgement=Judgement(torch.zeros(2), torch.eye(2)), fake_judgement=Judgement(torch.zeros(2), torch.eye(2)),
    )  # fmt: skip
    expected = math.log1p(math.exp(1 - math.exp(2)))
    for loss in (contrastive.img_txt_clip, contrastive.img_txt_d_real, contrastive.img_txt_d_fake):
        assert loss(v, temperature=0.5, compat=True).item() == pytest.approx(expected, rel=1e-4)


# --- pairs of fakes


def test_nt_xent_by_hand():
    a = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[0.0, 2.0], [0.0, 1.0]])  # row 0 disagrees with its partner, row 1 agrees
    e = math.exp(1 / 0.5)
    rows = [  # each anchor against its partner and the other pair's two
        -math.log(1 / (1 + 1 + 1)),  # a0: partner 0, a1 0, b1 0
        -math.log(e / (e + 1 + e)),  # a1: partner 1, a0 0, b0 1
        -math.log(1 / (1 + e + e)),  # b0: partner 0, a1 1, b1 1
        -math.log(e / (e + 1 + e)),  # b1: partner 1, a0 0, b0 1
    ]
    same, valid = torch.eye(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    assert nt_xent(a, b, 0.5, same, valid).item() == pytest.approx(sum(rows) / 4, rel=1e-6)
    only = torch.tensor([False, True])
    assert nt_xent(a, b, 0.5, same, only).item() == pytest.approx((rows[1] + rows[3]) / 2, rel=1e-6)
    assert nt_xent(a, b, 0.5, torch.ones_like(same), valid).item() == 0  # no negatives left
    assert nt_xent(a, b, 0.5, same, ~valid).item() == 0


def test_the_fakes_of_one_picture_share_their_latent_and_not_their_caption():
    drawn = []

    class G(nn.Module):
        def forward(self, z, text, noise, mix):
            drawn.append((z, text, mix))
            return torch.zeros(2, 3, 4, 4) + text.sentence.mean(1)[:, None, None, None]

    codes = {"one": torch.eye(2), "two": torch.eye(2).flip(0)}
    run = bare_run(
        G=G(), text_encoder=lambda captions: text_of(torch.tensor([[float(len(c))] for c in captions])),
        clip=SimpleNamespace(image_features=lambda image, *crop: codes["two"]),
    )  # fmt: skip
    v = views(run, captions2=["aa", "bbb"], fake_clip=codes["one"])
    v.latent = (torch.ones(2, 5), (torch.zeros(2, 5), 3))
    expected = nt_xent(codes["one"], codes["two"], 0.5, torch.eye(2).bool(), torch.ones(2).bool())
    assert contrastive.fake_fake(v).item() == pytest.approx(expected.item())
    ((z, text, mix),) = drawn
    assert z is v.latent[0]
    assert mix is v.latent[1]
    assert text.sentence[:, 0].tolist() == [2, 3]


def test_two_captions_of_one_picture_and_shared_captions():
    v = views(
        captions=("a bus", "a dog", "A dog ", "a cat", "kites"), ids=[1, 2, 3, 3, 4],
        captions2=["one bus", "a bus", "dogs", "a pet", "kites"],
    )  # fmt: skip
    expected = torch.eye(5, dtype=torch.bool)
    for i, j in [(0, 1), (1, 2), (2, 3)]:  # a caption of one is one of the other's; the same; one picture
        expected[i, j] = expected[j, i] = True
    assert torch.equal(v.same2, expected)
    assert v.distinct.tolist() == [True, True, True, True, False]


# --- words and regions


def test_word_region_match_by_hand():
    """One caption of two words, one picture of two regions, against the formula written out."""
    words_ = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [9.0, 9.0]]])  # the third is padding
    regions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])  # [1, C, R]: r0 = (2, 0), r1 = (0, 1)
    mask = torch.tensor([[True, True, False]])
    g1, g2 = 2.0, 3.0
    found = []
    for w in ((1.0, 0.0), (math.sqrt(0.5), math.sqrt(0.5))):
        weights = [math.exp(g1 * (w[0] * 1)), math.exp(g1 * w[1] * 1)]
        share = [x / sum(weights) for x in weights]
        context = (2 * share[0], share[1])
        found.append((context[0] * w[0] + context[1] * w[1]) / math.hypot(*context))
    expected = math.log(sum(math.exp(g2 * x) for x in found)) / g2
    assert words.match(regions, words_, mask, g1, g2).item() == pytest.approx(expected, rel=1e-6)


def test_word_region_contrasts_both_ways_and_masks():
    generator = torch.manual_seed(0)
    b, length, c = 3, 4, 5
    regions, text_words = torch.randn(b, c, 2, 2, generator=generator), torch.randn(b, length, c, generator=generator)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]).bool()

    def loss(ids):
        v = views(captions="abc", ids=ids)
        v.text.mask = mask
        judgement = Judgement(torch.zeros(b), torch.eye(b), regions, text_words)
        v.__dict__ |= {"real_judgement": judgement, "fake_judgement": judgement}
        assert words.word_region_real(v) == words.word_region_fake(v)
        return words.word_region_real(v).item()

    scores = torch.tensor(
        [
            [words.match(regions[i : i + 1].flatten(2), text_words[j : j + 1], mask[j : j + 1], 5, 5) for j in range(b)]
            for i in range(b)
        ]
    )
    target = torch.arange(b)
    plain = (F.cross_entropy(50 * scores, target) + F.cross_entropy(50 * scores.T, target)) / 2
    assert loss([0, 1, 2]) == pytest.approx(plain.item(), rel=1e-4)
    scores[0, 1] = scores[1, 0] = -math.inf
    masked = (F.cross_entropy(50 * scores, target) + F.cross_entropy(50 * scores.T, target)) / 2
    assert loss([0, 0, 2]) == pytest.approx(masked.item(), rel=1e-4)


def test_regions_of_a_discriminator_that_has_none():
    v = views(real_judgement=Judgement(torch.zeros(2), torch.eye(2)))
    with pytest.raises(UserError, match=r"loss\.word_region: model\.name=stylegan2 gives no regions"):
        words.word_region_real(v)


# --- queue and temperature


def test_a_queue_adds_the_newest_pairs_without_gradient():
    run, generator = bare_run(), torch.manual_seed(0)
    steps = [(torch.randn(2, 6, generator=generator), torch.randn(2, 6, generator=generator)) for _ in range(4)]
    ids = [[1, 2], [3, 4], [5, 1], [6, 7]]
    older, gradients = [], []
    for (anchors, keys), numbers in zip(steps, ids):
        v = views(run, captions=[f"caption {n}" for n in numbers], ids=numbers)
        x = anchors.clone().requires_grad_()
        loss = contrastive.contrast(v, "G/x", x, keys, 0.2, True, queue=3)
        loss.backward()
        gradients.append(x.grad)
        # the same written out: negatives of the last three pairs, but not those of the same picture
        a, k = F.normalize(anchors, dim=1), F.normalize(keys, dim=1)
        terms = []
        for mine, others, which in ((a, k, 1), (k, a, 0)):
            for i in range(2):
                negatives = [others[j] for j in range(2) if j != i]
                negatives += [old[which] for old in older[-3:] if old[2] != numbers[i]]
                logits = torch.stack([others[i], *negatives]) @ mine[i] / 0.2
                terms.append(-logits.log_softmax(0)[0])
        assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
        older += [(a[i], k[i], numbers[i]) for i in range(2)]
    kept = run.queues["G/x"]
    assert {key: len(rows) for key, rows in kept.items()} == {"anchors": 3, "keys": 3, "identity": 3}
    assert not any(rows.requires_grad for rows in kept.values())
    assert kept["identity"][:, 0].tolist() == [1, 6, 7]


def test_a_learnt_temperature_is_the_discriminators_and_stays_in_bounds():
    terms = choose(DISCRIMINATOR, {"img_txt_d": {"temperature": 0.2, "learnable": True}})
    from t2i.losses import temperatures

    run = bare_run()
    assert not temperatures(choose(DISCRIMINATOR, {"img_txt_d": {"temperature": 0.2}}))
    run.D.temperatures = temperatures(terms)
    features = {"real_judgement": Judgement(torch.zeros(2), torch.eye(2)), "fake_judgement": None}
    loss, _ = total(terms, views(run, **features))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-5)))
    loss.backward()
    # d/d(log τ) of ln(1 + e^(-1/τ)) = e^(-1/τ) / (1 + e^(-1/τ)) / τ
    expected = math.exp(-5) / (1 + math.exp(-5)) / 0.2
    assert run.D.temperatures["img_txt_d"].grad.item() == pytest.approx(expected, rel=1e-4)
    for value, bound in ((1e-5, 0.01), (50.0, 1.0)):
        run.D.temperatures["img_txt_d"].data.fill_(math.log(value))
        assert views(run).temperature("img_txt_d", 0.2).item() == pytest.approx(bound)
        # and can leave the bound again
        assert torch.autograd.grad(views(run).temperature("img_txt_d", 0.2), [*run.D.parameters()])[0] > 0
    assert views(run).temperature("img_img_d", 0.3) == 0.3


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


# --- LPIPS


def vgg16_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights, n, i = {}, 0, 3
    for o, convs in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convs):
            weights[f"features.{n}.weight"] = torch.randn(o, i, 3, 3, generator=generator) / (4.5 * i) ** 0.5
            weights[f"features.{n}.bias"] = torch.zeros(o)
            n, i = n + 2, o
        n += 1
    return weights


def test_lpips_is_that_of_its_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in a way that is deprecated
        import lpips

        package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    weights = vgg16_weights()
    package.net.load_state_dict({key: weights[f"features.{key.split('.', 1)[1]}"] for key in package.net.state_dict()})
    vgg = Vgg(weights)
    one, two = torch.rand(2, 2, 3, 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    ours = lpips_distance(vgg(one), vgg(two))
    assert torch.allclose(ours, package(one, two).flatten(), rtol=1e-4)
    v = views(fake_vgg=vgg(one), real_vgg=vgg(two))
    assert guidance.lpips(v).item() == pytest.approx(ours.mean().item())
    assert lpips_distance(vgg(one), vgg(one)).abs().max() == 0


def test_lpips_of_another_network_is_refused():
    v = views(bare_run(vgg=load_vgg("scenes-vgg")))
    v.real, v.fake = torch.zeros(2, 2, 3, 16, 16)
    with pytest.raises(UserError, match=r"loss\.lpips: needs a VGG16 .*not relu1_2, relu2_2, relu3_2, relu4_2"):
        guidance.lpips(v)


# --- a whole step

TINY = [
    "model.resolution=16", "model.channel_base=128", "model.channel_max=8", "model.latent_dim=8", "model.style_dim=8",
    "model.mapping_layers=1", "model.mbstd_group=2", "train.batch=4", "loss.path_length.weight=0", "loss.r1.weight=0",
]  # fmt: skip


def build(*changes):
    settings = config.load(None, [*TINY, *changes])
    sys.argv = ["train.py"]
    threads = torch.get_num_threads()
    run = train.build(settings, train.start(settings))
    torch.set_num_threads(threads)
    return run


def tiny_batch(seed=0):
    image = torch.rand(4, 3, 16, 16, generator=torch.manual_seed(seed)) * 2 - 1
    captions = ["a red bus", "a dog", "a green train", "a kite"]
    return Batch(image, captions, torch.arange(4), ["a bus", "one dog", "a train", "a kite in the air"])


def calls(monkeypatch, run):
    """Counts of what a step computes."""
    seen = Counter()

    def watch(owner, name, label):
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: seen.update([label]) or plain(*a, **k))

    watch(type(run.G), "forward", "G")
    watch(type(run.D), "forward", "D")
    watch(Clip, "image_features", "clip")
    watch(Vgg, "forward", "vgg")
    watch(type(run.text_encoder), "forward", "text")
    return seen


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.img_txt_clip.weight=0"], {"G": 2, "D": 3, "text": 1}),
        # modified1: d(real) is the D step's, one pass of CLIP and VGG over fakes and over real pictures
        (
            ["loss.img_img_d.weight=1", "loss.img_img_vgg.weight=1", "loss.img_img_clip.weight=1"],
            {"G": 2, "D": 3, "clip": 2, "vgg": 2, "text": 1},
        ),
        # modified2: one more fake
        (["loss.fake_fake.weight=1"], {"G": 3, "D": 3, "clip": 2, "text": 2}),
        # another caption is judged without another pass
        (["loss.matching.weight=1", "loss.matching.fakes=true"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.r1.weight=1", "loss.r2.weight=1", "loss.ma_gp.weight=1"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
        (["loss.word_region.weight=1"], {"G": 2, "D": 3, "clip": 1, "text": 1}),
    ],
)
def test_a_step_computes_what_its_losses_need_and_each_once(monkeypatch, changes, expected):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run = build(*changes)
    assert (run.clip is not None, run.vgg is not None) == ("clip" in expected, "vgg" in expected)
    assert hasattr(run.D, "regions") == any("word_region" in c for c in changes)
    assert not hasattr(run.D, "temperatures")
    with monkeypatch.context() as patched:
        seen = calls(patched, run)
        train_step([tiny_batch()], run)
    assert seen == expected


def test_no_loss_reaches_a_network_that_it_must_not_train(monkeypatch):
    """Every term on its own: D's losses leave G alone; those of G leave D, and a learnt temperature, alone."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run = build("loss.word_region.weight=1", "loss.img_txt_d.learnable=true", "loss.img_img_vgg.weight=1")
    large, small = Vgg(vgg16_weights()), run.vgg
    given = {name: {"weight": 1.0} for name in DISCRIMINATOR | GENERATOR}
    batch, text = tiny_batch(), run.text_encoder(tiny_batch().captions)
    d_terms = choose(DISCRIMINATOR, given)
    fake = run.G(torch.randn(4, 8, generator=torch.manual_seed(0)), text)
    for term in d_terms:
        v = Views(run, batch, text, fake.detach(), run.rng(0, 0), leaves=leaves([term]))
        total([term], v)[0].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in run.D.parameters()), term.name
        assert all(p.grad is None for p in run.G.parameters()), term.name
        run.D.zero_grad()
    run.D.requires_grad_(False)
    known = run.D(batch.image, text).embedding
    for term in choose(GENERATOR, given):
        z = torch.randn(4, 8, generator=torch.manual_seed(0))
        v = Views(run, batch, text, run.G(z, text), run.rng(1, 0), (z, None), real_embedding=known)
        run.vgg = large if term.name == "lpips" else small
        total([term], v)[0].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in run.G.parameters()), term.name
        assert all(p.grad is None for p in run.D.parameters()), term.name
        run.G.zero_grad()
    assert all(p.grad is None for net in (run.clip, run.text_encoder, small) for p in net.parameters())


def test_queues_and_temperatures_survive_a_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    changes = ["loss.img_txt_d.learnable=true", "loss.img_txt_d.queue=6", "loss.img_txt_clip.queue=6"]
    whole = build(*changes)
    for step in range(3):
        if step == 2:
            folder = checkpoint.save(whole, tmp_path)
        train_step([tiny_batch(step)], whole)
    parts = build(*changes)
    checkpoint.load(parts, folder)
    train_step([tiny_batch(2)], parts)
    assert whole.queues.keys() == {"D/img_txt_d", "G/img_txt_d", "img_txt_clip"}
    for name, rows in whole.queues.items():
        assert all(torch.equal(x, parts.queues[name][key]) for key, x in rows.items())
    a, b = whole.D.state_dict(), parts.D.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert a["temperatures.img_txt_d"].exp().item() != pytest.approx(0.1, abs=1e-6)  # it has moved


def test_lafites_published_logit_is_summed_over_the_batch(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run = build()
    text = run.text_encoder(tiny_batch().captions)
    right = run.D(tiny_batch().image, text)
    run.D.d_text = "lafite_published"
    published = run.D(tiny_batch().image, text)
    product = (right.embedding * text.sentence).sum(1)
    assert torch.allclose(published.logit, right.logit - product + product.sum(), atol=1e-5)


CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.mark.parametrize("prefix", ["", "coco256_"])
def test_the_seeds_configurations_add_to_each_other(prefix):
    base, one, two = (config.load(CONFIGS / f"{prefix}{name}.yaml") for name in ("base", "modified1", "modified2"))
    names = lambda c: {t.name for t in choose(GENERATOR, c.loss)}
    assert {"adversarial", "img_txt_d", "img_txt_clip"} <= names(base)
    assert names(one) - names(base) == {"img_img_d", "img_img_vgg", "img_img_clip"}
    assert names(two) - names(one) == {"fake_fake"}
    for c in (one, two):
        c.loss, c.name, c.encoders = base.loss, base.name, base.encoders
    assert base == one == two
