"""Contrastive losses and guides against numbers worked out by hand or by a slower, plainer formula."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_losses import bare_run, text_of, views, with_losses
from torch import nn

from t2i import config, encoders
from t2i.errors import UserError
from t2i.interfaces import Generated, Judgement, Latent
from t2i.losses import choose, contrastive, guidance, temperatures, total, words
from t2i.losses.contrastive import info_nce, nt_xent
from t2i.rng import Rng


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
        clip_text=text_of(right),
        seen={("clip", "fake"): wrong},
    )
    good, bad = math.log1p(math.exp(-10)), math.log1p(math.exp(10))
    assert contrastive.img_txt_d_real(v).item() == pytest.approx(good, rel=1e-3)
    assert contrastive.img_txt_d_fake(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_txt_clip(v).item() == pytest.approx(bad, rel=1e-5)


def test_picture_losses_take_the_right_features_and_leave_real_ones_alone():
    right, wrong = torch.eye(2), torch.eye(2).flip(0)
    good, bad = math.log1p(math.exp(-10)), math.log1p(math.exp(10))
    fake, real = wrong.clone().requires_grad_(), right.clone().requires_grad_()
    maps = lambda x: {"relu1_2": x[:, :, None, None].expand(2, 2, 4, 4), "relu2_2": right[:, :, None, None]}
    v = views(
        real_judgement=Judgement(torch.zeros(2), real),
        fake_judgement=Judgement(torch.zeros(2), fake),
        seen={
            ("clip", "fake"): fake,
            ("clip", "real"): right,
            ("vgg", "fake"): maps(fake),
            ("vgg", "real"): maps(right),
        },
    )
    assert contrastive.img_img_d(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_img_clip(v).item() == pytest.approx(bad, rel=1e-5)
    assert contrastive.img_img_vgg(v).item() == pytest.approx((bad + good) / 2, rel=1e-4)  # the mean of two layers
    (contrastive.img_img_d(v) + contrastive.img_img_vgg(v)).backward()
    assert fake.grad.abs().sum() > 0
    assert real.grad is None


def test_features_of_real_pictures_are_constants_and_stored_ones_are_used():
    seen = Counter()

    class Clip:
        def features(self, image, *rng):
            seen["clip", bool(rng)] += 1
            return F.normalize(image.flatten(1), dim=1)

    class Vgg:
        def features(self, image, *rng):
            seen["vgg", bool(rng)] += 1
            return {"relu1_2": 1 * image}

    v = views(bare_run(encoders={"clip": Clip(), "vgg": Vgg()}))
    v.real.add_(1).requires_grad_()
    assert not v.features("clip", "real").requires_grad
    assert not v.features("vgg", "real")["relu1_2"].requires_grad
    assert v.features("clip", "real") is v.features("clip", "real")
    assert seen == {("clip", False): 1, ("vgg", False): 1}
    v.fake = v.fake.requires_grad_()
    assert v.features("clip", "fake").requires_grad
    assert seen["clip", True] == 1
    v = views(bare_run())
    v.batch.extra["clip_image"] = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float16)
    assert torch.allclose(v.features("clip", "real"), torch.tensor([[0.6, 0.8], [0.0, 1.0]]), atol=1e-3)


def test_pictures_are_reduced_before_vgg():
    settings = config.load().encoders
    picture = (torch.arange(64) / 63).expand(2, 3, 64, 64)
    whole = encoders.load("vgg", settings, torch.device("cpu"), torch.contiguous_format)
    assert all(torch.equal(x, whole(picture)[layer]) for layer, x in whole.features(picture, Rng(0)).items())
    settings.vgg_size = 32
    small = encoders.load("vgg", settings, torch.device("cpu"), torch.contiguous_format)
    reduced = F.interpolate(picture, (32, 32), mode="bilinear", antialias=True)
    assert reduced.mean().item() == pytest.approx(0.5)
    for layer, x in small.features(picture, Rng(0)).items():
        torch.testing.assert_close(x, whole(reduced)[layer])


def test_gigagans_guidance_is_img_txt_clip_one_way_at_the_scale_of_clip():
    image = F.normalize(torch.randn(4, 8, generator=torch.manual_seed(0)), dim=1)
    sentence = F.normalize(torch.randn(4, 8, generator=torch.manual_seed(1)), dim=1)
    v = views(captions="abcd", seen={("clip", "fake"): image}, clip_text=text_of(sentence))
    expected = -sum((100 * image @ sentence.T).log_softmax(1)[i, i] for i in range(4)) / 4
    found = contrastive.img_txt_clip(v, temperature=0.01, symmetric=False)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_guides_by_hand():
    angles = torch.tensor([0.0, math.pi / 3, math.pi / 2, math.pi])
    image = torch.stack([angles.cos(), angles.sin()], 1).requires_grad_()
    sentence = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    v = views(captions="abcd", seen={("clip", "fake"): image}, clip_text=text_of(sentence))
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
        ids=[1, 1], seen={("clip", "fake"): torch.eye(2)}, clip_text=text_of(torch.eye(2)),
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
        def forward(self, latent, text, stage, noise):
            drawn.append((latent, text))
            return Generated(torch.zeros(2, 3, 4, 4) + text.sentence.mean(1)[:, None, None, None])

    codes = {"one": torch.eye(2), "two": torch.eye(2).flip(0)}
    run = bare_run(
        G=G(), text_encoder=lambda captions: text_of(torch.tensor([[float(len(c))] for c in captions])),
        encoders={"clip": SimpleNamespace(features=lambda image, *rng: codes["two"])},
    )  # fmt: skip
    v = views(run, captions2=["aa", "bbb"], seen={("clip", "fake"): codes["one"]})
    v.latent = Latent(torch.ones(2, 5), {"z2": torch.zeros(2, 5), "cutoff": torch.tensor([3, 3])})
    expected = nt_xent(codes["one"], codes["two"], 0.5, torch.eye(2).bool(), torch.ones(2).bool())
    assert contrastive.fake_fake(v).item() == pytest.approx(expected.item())
    ((latent, text),) = drawn
    assert latent is v.latent  # with what is mixed in
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
        judgement = Judgement(torch.zeros(b), torch.eye(b), {"regions": regions, "words": text_words})
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
    with pytest.raises(
        UserError, match=r"loss\.word_region: at 4 pixels the discriminator gives no regions.* discriminator\.name"
    ):
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
    kept = run.memory["G/x"]
    assert {key: len(rows) for key, rows in kept.items()} == {"anchors": 3, "keys": 3, "identity": 3}
    assert not any(rows.requires_grad for rows in kept.values())
    assert kept["identity"][:, 0].tolist() == [1, 6, 7]


def test_a_learnt_temperature_is_the_discriminators_and_stays_in_bounds():
    given = {"temperature": 0.2, "learnable": True}
    terms = choose("discriminator", with_losses({"img_txt_d": given}))
    assert not temperatures(choose("discriminator", with_losses({"img_txt_d": {"temperature": 0.2}})))
    run = bare_run(learnt=temperatures(terms))
    features = {"real_judgement": Judgement(torch.zeros(2), torch.eye(2)), "fake_judgement": None}
    loss, _ = total(terms, views(run, **features))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-5)))
    loss.backward()
    # d/d(log τ) of ln(1 + e^(-1/τ)) = e^(-1/τ) / (1 + e^(-1/τ)) / τ
    expected = math.exp(-5) / (1 + math.exp(-5)) / 0.2
    assert run.learnt["img_txt_d"].grad.item() == pytest.approx(expected, rel=1e-4)
    for value, bound in ((1e-5, 0.01), (50.0, 1.0)):
        run.learnt["img_txt_d"].data.fill_(math.log(value))
        assert views(run).temperature("img_txt_d", 0.2).item() == pytest.approx(bound)
        # and can leave the bound again
        assert torch.autograd.grad(views(run).temperature("img_txt_d", 0.2), [*run.learnt.parameters()])[0] > 0
    assert views(run).temperature("img_img_d", 0.3) == 0.3
