"""The search: algorithms, spaces, objectives, one budget, record and resumption, on a tiny random StyleGAN2."""

import importlib.util
import json
import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from t2i import config
from t2i import model as models
from t2i.encoders.clip import load_clip
from t2i.errors import UserError
from t2i.model import load_model, save_model
from t2i.pictures import to_uint8
from t2i.search import Settings, algorithms, report, search
from t2i.search import objectives as goals
from t2i.search.distinct import distinct, similarity
from t2i.search.evaluate import Evaluator, Looks
from t2i.search.hunt import pareto
from t2i.search.objectives import Objectives, clip_similarity, discriminator_logit
from t2i.search.record import candidate, pack, unpack
from t2i.search.spaces import Space

ROOT = Path(__file__).parents[1]
PROMPT = "a green train"
TINY = [
    "encoders.text=scenes-clip", "encoders.clip=scenes-clip", "model.resolution=16", "generator.channel_base=128", "discriminator.channel_base=128",
    "generator.channel_max=16", "discriminator.channel_max=16", "generator.latent_dim=12", "generator.style_dim=16",
]  # fmt: skip
QUICK = Settings(population=8, budget=32, views=1, batch=5, top_k=3)


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(folder: Path, *more: str, critic: bool = True) -> Path:
    """A model folder in which w, noise and truncation show."""
    settings = config.load(None, [*TINY, *more])
    nets = models.backbone("stylegan2")
    torch.manual_seed(0)
    generator, judge = nets.Generator(settings.model, 128), nets.Discriminator(settings.model, 128)
    generator.mapping.w_avg.normal_()
    state = {k: v + 0.3 if k.endswith("noise_strength") else v for k, v in generator.state_dict().items()}
    save_model(folder, state, settings, 128, 1.0, discriminator_state=judge.state_dict() if critic else None)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3))


# ---- algorithms


def climb(name: str, seed: int, generations: int = 40, population: int = 16, dim: int = 10) -> np.ndarray:
    """The best scores so far of a search for the direction (1, ..., 1), with points kept on the sphere."""
    kind = algorithms.find(name)
    algorithm = kind(algorithms.Task(dim, population, population * generations, seed, kind.objectives))
    target, best, spent = np.ones(dim) / math.sqrt(dim), [], 0
    while spent < population * generations:
        size, cost = algorithm.size, algorithms.GRADIENT if algorithm.gradients else 1
        points = algorithm.ask()
        assert points.shape == (size, dim)
        points = points * (math.sqrt(dim) / np.linalg.norm(points, axis=1, keepdims=True))
        score = points @ target / math.sqrt(dim)  # cosine
        both = np.stack([score, -np.abs(points[:, 0])], 1)[:, : kind.objectives]
        algorithm.tell(algorithms.Told(points, score, both, np.tile(target, (size, 1)), points[:, :2]))
        spent += size * cost
        best.append(max(score.max(), best[-1] if best else -1))
    return np.array(best)


@pytest.mark.parametrize("name", algorithms.known())
def test_every_algorithm_beats_plain_sampling(name):
    before = np.random.get_state()[1].copy()
    generations = 300 if name == "map_elites" else 40  # it fills a whole grid
    best = climb(name, 1, generations)
    assert (np.random.get_state()[1] == before).all()  # not the numbers that all share
    if name != "best_of_n":
        plain = climb("best_of_n", 1, generations)
        assert best[-1] > plain[-1] + 0.05
    again = climb(name, 1, 20)
    np.testing.assert_array_equal(climb(name, 1, 20), again)
    assert not np.array_equal(climb(name, 2, 20), again)


def test_adam_takes_fewer_chains_rather_than_too_few_steps():
    sizes = [algorithms.find("adam")(algorithms.Task(4, 50, budget, 0)).size for budget in (10, 600, 10**6)]
    assert sizes == [1, 2, 50]


