"""Adversarial losses, the table of losses and what a run chooses of it, against numbers worked out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from t2i import config
from t2i.errors import UserError
from t2i.interfaces import Batch, Generated, Judgement, Latent, Stage, Text
from t2i.losses import adversarial, choose, due, total
from t2i.nets.contract import Discriminator
from t2i.rng import Rng
from t2i.views import Views


def text_of(sentence):
    b = len(sentence)
    return Text(sentence, torch.zeros(b, 1, 1), torch.ones(b, 1, dtype=torch.bool))


def with_losses(loss):
    """The default configuration with no losses but these."""
    settings = config.load()
    settings.loss = loss
    return settings


def bare_run(loss=None, **parts):
    """A run of pictures of 4×4, without networks but those that are given."""
    empty = {
        "G": None, "D": nn.Module(), "config": with_losses(loss or {}), "stage": Stage(4), "kimg": 0.0, "memory": {},
        "learnt": nn.ParameterDict(), "encoders": {}, "ada_p": 0.0, "perturb": None,
    }  # fmt: skip
    return SimpleNamespace(**empty | parts)


def views(run=None, captions=("a", "b"), ids=None, sentence=None, captions2=None, seen=None, **features):
    """Of black pictures. seen: {(network, picture): what a frozen network sees}; features: other cached properties."""
    b, run = len(captions), bare_run() if run is None else run
    ids = torch.arange(b) if ids is None else torch.tensor(ids)
    batch = Batch(torch.zeros(b, 3, 4, 4), list(captions), ids, captions2)
    text = text_of(torch.eye(b) if sentence is None else sentence)
    v = Views(run, batch, text, Latent(torch.zeros(b, 5)), Generated(torch.zeros(b, 3, 4, 4)), Rng(0))
    v.__dict__ |= features  # fills the cached properties
    v._features |= seen or {}
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


class Late(Discriminator):
    """Captions enter this discriminator last: logit = score + ⟨d, t⟩."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, image, text, stage):
        self.passes += 1
        score, d = image.sum((1, 2, 3)), torch.eye(len(image))
        return Judgement(score + (d * text.sentence).sum(1), d, {"score": score})

    def judge_again(self, seen, text):
        return seen.extra["score"] + (seen.embedding * text.sentence).sum(1)


class Early(Late):
    """The same, said to need a second pass."""

    def judge_again(self, seen, text):
        return None


@pytest.mark.parametrize(("D", "passes"), [(Late, 2), (Early, 6)])
def test_matching_by_hand(D, passes):
    # rows 0 and 1 are one picture, 1 and 2 have one caption: the next other one of each row
    wrong = [2, 3, 3, 0]
    sentence = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]) / 10
    run = bare_run({"adversarial": {"kind": "hinge"}}, D=D())
    v = views(run, ("a", "b", "B ", "c"), [1, 1, 2, 3], sentence)
    v.fake = v.fake + 0.01
    logit = [sentence[w][i].item() for i, w in enumerate(wrong)]
    expected = sum(max(0, 1 + x) for x in logit) / 4
    assert adversarial.matching(v).item() == pytest.approx(expected)
    fakes = sum(max(0, 1 + x + 0.48) for x in logit) / 4
    assert adversarial.matching(v, fakes=True).item() == pytest.approx(expected + fakes)
    run.config.loss["adversarial"]["kind"] = "relativistic"
    real = [sentence[i][i].item() for i in range(4)]
    expected = sum(math.log1p(math.exp(x - r)) for x, r in zip(logit, real)) / 4
    assert adversarial.matching(v).item() == pytest.approx(expected)
    assert run.D.passes == passes


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


def test_a_whole_number_may_be_written_with_a_point():
    (term,) = choose("generator", with_losses({"img_img_clip": {"queue": 8.0}}))
    assert isinstance(term.options["queue"], int)


def test_weight_nought_costs_nothing_and_lazy_terms_wait():
    given = {
        "adversarial": {"weight": 1.0},
        "r1": {"weight": 2.0, "every": 4, "gamma": 3.0},
        "img_txt_d": {"weight": 0.0},
        "img_txt_clip": {"weight": 0},
        "path_length": {"weight": 0.0},
    }
    d, g = (choose(network, with_losses(given)) for network in ("discriminator", "generator"))
    assert [t.name for t in d] == ["adversarial", "r1"]
    assert [t.name for t in g] == ["adversarial"]
    assert [[t.name for t in due(d, step, 0)] for step in (0, 4)] == [["adversarial", "r1"]] * 2
    assert [t.name for t in due(d, 1, 0)] == ["adversarial"]
    assert d[1].options == {"gamma": 3.0, "at": "pictures"}

    seen = []

    class Watched(Views):
        def __getattribute__(self, name):
            if name in ("fake_judgement", "real_judgement", "features", "clip_text"):
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
        seen={("clip", "fake"): torch.eye(2)},
        fake_judgement=Judgement(torch.zeros(2), torch.eye(2)),
        clip_text=text_of(torch.eye(2)),
    )
    given = {"adversarial": {"weight": 2.0}, "img_txt_clip": {"weight": 5, "temperature": 1.0}}
    terms = choose("generator", with_losses(given))
    loss, values = total(terms, v)
    nce = math.log1p(math.exp(-1))
    assert values["img_txt_clip"].item() == pytest.approx(nce)
    assert loss.item() == pytest.approx(2 * math.log(2) + 5 * nce)


@pytest.mark.parametrize(
    ("given", "said"),
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
def test_unknown_names_are_refused(given, said):
    for network in ("generator", "discriminator"):
        with pytest.raises(UserError, match=said):
            choose(network, with_losses(given))
