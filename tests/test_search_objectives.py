"""What pictures are searched for, and how points are scored."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_search import PROMPT, QUICK, brightness, make

from t2i import model as models
from t2i.encoders.clip import load_clip
from t2i.errors import UserError
from t2i.model import load_model
from t2i.search import objectives as goals
from t2i.search.evaluate import Evaluator
from t2i.search.language import parse_objective
from t2i.search.measures import AppearanceMeasures
from t2i.search.objectives import Objectives, clip_similarity, discriminator_logit
from t2i.search.run import search
from t2i.search.spaces import Space


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


# ---- objectives


def test_objective_language():
    assert parse_objective("clip+0.1*d,typical") == [{"clip": 1.0, "d": 0.1}, {"typical": 1.0}]
    for given_, line in (
        ("clop", "did you mean 'clip'"),
        ("x*d", "no number"),
        ("0*d", "other than 0"),
        ("", "no term"),
    ):
        with pytest.raises(UserError, match=line):
            parse_objective(given_)


def test_clip_is_the_mean_over_fixed_views():
    clip = load_clip("scenes-clip")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = clip_similarity([clip], PROMPT)(images)
    features, text = clip(images, [PROMPT] * 3)
    torch.testing.assert_close(plain, (features * text.sentence).sum(1))
    score = clip_similarity([clip], PROMPT, views=4, seed=1)
    # Common random numbers: what a picture gets does not depend on who else is judged, nor on when.
    torch.testing.assert_close(score(images)[[2, 0]], score(images[[2, 0]]))
    assert torch.equal(score(images), score(images))
    assert not torch.allclose(score(images), plain)
    assert not torch.allclose(score(images), clip_similarity([clip], PROMPT, views=4, seed=2)(images))
    for look in goals.draw_views(5, 0):
        assert look(images, 32).abs().max() <= 1
    # Half white, half black: a mirrored view has them the other way round, unless the prompt has sides.
    half = torch.ones(1, 3, 16, 16)
    half[..., :8] = -1
    for mirror, sides in ((True, 2), (False, 1)):
        seen = [look(half, 16) for look in goals.draw_views(12, 0, mirror)]
        assert len({bool(x[..., 0].mean() < x[..., -1].mean()) for x in seen}) == sides


def test_contrast_is_with_other_colours():
    assert goals.recolor("a zebra") == []
    others = goals.recolor("A Red bus near a green tree, reddish")
    assert len(others) == 2 * 10
    assert "A blue bus near a green tree, reddish" in others
    assert "A Red bus near a brown tree, reddish" in others
    assert len(goals.recolor("a grey cat")) == 10
    clip = load_clip("scenes-clip")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = clip.features(images)
    prompt, mean = clip.text([PROMPT]).sentence[0], clip.text(goals.recolor(PROMPT)).sentence.mean(0)
    parts, text = parse_objective("contrast"), SimpleNamespace(text_encoder=clip.text)
    built = {p: goals.build(parts, text, p, [clip], None, 1, images, 0)(images)[0][:, 0] for p in (PROMPT, "a zebra")}
    torch.testing.assert_close(built[PROMPT], features @ prompt - features @ mean)
    torch.testing.assert_close(built["a zebra"], clip_similarity([clip], "a zebra")(images))


def test_terms_that_read_the_same_features_pay_once():
    clip, asked = load_clip("scenes-clip"), []
    count = SimpleNamespace(size=clip.size, text=clip.text, features=lambda x: asked.append(1) or clip.features(x))
    text, images = SimpleNamespace(text_encoder=clip.text), torch.zeros(2, 3, 16, 16)
    objectives = goals.build(parse_objective("clip+contrast"), text, PROMPT, [count], None, 2, images, 0)
    with torch.no_grad():
        first = objectives(images)[0]
    assert len(asked) == 2  # views
    assert not torch.equal(objectives(torch.ones(2, 3, 16, 16))[0], first)
    again = objectives(images.requires_grad_())[0]
    assert again.requires_grad, "what was read without gradients is not what is read with them"
    torch.testing.assert_close(again.detach(), first)


def test_discriminator_reads_the_prompt(model):
    critic, text = models.load_discriminator(model), model.text_encoder([PROMPT])
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cosine = torch.cosine_similarity(critic(images, text[[0] * 3]).embedding, text.sentence, 1)
    parts = parse_objective("d_text+d_contrast")
    terms, sums = goals.build(parts, model, PROMPT, [], critic, 1, images, 0)(images)
    torch.testing.assert_close(terms[:, 0], cosine)
    torch.testing.assert_close(sums[:, 0], terms.sum(1))
    assert not torch.allclose(terms[:, 0], terms[:, 1])


def test_discriminator_judges_pictures_one_by_one(model):
    judge = discriminator_logit(models.load_discriminator(model), model.text_encoder([PROMPT]))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(judge(images), torch.cat([judge(i[None]) for i in images]))


# ---- evaluation


def test_micro_batches_do_not_matter(model):
    space, points = Space(model, PROMPT), np.random.default_rng(0).standard_normal((11, 12)).astype(np.float32)
    looks = AppearanceMeasures(space.images(torch.randn(16, 12)))
    parts = [{"bright": 2.0}, {"bright": -1.0}]
    results = [Evaluator(space, Objectives({"bright": brightness}, parts), n, looks)(points, True) for n in (3, 11)]
    for a, b in zip(*(vars(r).values() for r in results)):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert results[0].objectives.shape == (11, 2)
    np.testing.assert_allclose(results[0].objectives, results[0].terms * [2, -1], rtol=1e-5)
    # The gradient is that of the first objective, by finite differences.
    step = np.zeros_like(points)
    step[:, 3] = 1e-2
    evaluate = Evaluator(space, Objectives({"bright": brightness}, parts), 11)
    up, down = evaluate(points + step).objectives[:, 0], evaluate(points - step).objectives[:, 0]
    np.testing.assert_allclose(results[0].gradient[:, 3], (up - down) / 2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_micro_batches_halve_when_memory_runs_out(model, capsys, error):
    seen = []

    def greedy(images):
        seen.append(len(images))
        if len(images) > 2:
            raise error
        return brightness(images)

    points = np.random.default_rng(0).standard_normal((10, 12)).astype(np.float32)
    space = Space(model, PROMPT)
    evaluate = Evaluator(space, Objectives({"x": greedy}), 8)
    scores = evaluate(points)
    assert seen == [8, 4, 2, 2, 2, 2, 2]
    assert "2 pictures at a time from now on" in capsys.readouterr().out
    np.testing.assert_allclose(
        scores.terms, Evaluator(space, Objectives({"x": brightness}), 2)(points).terms, atol=1e-6
    )

    def never(images):
        raise error

    with pytest.raises(UserError, match="one picture at a time"):
        Evaluator(space, Objectives({"x": never}), 2)(points)

    def broken(images):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Evaluator(space, Objectives({"x": broken}), 2)(points)


def test_held_out_scorer_halves_its_micro_batches_too(model, capsys, monkeypatch):
    seen = []

    def greedy(images):
        seen.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return brightness(images)

    plain = search(model, [PROMPT], QUICK, None, brightness)[0].plain["score"]
    monkeypatch.setattr(goals, "clip_similarity", lambda clips, prompt: greedy)
    result = search(model, [PROMPT], replace(QUICK, held_out="scenes-clip-score"), None, brightness)[0]
    assert seen[:4] == [5, 2, 2, 2]
    assert max(seen[1:]) == 2
    assert "2 pictures at a time" in capsys.readouterr().out
    assert result.plain["held_out"] == pytest.approx(plain, abs=1e-6)