def test_hybrid_climbs_from_the_best_distinct_samples():
    hybrid = algorithms.find("hybrid")(algorithms.Task(4, 20, 1260, 3))
    seen, scores = [], []
    while not hybrid.gradients:
        points = hybrid.ask()
        seen.append(points)
        scores.append(points[:, 0])
        hybrid.tell(algorithms.Told(points, points[:, 0], points[:, :1]))
    points, scores = np.concatenate(seen), np.concatenate(scores)
    assert len(points) == 420  # a third of the budget
    np.testing.assert_array_equal(hybrid.ask(), points[distinct(points, scores, 2)])


# ---- distinct


def test_distinct_by_hand():
    points = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0], [0, 3.0]])
    assert distinct(points, np.array([1, 2, 3, 0, 2.9]), 3) == [2, 1, 3]  # 4 is 2 again, 0 is 1 again
    assert distinct(points, np.array([1, np.nan, 3, np.inf, 2.9]), 9) == [2, 0]
    assert similarity(np.array([[1, 0], [5, 0], [0, 2.0]])) == pytest.approx(1 / 3)
    assert math.isnan(similarity(np.ones((1, 2))))


@given_settings(max_examples=30)
@given(arrays.arrays(np.float64, (20, 3), elements=st.floats(-3, 3)), st.integers(1, 8))
def test_distinct_is_distinct_and_best_first(points, count):
    scores = points[:, 0] - points[:, 1]
    chosen = distinct(points, scores, count)
    assert len(chosen) <= count
    assert (np.diff(scores[chosen]) <= 0).all()
    assert scores[chosen[0]] == scores.max()
    unit = points[chosen] / np.maximum(np.linalg.norm(points[chosen], axis=1, keepdims=True), 1e-12)
    assert (np.triu(unit @ unit.T, 1) < 0.9).all()


# ---- spaces


def test_z_is_what_the_model_draws(model):
    space = Space(model, PROMPT)
    points = space.project(np.random.default_rng(0).normal(3, 1, (4, 12)))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), math.sqrt(12), rtol=1e-6)
    drawn = model.generator(torch.from_numpy(points), model.text_encoder([PROMPT] * 4), noise="const").clamp(-1, 1)
    torch.testing.assert_close(space.images(torch.from_numpy(points)), drawn)
    assert space.describe(points[0]) == {"norm": pytest.approx(1), "truncation": 1.0}


def test_w_has_the_distribution_of_the_mapping(model):
    space = Space(model, PROMPT, "w")
    x = np.random.default_rng(0).standard_normal((4000, space.dim))
    w = space.mean + torch.from_numpy(x).float() @ space.factor.T
    text = model.text_encoder([PROMPT])
    real = model.generator.mapping(torch.randn(4000, 12, generator=torch.Generator().manual_seed(1)), text[[0] * 4000])
    torch.testing.assert_close(w.mean(0), real[:, 0].mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(w.T.cov(), real[:, 0].T.cov(), atol=0.1, rtol=0.1)
    far = space.project(50 * x[:5])
    np.testing.assert_allclose(np.linalg.norm(far, axis=1), space.reach, rtol=1e-5)
    near = 0.1 * x[:5]
    np.testing.assert_allclose(space.project(near), near, rtol=1e-6)  # typical already
    assert space.images(torch.from_numpy(far)).shape == (5, 3, 16, 16)


def test_truncation_is_a_coordinate(model):
    space, plain = Space(model, PROMPT, "z+truncation"), Space(model, PROMPT, truncation=0.75)
    points = space.project(np.random.default_rng(0).standard_normal((3, 13)))
    points[:, 12] = 0  # the middle of 0.5 ... 1
    torch.testing.assert_close(
        space.images(torch.from_numpy(points)), plain.images(torch.from_numpy(points[:, :12].copy()))
    )
    points[:, 12] = 99
    assert space.describe(space.project(points)[0])["truncation"] == pytest.approx(1, abs=1e-3)


def test_noise_is_the_same_for_all_or_searched(model):
    z = np.random.default_rng(0).standard_normal((1, 12))
    fixed = Space(model, PROMPT, noise="random", seed=1)
    images = fixed.images(torch.from_numpy(fixed.project(np.repeat(z, 2, 0))))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images, Space(model, PROMPT, noise="random", seed=2).images(torch.from_numpy(z).float()))
    free = Space(model, PROMPT, "z+noise")
    assert free.dim == 12 + 4 * 5  # four fields for each of five convolutions
    points = np.random.default_rng(1).standard_normal((2, free.dim))
    points[:, :12] = z
    images = free.images(torch.from_numpy(free.project(points)))
    assert not torch.allclose(images[0], images[1])


