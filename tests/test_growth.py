"""StyleGAN2 while it grows: what fades in begins as nothing and ends as all of it, in every architecture."""

import pytest
import torch
from test_stylegan2 import close, discriminators, stylegan2, text, z

from t2i import nets, stages
from t2i.interfaces import Stage
from t2i.nets.contract import Dimensions
from t2i.nets.layers import ops

TEXT = 12
SIZES = (4, 8, 16, 32)


def woken(network):
    """Away from its starting point, where noise and biases would have no effect."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return network


def generator(architecture, resolution=32, grown=SIZES):
    torch.manual_seed(0)
    options = stylegan2.Options(
        architecture=architecture, channel_base=128, channel_max=16, latent_dim=10, style_dim=8, mapping_layers=1
    )
    return woken(stylegan2.Generator(options, Dimensions(resolution, TEXT, stages=grown)))


def discriminator(architecture, resolution=32, grown=SIZES, **more):
    torch.manual_seed(0)
    options = discriminators.Options(architecture=architecture, channel_base=128, channel_max=16)
    dimensions = Dimensions(resolution, TEXT, stages=grown, **more)
    return woken(discriminators.Discriminator(options, dimensions))


def draw(g, stage=None, **more):
    return g(z(3), text(3), stage, **more).image


def pictures(resolution):
    return torch.rand(4, 3, resolution, resolution, generator=torch.Generator().manual_seed(resolution)) * 2 - 1


@pytest.mark.parametrize("r", [8, 16, 32])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_generator_begins_with_what_it_drew_enlarged_and_ends_with_all_layers(architecture, r):
    g = generator(architecture)
    before, start, middle, end = (draw(g, s) for s in (Stage(r // 2), Stage(r, 0.0), Stage(r, 0.25), Stage(r, 1.0)))
    assert before.shape == (3, 3, r // 2, r // 2)
    assert start.shape == (3, 3, r, r)
    enlarged = ops.upsample2d(before, g.synthesis.b8.resample_filter)
    close(start, enlarged)
    close(middle, enlarged + (end - enlarged) / 4)  # a straight line in between
    assert (start - end).abs().max() > 0.01
    assert torch.equal(end, draw(g, Stage(r)))
    if r == 32:
        assert torch.equal(end, draw(g))


@pytest.mark.parametrize("r", [4, 8, 16])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_a_generator_at_a_stage_is_one_of_that_resolution(architecture, r):
    """Of the same weights: nothing of the layers to come shows."""
    g, small = generator(architecture), generator(architecture, r, ())
    weights = {k: v for k, v in g.state_dict().items() if k in small.state_dict()}
    small.load_state_dict(weights, strict=True)
    close(draw(g, Stage(r)), draw(small))


@pytest.mark.parametrize("r", [8, 16, 32])
@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_a_discriminator_begins_with_pictures_reduced_and_ends_with_all_layers(architecture, r):
    d, image = discriminator(architecture), pictures(r)
    small = ops.downsample2d(image, d.b8.resample_filter)
    before, start = d(small, text(4), Stage(r // 2)), d(image, text(4), Stage(r, 0.0))
    middle, end = d(image, text(4), Stage(r, 0.25)), d(image, text(4), Stage(r, 1.0))
    for name in ("logit", "embedding"):
        close(getattr(start, name), getattr(before, name))
        assert (getattr(start, name) - getattr(middle, name)).abs().max() > 1e-3
        assert (getattr(start, name) - getattr(end, name)).abs().max() > 1e-3
        assert torch.equal(getattr(end, name), getattr(d(image, text(4), Stage(r)), name))
        if r == 32:
            assert torch.equal(getattr(end, name), getattr(d(image, text(4)), name))


@pytest.mark.parametrize("r", [4, 8, 16])
@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_a_discriminator_at_a_stage_is_one_of_that_resolution(architecture, r):
    d, small = discriminator(architecture), discriminator(architecture, r, (r,))
    small.load_state_dict({k: v for k, v in d.state_dict().items() if k in small.state_dict()}, strict=True)
    close(d(pictures(r), text(4), Stage(r)).logit, small(pictures(r), text(4)).logit)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_layers_learn_as_soon_as_they_fade_in_and_not_before(architecture):
    g, d = generator(architecture), discriminator(architecture)
    for stage, new in ((Stage(8), False), (Stage(16, 0.1), True), (Stage(16), True)):
        judgement = d(draw(g, stage), text(3), stage)
        (judgement.logit.sum() + judgement.embedding.square().sum()).backward()
        for network, block in ((g.synthesis, "b16"), (d, "b16")):
            learns = [p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(network, block).parameters()]
            assert all(learns) if new else not any(learns), (stage, block)
        assert all(p.grad is None for p in [*g.synthesis.b32.parameters(), *d.b32.parameters()])
        g.zero_grad()
        d.zero_grad()


def test_only_where_pictures_are_finished_are_they_made():
    """Networks that keep no picture from block to block have a toRGB, or fromRGB, for the stages and no others."""
    g, d = generator("resnet", grown=(8, 32)), discriminator("resnet", grown=(8, 32))
    assert [r for r in SIZES if getattr(g.synthesis, f"b{r}").torgb is not None] == [8, 32]
    assert [r for r in SIZES if getattr(d, f"b{r}").fromrgb is not None] == [8, 32]
    plain_g, plain_d = generator("resnet", grown=()), discriminator("resnet", grown=())
    assert [r for r in SIZES if getattr(plain_g.synthesis, f"b{r}").torgb is not None] == [32]
    assert [r for r in SIZES if getattr(plain_d, f"b{r}").fromrgb is not None] == [32]


def test_regions_are_given_once_growth_has_come_to_them():
    d = discriminator("resnet", regions=True, words=12)
    assert "regions" not in d(pictures(16), text(4), Stage(16)).extra
    for alpha in (0.5, 1.0):
        assert d(pictures(32), text(4), Stage(32, alpha)).extra["regions"].shape == (4, TEXT, 16, 16)


@pytest.mark.parametrize("size", [16, 32])
def test_real_pictures_are_reduced_and_faded(size):
    x = torch.arange(size).repeat(size, 1).expand(2, 3, size, size) / size
    halves = stages.reduced(x, Stage(size // 2))
    assert halves.shape == (2, 3, size // 2, size // 2)
    torch.testing.assert_close(halves[0, 0, 0], (torch.arange(size // 2) * 2 + 0.5) / size)  # means of neighbours
    assert stages.reduced(x, Stage(size)) is x
    coarse = stages.reduced(x, Stage(size, 0.0))
    torch.testing.assert_close(coarse, halves.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(stages.reduced(x, Stage(size, 0.25)), 0.75 * coarse + 0.25 * x)
    fading = stages.reduced(x, Stage(size // 2, 0.5))
    torch.testing.assert_close(fading, 0.5 * halves + 0.5 * stages.reduced(halves, Stage(size // 2, 0.0)))
    # going down in two steps is going down at once
    torch.testing.assert_close(stages.reduced(halves, Stage(size // 4)), stages.reduced(x, Stage(size // 4)))


def test_those_that_grow_say_so():
    assert nets.find("generators", "stylegan2").Options.GROWS
    assert nets.find("discriminators", "stylegan2").Options.GROWS
    assert not nets.find("generators", "stylegan3").Options.GROWS
