"""Spaces: from coordinates to pictures."""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_search import PROMPT, make

from t2i.errors import UserError
from t2i.interfaces import Generated, Latent, Stage, Text
from t2i.model import load_model
from t2i.rng import SampleRng
from t2i.search.spaces import Space


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_z_is_what_the_model_draws(model):
    space = Space(model, PROMPT)
    points = space.project(np.random.default_rng(0).normal(3, 1, (4, 12)))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), math.sqrt(12), rtol=1e-6)
    text = model.text_encoder([PROMPT] * 4)
    drawn = model.generator(Latent(torch.from_numpy(points)), text, noise="const").image.clamp(-1, 1)
    torch.testing.assert_close(space.images(torch.from_numpy(points)), drawn)
    assert space.describe(points[0]) == {"norm": pytest.approx(1), "truncation": 1.0}


def test_w_has_the_distribution_of_the_mapping(model):
    space = Space(model, PROMPT, "w")
    x = np.random.default_rng(0).standard_normal((4000, space.dim))
    w = space.mean + torch.from_numpy(x).float() @ space.cholesky.T
    text = model.text_encoder([PROMPT])
    z = torch.randn(4000, 12, generator=torch.Generator().manual_seed(1))
    real = model.generator.styles(Latent(z), text[[0] * 4000])
    torch.testing.assert_close(w.mean(0), real[:, 0].mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(w.T.cov(), real[:, 0].T.cov(), atol=0.1, rtol=0.1)
    far = space.project(50 * x[:5])
    np.testing.assert_allclose(np.linalg.norm(far, axis=1), space.max_norm, rtol=1e-5)
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
    quiet.generator.w_dim = 0
    with pytest.raises(UserError, match="has no mapping network; use --space z"):
        Space(quiet, PROMPT, "w")


# ---- what any generator needs


class Posed:
    """The least a generator is, and a camera's pose beside z: no W, no noise."""

    latent_dim, w_dim, num_ws, takes_noise = 5, 0, 0, False

    def latent(self, count, rng):
        return Latent(rng.randn(count, 5), {"pose": rng.randn(count, 3)})

    def __call__(self, latent, text, stage=None, *, truncation=1.0, noise="const", track=False):
        assert len(latent) == len(latent.extra["pose"]) == len(text)
        colour = truncation * latent.z.mean(1, keepdim=True) + latent.extra["pose"]
        return Generated(0.1 * colour[:, :, None, None].expand(-1, 3, stage.resolution, stage.resolution))


class Styled(Posed):
    """The same with a W that hears of the pose."""

    w_dim, num_ws, w_avg = 3, 2, torch.tensor([1.0, 2.0, 3.0])

    def styles(self, latent, text, truncation=1.0):
        w = latent.z[:, :3] + latent.extra["pose"]
        return self.w_avg.lerp(w[:, None].expand(-1, 2, -1), truncation)

    def from_styles(self, ws, text, stage=None, noise="const"):
        return Generated(0.1 * ws.mean(1)[:, :, None, None].expand(-1, 3, stage.resolution, stage.resolution))


def posed(generator) -> SimpleNamespace:
    text = Text(torch.ones(1, 4), torch.ones(1, 2, 4), torch.ones(1, 2, dtype=torch.bool))
    return SimpleNamespace(
        generator=generator, text_encoder=lambda prompts: text, stage=Stage(4), device=torch.device("cpu")
    )


def test_what_is_not_searched_is_drawn_once():
    generator, points = Posed(), np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    images = [Space(posed(generator), PROMPT, truncation=0.5, seed=s).images(torch.from_numpy(points)) for s in (1, 2)]
    assert images[0].shape == (3, 3, 4, 4)
    for seed, drawn in enumerate(images, 1):
        pose = generator.latent(1, SampleRng([seed])).extra["pose"]
        expected = 0.1 * (0.5 * torch.from_numpy(points).mean(1, keepdim=True) + pose)
        torch.testing.assert_close(drawn[:, :, 0, 0], expected.clamp(-1, 1))
    assert not torch.allclose(images[0], images[1])
    for kind in ("w", "z+truncation"):
        with pytest.raises(UserError, match="has no mapping network; use --space z"):
            Space(posed(generator), PROMPT, kind)
    with pytest.raises(UserError, match="no noise inputs"):
        Space(posed(generator), PROMPT, "z+noise")


def test_any_w_is_searched():
    model = posed(Styled())
    space, points = Space(model, PROMPT, "w", truncation=0.5, seed=1), torch.zeros(2, 3)
    middle = 0.1 * (space.mean + model.generator.w_avg) / 2
    torch.testing.assert_close(space.images(points)[:, :, 0, 0], middle.expand(2, 3))
    pose = model.generator.latent(1, SampleRng([1])).extra["pose"][0]
    torch.testing.assert_close(space.mean, pose, atol=0.1, rtol=0)  # z is N(0, 1) about it
    free = Space(model, PROMPT, "z+truncation", seed=1)
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 0  # the middle of 0.5 ... 1
    torch.testing.assert_close(free.images(x)[:, :, 0, 0], 0.1 * model.generator.w_avg.lerp(x[:, :3] + pose, 0.75))