def test_spaces_that_are_not_there(tmp_path):
    quiet = load_model(make(tmp_path, "generator.noise=false", critic=False))
    for kind, line in (
        ("z+noise", "no noise inputs"),
        ("zz", "starts with z or w"),
        ("w+truncate", "did you mean 'truncation'"),
    ):
        with pytest.raises(UserError, match=line) as error:
            Space(quiet, PROMPT, kind)
        assert "\n" not in str(error.value)
    Space(quiet, PROMPT, "w").images(torch.zeros(2, 16))
    del quiet.generator.mapping
    with pytest.raises(UserError, match="has no mapping network; use --space z"):
        Space(quiet, PROMPT, "w")


# ---- objectives


def test_objective_language():
    assert goals.parse("clip+0.1*d,typical") == [{"clip": 1.0, "d": 0.1}, {"typical": 1.0}]
    for given_, line in (
        ("clop", "did you mean 'clip'"),
        ("x*d", "no number"),
        ("0*d", "other than 0"),
        ("", "no term"),
    ):
        with pytest.raises(UserError, match=line):
            goals.parse(given_)


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
    assert goals.recolored("a zebra") == []
    others = goals.recolored("A Red bus near a green tree, reddish")
    assert len(others) == 2 * 10
    assert "A blue bus near a green tree, reddish" in others
    assert "A Red bus near a brown tree, reddish" in others
    assert len(goals.recolored("a grey cat")) == 10
    clip = load_clip("scenes-clip")
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features = clip.image_features(images)
    prompt, mean = clip.text([PROMPT]).sentence[0], clip.text(goals.recolored(PROMPT)).sentence.mean(0)
    parts, text = goals.parse("contrast"), SimpleNamespace(text_encoder=clip.text)
    built = {p: goals.build(parts, text, p, [clip], None, 1, images, 0)(images)[0][:, 0] for p in (PROMPT, "a zebra")}
    torch.testing.assert_close(built[PROMPT], features @ prompt - features @ mean)
    torch.testing.assert_close(built["a zebra"], clip_similarity([clip], "a zebra")(images))


def test_terms_that_read_the_same_features_pay_once():
    clip, asked = load_clip("scenes-clip"), []
    count = SimpleNamespace(
        size=clip.size, text=clip.text, image_features=lambda x: asked.append(1) or clip.image_features(x)
    )
    text, images = SimpleNamespace(text_encoder=clip.text), torch.zeros(2, 3, 16, 16)
    objectives = goals.build(goals.parse("clip+contrast"), text, PROMPT, [count], None, 2, images, 0)
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
    parts = goals.parse("d_text+d_contrast")
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
    looks = Looks(space.images(torch.randn(16, 12)))
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


# ---- the search


