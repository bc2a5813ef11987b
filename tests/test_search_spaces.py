"""Spaces: from coordinates to pictures."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_search import PROMPT, make

from t2i.errors import UserError
from t2i.model import load_model
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
    drawn = model.generator(torch.from_numpy(points), model.text_encoder([PROMPT] * 4), noise="const").clamp(-1, 1)
    torch.testing.assert_close(space.images(torch.from_numpy(points)), drawn)
    assert space.describe(points[0]) == {"norm": pytest.approx(1), "truncation": 1.0}


def test_w_has_the_distribution_of_the_mapping(model):
    space = Space(model, PROMPT, "w")
    x = np.random.default_rng(0).standard_normal((4000, space.dim))
    w = space.mean + torch.from_numpy(x).float() @ space.cholesky.T
    text = model.text_encoder([PROMPT])
    real = model.generator.mapping(torch.randn(4000, 12, generator=torch.Generator().manual_seed(1)), text[[0] * 4000])
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
    quiet = load_model(make(tmp_path, "model.noise=false", critic=False))
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