def test_search_beats_the_baseline_of_as_many_evaluations(model, tmp_path):
    settings = replace(QUICK, population=10, budget=200, held_out="scenes-clip-score")
    result = search(model, [PROMPT], settings, tmp_path, brightness)[0]
    assert result.found[0].score > result.baseline[0].score > result.plain["score"][0]
    assert result.spent == 200
    rows = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()][1:]
    by = [[r for r in rows if r.get("by") == name] for name in ("search", "baseline")]
    assert [len(b) for b in by] == [200, 200]
    assert [r["index"] for r in rows if "index" in r] == list(range(400))
    for name, found in zip(("search", "baseline"), (result.found, result.baseline)):
        mine = {r["index"]: r for r in rows if r.get("by") == name}
        assert found[0].score == max(r["score"] for r in mine.values()) == mine[found[0].index]["score"]
        np.testing.assert_array_equal(unpack(mine[found[0].index]["point"]), found[0].point)
    # What is reported is what the pictures are worth.
    image = result.pictures["found"][:1]
    assert float(brightness(image)) == pytest.approx(result.found[0].score, abs=1e-5)
    held_out = clip_similarity([load_clip("scenes-clip-score")], PROMPT)
    assert float(held_out(image)) == pytest.approx(result.found[0].held_out, abs=1e-5)
    assert math.isfinite(result.found[0].d)
    assert result.history[-1]["best"] == result.found[0].score
    assert result.history[-1]["held_out"] == pytest.approx(result.found[0].held_out, abs=1e-4)
    assert result.latents_alike < 0.9


@pytest.mark.parametrize("name", algorithms.known())
def test_killed_and_resumed_is_as_if_never_killed(model, tmp_path, name):
    settings = replace(QUICK, algorithm=name, space="z+truncation")
    objective = None if name in ("nsga2", "hybrid") else brightness
    whole = search(model, [PROMPT], settings, tmp_path / "whole", objective)[0]
    text = (tmp_path / "whole/record.jsonl").read_bytes()
    killed = tmp_path / "killed/record.jsonl"
    killed.parent.mkdir()
    lines = text.splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if b'"closes"' in line]
    cuts = [b"".join(lines[: ends[1] + 3]) + lines[ends[1] + 3][:20], lines[0][:10]]
    for kept in cuts if name == "sep_cma" else cuts[:1]:
        killed.write_bytes(kept)
        again = search(model, [PROMPT], settings, killed.parent, objective)[0]
        assert killed.read_bytes() == text
        assert [f.index for f in again.found] == [f.index for f in whole.found]
    evaluated = []
    done = search(model, [PROMPT], settings, killed.parent, objective, watch=lambda *_: evaluated.append(1))[0]
    assert len(evaluated) == len(ends)  # only read
    assert torch.equal(done.pictures["found"], whole.pictures["found"])


def test_another_search_is_not_resumed(model, tmp_path):
    search(model, [PROMPT], QUICK, tmp_path, brightness)
    with pytest.raises(UserError, match="holds a search with seed=0, not 1; choose another --out"):
        search(model, [PROMPT], replace(QUICK, seed=1), tmp_path, brightness)
    path = tmp_path / "record.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["point"] = pack(np.zeros(12))
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(UserError, match="generation 0 was made by other versions"):
        search(model, [PROMPT], QUICK, tmp_path, brightness)
    path.write_text("{}\nnot json\n")
    with pytest.raises(UserError, match="not a record"):
        search(model, [PROMPT], QUICK, tmp_path, brightness)


def test_stops(model, monkeypatch):
    settings = replace(QUICK, baseline=False)
    full = search(model, [PROMPT], settings, None, brightness)[0]
    assert full.stopped == "budget spent"
    target = full.history[1]["best"]
    reached = search(model, [PROMPT], replace(settings, target=target), None, brightness)[0]
    assert reached.stopped == "target reached"
    assert reached.spent == next(h["spent"] for h in full.history if h["best"] >= target)
    timed = search(model, [PROMPT], replace(settings, minutes=1e-9), None, brightness)[0]
    assert (timed.stopped, timed.generations) == ("time is up", 1)
    flat = replace(settings, algorithm="ga", budget=4000, population=500, batch=250, plateau=0.05)
    result = search(model, [PROMPT], flat, None, lambda images: 0 * brightness(images))[0]
    assert (result.stopped, result.spent) == ("plateau", 2000)  # never before 2,000 evaluations


def test_prompts_share_the_budget(model):
    """The half that gains least stops, what it leaves goes to the others; easy ones stop early."""
    prompts = ["a green train", "a red bus", "a blue boat", "a zebra"]
    settings = replace(QUICK, budget=48, baseline=False)
    results = search(model, prompts, settings, None, brightness)
    spent = sorted(r.spent for r in results)
    assert spent == [16, 16, 48, 112]  # a round of 64 among four, one among two, one for the last
    assert sum(spent) == 4 * 48
    assert sorted(r.stopped for r in results) == ["budget spent"] + ["others gained more"] * 3
    # A prompt's own search is the one it has alone.
    alone = search(model, prompts[1:2], settings, None, brightness)[0]
    together = results[1].history
    assert alone.history[: len(together)] == together[: len(alone.history)]
    easy = min(r.history[0]["best"] for r in results)
    all_easy = search(model, prompts, replace(settings, target=easy), None, brightness)
    assert [r.spent for r in all_easy] == [8] * 4


def test_scores_that_are_no_number_are_the_worst(model, tmp_path):
    middle = search(model, [PROMPT], QUICK, None, brightness)[0].plain["score"][0]

    def holes(images):
        x = brightness(images)
        return torch.where(x > middle, torch.nan, x)  # the best would be among them

    for name in ("sep_cma", "ga", "map_elites"):
        result = search(model, [PROMPT], replace(QUICK, algorithm=name), tmp_path / name, holes)[0]
        assert result.bad > 0
        assert all(math.isfinite(f.score) for f in result.found + result.baseline)
        text = (tmp_path / name / "record.jsonl").read_text()
        assert "NaN" not in text
        assert '"score": null' in text
    with pytest.raises(UserError, match="no score of the first generation is a number"):
        search(model, [PROMPT], QUICK, None, lambda images: brightness(images) * torch.nan)


def test_best_of_n_is_the_baseline_of_the_others(model):
    both = [search(model, [PROMPT], replace(QUICK, algorithm=n), None, brightness)[0] for n in ("best_of_n", "ga")]
    assert both[0].found[0].score == both[1].baseline[0].score
    np.testing.assert_array_equal(both[0].found[0].point, both[1].baseline[0].point)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"algorithm": "sep_cmaes"}, "did you mean 'sep_cma'"),
        ({"population": 33}, "population=33: more than the budget of 32"),
        ({"population": 3}, "sep_cma needs 4 or more"),
        ({"population": 0}, "population=0: must be 1 or more"),
        ({"views": 0}, "views=0"),
        ({"target": math.nan}, "target=nan"),
        ({"minutes": 0.0}, "minutes=0.0"),
        ({"plateau": 1.5}, "plateau=1.5"),
        ({"space": "y"}, "starts with z or w"),
        ({"noise": "loud"}, "noise=loud"),
    ],
)
def test_settings_that_make_no_sense(changes, line):
    with pytest.raises(UserError, match=line) as error:
        replace(QUICK, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objective": "clip,d"}, "sep_cma takes 1; join them"),
        ({"algorithm": "nsga2", "objective": "clip"}, "nsga2 takes 2; separate two"),
        ({"objective": "clip+d"}, "holds no discriminator.safetensors"),
        ({"scorer": "open_clipp:x"}, "or name another CLIP with --scorer"),
        ({"held_out": "scenes-clip"}, "is optimised too"),
    ],
)
def test_searches_that_lack_something(tmp_path, changes, line):
    model = load_model(make(tmp_path, critic=False))
    with pytest.raises(UserError, match=line) as error:
        search(model, [PROMPT], replace(QUICK, **changes))
    assert "\n" not in str(error.value)


def test_nsga2_without_a_discriminator(tmp_path):
    said: list[str] = []
    model = load_model(make(tmp_path, critic=False))
    result = search(model, [PROMPT], replace(QUICK, algorithm="nsga2"), say=said.append)[0]
    assert any("no D score" in line for line in said)
    assert any("typical" in line for line in said)
    assert set(result.found[0].terms) == {"clip", "typical"}
    assert math.isnan(result.found[0].d)
    assert result.plain["score"] == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=0.5))  # in σ of plain samples


def test_pareto_by_hand():
    values = np.array([[1, 5], [2, 4], [2, 3], [3, 1], [0, 5], [np.nan, 9], [3, 1]])
    assert pareto(values).tolist() == [3, 1, 0]


def test_without_a_clip(tmp_path):
    """A discriminator is enough; with neither it is said what to name."""
    said: list[str] = []
    model, bare = load_model(make(tmp_path / "a")), load_model(make(tmp_path / "b", critic=False))
    model.config.encoders.clip = bare.config.encoders.clip = ""
    result = search(model, [PROMPT], QUICK, say=said.append)[0]
    assert set(result.found[0].terms) == {"d_text", "d_contrast"}
    assert any("no CLIP" in line for line in said)
    with pytest.raises(UserError, match=r"was trained without a CLIP .*--scorer"):
        search(model, [PROMPT], replace(QUICK, objective="clip"))
    with pytest.raises(UserError, match="neither a CLIP"):
        search(bare, [PROMPT], QUICK)


@pytest.mark.parametrize(("name", "file"), [("nsga2", "front-x.png"), ("map_elites", "archive-x.png")])
def test_front_and_archive(model, tmp_path, name, file):
    result = search(model, [PROMPT], replace(QUICK, algorithm=name))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        report.save([result], tmp_path, ["x"], {})
    assert read(tmp_path / file).shape[1] > 100
    if name == "nsga2":
        both = result.goals["search"]
        front = both[result.goals["front"]]
        assert both.shape == (32, 2)
        assert (np.diff(front[:, 0]) <= 0).all()
        assert not any((point > front).all(1).any() for point in both)
    else:
        cells = result.elites["cells"]
        assert len({tuple(c) for c in cells}) == len(cells) == len(result.elites["pictures"])


# ---- several processes


def work(rank: int, folder: str, out: str, port: int) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ.update(where)
    torch.distributed.init_process_group("gloo")
    for name in ("sep_cma", "hybrid"):
        search(load_model(folder), [PROMPT, "a red bus"], replace(QUICK, algorithm=name), f"{out}/{name}")
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_find_what_one_finds(model, folder, tmp_path):
    """To the bit: the same micro-batches, whoever computes them."""
    mp.start_processes(work, (str(folder), str(tmp_path / "two"), 29000 + os.getpid() % 1000), 2, start_method="fork")
    for name in ("sep_cma", "hybrid"):
        search(model, [PROMPT, "a red bus"], replace(QUICK, algorithm=name), tmp_path / "one" / name)
        records = [(tmp_path / way / name / "record.jsonl").read_bytes() for way in ("one", "two")]
        assert records[0] == records[1]


# ---- the commands


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


def test_command(folder, tmp_path, capsys):
    main = script("generate").main
    out = tmp_path / "found"
    command = ["--prompt", PROMPT, "--search", "sep_cma", "--population", "8", "--generations", "4", "--top-k", "2",
               "--views", "2", "--checkpoint", str(folder), "--device", "cpu", "--out", str(out)]  # fmt: skip
    with warnings.catch_warnings():  # matplotlib's and its helpers' own
        warnings.simplefilter("ignore", DeprecationWarning)
        main(command)
    said = capsys.readouterr().out
    assert "32 evaluations and as many plain samples at about" in said
    for line in ("plain samples, mean", "best of 32 plain", "search, 1", "search, 2", "held out", "mean cosine"):
        assert line in said
    assert "of plain samples: optimised +" in said or "of plain samples: optimised -" in said
    assert read(out / "history.png").shape[1] > 500
    assert read(out / "grid.png").shape[1] == 2 * 258 - 2
    result = json.loads((out / "result.json").read_text())
    best = result["prompts"][0]["found"][0]
    about = json.loads((out / "best/0001-a-green-train-1.json").read_text())
    assert about["index"] == best["index"]
    assert {"norm", "truncation", "d", "held_out", "weights_sha256", "versions"} <= set(about)
    # Again: everything is there already.
    main(command)
    assert "goes on after 64 candidates" in capsys.readouterr().out
    # Any candidate can be drawn again, and the best is the picture that was saved.
    main(["--replay", str(out / "record.jsonl"), "--index", str(best["index"]), "--device", "cpu"])
    assert "'a green train', search, generation" in capsys.readouterr().out
    replayed = read(out / f"replay-{best['index']}.png")
    assert (replayed == read(out / "best/0001-a-green-train-1.png")).all()
    head, row = candidate(out / "record.jsonl", 9)  # a plain sample
    assert row["by"] == "baseline"
    main(["--replay", str(out / "record.jsonl"), "--index", "9", "--device", "cpu", "--out", str(tmp_path / "9.png")])
    z = torch.from_numpy(unpack(row["point"]))[None]
    model = load_model(folder)
    drawn = model.generator(z, model.text_encoder([head["prompts"][0]]), noise="const").clamp(-1, 1)
    assert (read(tmp_path / "9.png") == to_uint8(drawn)[0].numpy()).all()
    for more, line in (
        (["--index", "999"], "has candidates 0 to 63"),
        ([], "needs --index"),
        (["--index", "1", "--checkpoint", "scenes-stylegan2"], "not the weights of the search"),
    ):
        with pytest.raises(UserError, match=line):
            main(["--replay", str(out / "record.jsonl"), *more, "--device", "cpu"])
    with pytest.raises(UserError, match="not a record"):
        main(["--replay", str(out / "result.json"), "--index", "1"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--search", "sepcma"], "did you mean 'sep_cma'"),
        (["--search", "ga", "--population", "100", "--budget", "50"], "more than the budget of 50"),
        (["--search", "ga", "--preset", "fast"], "known: 1000x100"),
        (["--search", "ga", "--preset", "quick", "--budget", "50"], "--preset quick: leave it out"),
        (["--search", "ga", "--population", "10", "--generations", "3", "--budget", "50"], "two of the three"),
        (["--search", "ga", "--generations", "0"], "generations"),
        (["--search", "ga", "--out", "x.png"], "give a folder"),
        (["--budget", "50"], "--budget: only with --search"),
    ],
)
def test_commands_that_make_no_sense(folder, arguments, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=line) as error:
        script("generate").main(["--prompt", PROMPT, "--checkpoint", str(folder), "--device", "cpu", *arguments])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_presets():
    generate = script("generate")

    def parsed(*words: str) -> tuple[int, int]:
        found = generate.search_settings(generate.parser().parse_args(["--search", "ga", *words]))
        return found.population, found.budget

    assert parsed() == (50, 1000)
    assert parsed("--preset", "1000x100") == (1000, 100_000)
    assert parsed("--population", "100", "--generations", "1000") == (100, 100_000)
    assert parsed("--budget", "500") == (50, 500)


def test_table(folder, tmp_path, capsys):
    table = script("search_table")
    assert [table.shape(s, 2000) for s in table.TABLE] == [(14, 142), (28, 71), (71, 28), (141, 14)]
    (tmp_path / "captions.txt").write_text("a green train\na red bus\n")
    command = ["--checkpoint", str(folder), "--file", str(tmp_path / "captions.txt"), "--budget", "40", "--views", "1",
               "--seeds", "1", "--algorithms", "ga", "--out", str(tmp_path / "table"), "--device", "cpu"]  # fmt: skip
    with pytest.raises(UserError, match=r"--settings 200x400: known: .* did you mean '200x500'"):
        table.main([*command, "--settings", "200x400"])
    table.main([*command, "--minutes", "0"])
    assert "0 runs" in capsys.readouterr().out
    table.main(command)
    rows = [json.loads(line) for line in (tmp_path / "table/rows.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (1 + 4)
    text = (tmp_path / "table/table.md").read_text()
    assert "| plain sampling | | 2 |" in text
    assert "| `ga` | 4×10 (200x500) | 2 |" in text
    table.main(command)  # nothing is run twice
    assert len((tmp_path / "table/rows.jsonl").read_text().splitlines()) == len(rows)
    capsys.readouterr()
    table.main(["--overhead", "--population", "8", "--dim", "4", "--algorithms", "sep_cma,adam"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["sep_cma", "adam"]
