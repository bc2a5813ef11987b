"""StyleGAN2's two networks as the pipeline uses them: every architecture and text conditioning, noise, mixing,
precision."""

import itertools
from pathlib import Path

import pytest
import torch

from t2i import config
from t2i.errors import UserError
from t2i.interfaces import Latent, Text
from t2i.nets.contract import Dimensions
from t2i.nets.discriminators import stylegan2 as discriminators
from t2i.nets.discriminators.stylegan2 import Discriminator
from t2i.nets.generators import stylegan2
from t2i.nets.generators.stylegan2 import Generator
from t2i.nets.layers import equalised
from t2i.nets.layers.equalised import channels
from t2i.rng import Rng, SampleRng

TEXT = 12
ADA = Path(__file__).parents[1] / "configs" / "stylegan2_ada"


def generator(resolution=16, width=1.0, **options):
    small = {"channel_base": 128, "channel_max": 16, "latent_dim": 10, "style_dim": 8}
    return Generator(stylegan2.Options(**(small | options)), Dimensions(resolution, TEXT, width=width))


def discriminator(resolution=16, width=1.0, **options):
    small = {"channel_base": 128, "channel_max": 16}
    return Discriminator(discriminators.Options(**(small | options)), Dimensions(resolution, TEXT, width=width))


def text(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sentence = torch.nn.functional.normalize(torch.randn(batch, TEXT, generator=generator))
    return Text(sentence, sentence[:, None], torch.ones(batch, 1, dtype=torch.bool))


def make(g=None, d=None, **both):
    """A generator and a discriminator away from their starting point, where noise would have no effect."""
    torch.manual_seed(0)
    g, d = generator(**both, **(g or {})), discriminator(**both, **(d or {}))
    with torch.no_grad():
        for name, parameter in itertools.chain(g.named_parameters(), d.named_parameters()):
            if name.endswith(("noise_strength", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
        g.w_avg.normal_()
    return g, d


def make_g(resolution=16, **options):
    return make(g=options, resolution=resolution)[0]


def make_d(resolution=16, **options):
    return make(d=options, resolution=resolution)[1]


def z(batch, seed=1):
    return Latent(torch.randn(batch, 10, generator=torch.Generator().manual_seed(seed)))


def draw(g, latent, *arguments, **more):
    return g(latent, *arguments, **more).image


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.detach().abs().max()) + 1e-12)


@pytest.mark.parametrize("resolution", [16, 32])
@pytest.mark.parametrize("how", ["mapping", "lafite"])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_generator_builds_and_listens_to_text(architecture, how, resolution):
    g = make_g(architecture=architecture, text=how, resolution=resolution)
    image = draw(g, z(3), text(3), noise="const")
    assert image.shape == (3, 3, resolution, resolution)
    assert image.dtype == torch.float32
    assert g.num_ws == {16: 6, 32: 8}[resolution]
    assert g.latent_dim == 10
    assert g.w_dim == 8
    assert g.styles(z(3), text(3)).shape == (3, g.num_ws, 8)
    other = draw(g, z(3), text(3, seed=5), noise="const")
    assert ((image - other).abs().amax((1, 2, 3)) > 1e-3).all()
    image.square().mean().backward()
    assert [n for n, p in g.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("resolution", [16, 32])
@pytest.mark.parametrize("how", ["lafite", "projection"])
@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_discriminator_builds_and_listens_to_text(architecture, how, resolution):
    d = make_d(architecture=architecture, text=how, resolution=resolution)
    image = torch.rand(8, 3, resolution, resolution) * 2 - 1
    judgement = d(image, text(8))
    assert judgement.logit.shape == (8,)
    assert judgement.embedding.shape == (8, TEXT)
    other = d(image, text(8, seed=5))
    assert ((judgement.logit - other.logit).abs() > 1e-5).all()
    torch.testing.assert_close(judgement.embedding, other.embedding)  # of the picture alone
    torch.testing.assert_close(d.judge_again(judgement, text(8, seed=5)), other.logit)
    (judgement.logit.sum() + judgement.embedding.square().sum()).backward()
    assert [n for n, p in d.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_lafite_logit_is_per_sample():
    """f(x) + <d(x), t>: changing one caption changes that picture's logit alone, by the change of the product."""
    d = make_d(text="lafite")
    image, t = torch.randn(4, 3, 16, 16), text(4)
    before = d(image, t)
    t2 = Text(t.sentence.clone(), t.words, t.mask)
    t2.sentence[2] = -t.sentence[2]
    change = d(image, t2).logit - before.logit
    expected = torch.zeros(4)
    expected[2] = -2 * (before.embedding[2] * t.sentence[2]).sum()
    close(change, expected, 1e-4)


def test_text_above_the_change_scales_and_shifts_the_style():
    widths = channels(128, 16, 16)
    net = stylegan2.Synthesis(8, widths, text_dim=TEXT, text_hidden=6, change=8)
    names = {n.split(".")[2] for n, _ in net.named_parameters() if n.startswith("b16.conv0")}
    assert names >= {"affine", *(f"{p}_layer_{n}" for p in ("scale", "bias") for n in range(3))}
    assert hasattr(net.b8.conv0, "pre_1")
    conv, w, t = net.b16.conv0, torch.randn(2, 8), text(2).sentence
    scale = conv.scale_layer_2(conv.scale_layer_1(conv.scale_layer_0(t)))
    shift = conv.bias_layer_2(conv.bias_layer_1(conv.bias_layer_0(t)))
    torch.testing.assert_close(conv.style(w, t), shift + scale * conv.affine(w))
    assert net(torch.randn(2, 6, 8), t).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("how", ["mapping", "lafite"])
def test_a_picture_does_not_depend_on_its_batch(how):
    g = make_g(text=how)
    together = draw(g, z(4), text(4), noise=SampleRng([7, 8, 9, 10]))
    alone = draw(g, z(4)[2:3], text(4)[2:3], noise=SampleRng([9]))
    close(alone, together[2:3])


def test_noise():
    g = make_g()
    const = [draw(g, z(2), text(2), noise="const") for _ in range(2)]
    assert torch.equal(*const)
    torch.manual_seed(3)
    random = [draw(g, z(2), text(2), noise="random") for _ in range(2)]
    assert not torch.equal(*random)
    asked = []

    class Stored:
        """The stored maps by way of a noise object: once a noisy layer, in the order of the layers."""

        maps = iter(m.noise_const for m in g.modules() if isinstance(m, stylegan2.StyledConv))

        def randn(self, batch, *shape):
            asked.append((batch, *shape))
            return next(self.maps).expand(batch, *shape)

    close(draw(g, z(2), text(2), noise=Stored()), const[0])
    assert asked == [(2, 1, r, r) for r in (4, 8, 8, 16, 16)]


def test_noise_can_be_left_out():
    g = make_g(noise=False)
    assert not g.takes_noise
    random, const = (draw(g, z(2), text(2), noise=noise) for noise in ("random", "const"))
    assert torch.equal(random, const)
    torch.testing.assert_close(random, g.synthesis(g.styles(z(2), text(2)), text(2), noise=None))
    torch.testing.assert_close(random, g.from_styles(g.styles(z(2), text(2)), text(2), noise="random").image)


def test_sentences_reach_the_layers_with_unit_variance():
    """A sentence has unit length, w components of unit variance: the sentence is scaled by √C; a vector is not."""
    g = make_g(text="lafite")
    ws, t = g.styles(z(2), text(2)), text(2)
    scaled = g.synthesis(ws, t.sentence * TEXT**0.5, noise="const")
    close(g.synthesis(ws, t, noise="const"), scaled)


def test_truncation_and_mixing():
    g = make_g(text="mapping")
    ws, half, none = (g.styles(z(3), text(3), t) for t in (1.0, 0.5, 0.0))
    torch.testing.assert_close(none, g.w_avg.expand_as(none))
    torch.testing.assert_close(half, (ws + none) / 2)
    torch.testing.assert_close(g.styles(z(3), text(3), torch.full((3, 1, 1), 0.5)), half)
    cut = g.mapping(z(3).z, text(3), 0.5, cutoff=2)
    torch.testing.assert_close(cut, torch.cat([half[:, :2], ws[:, 2:]], 1))
    w2 = g.styles(z(3, seed=2), text(3))
    mixture = Latent(z(3).z, {"z2": z(3, seed=2).z, "cutoff": torch.full((3,), 4)})
    mixed = draw(g, mixture, text(3), noise="const")
    close(mixed, g.synthesis(torch.cat([ws[:, :4], w2[:, 4:]], 1), text(3), noise="const"))
    truncated = draw(g, z(3), text(3), noise="const", truncation=0.5)
    close(truncated, g.synthesis(half, text(3), noise="const"))


def test_latents_are_mixed_while_training_alone():
    g, seeds = make_g(style_mixing=0.5), range(40)
    assert not any(g.eval().latent(3, Rng(seed)).extra for seed in seeds)
    drawn = [g.train().latent(3, Rng(seed)) for seed in seeds]
    mixed = [latent for latent in drawn if latent.extra]
    assert 10 < len(mixed) < 30
    cutoffs = {int(c) for latent in mixed for c in latent.extra["cutoff"]}
    assert cutoffs == set(range(1, g.num_ws))
    assert all(len(latent.extra["cutoff"].unique()) == 1 for latent in mixed)  # one for the whole batch
    assert all(latent.z.shape == latent.extra["z2"].shape == (3, 10) for latent in mixed)
    assert all(not torch.equal(latent.z, latent.extra["z2"]) for latent in mixed)


def test_w_avg_is_left_to_the_training_step():
    g = make_g()
    before = g.w_avg.clone()
    g.train()(z(2), text(2))
    assert torch.equal(g.w_avg, before)
    assert g.w_avg_beta == 0.995
    mixture = Latent(z(2).z, {"z2": z(2, seed=2).z, "cutoff": torch.full((2,), 1)})
    g(mixture, text(2), track=True)
    torch.testing.assert_close(g.w_avg, before.lerp(g.styles(z(2), text(2))[:, 0].detach().mean(0), 0.005))


def test_minibatch_stddev_by_hand():
    """Groups are strided: of 4 pictures in groups of 2, picture 0 meets 2 and 1 meets 3."""
    x = torch.tensor([0.0, 0.0, 2.0, 6.0])[:, None, None, None].expand(4, 2, 3, 3)
    y = equalised.minibatch_stddev(x, group=2)
    assert y.shape == (4, 3, 3, 3)
    torch.testing.assert_close(y[:, :2], x)
    torch.testing.assert_close(y[:, 2, 0, 0], torch.tensor([1.0, 3.0, 1.0, 3.0]))
    torch.testing.assert_close(equalised.minibatch_stddev(x[:3], group=4)[:, 2, 0, 0], torch.full((3,), (8 / 9) ** 0.5))
    torch.testing.assert_close(equalised.minibatch_stddev(x, group=None)[0, 2, 0, 0], torch.tensor(6.0) ** 0.5)


def test_a_group_that_does_not_divide_the_batch():
    d = make_d(mbstd_group=4)
    said = r"discriminator\.mbstd_group=4: does not divide the 6 pictures.* discriminator\.mbstd_group=3"
    with pytest.raises(UserError, match=said):
        d(torch.randn(6, 3, 16, 16), text(6))
    assert d(torch.randn(2, 3, 16, 16), text(2)).logit.shape == (2,)


@pytest.mark.parametrize("path", [None, *sorted(ADA.glob("*.yaml"))], ids=lambda path: path.stem if path else "ours")
def test_channels_of_the_published_settings(path):
    c = config.load(path, ["model.resolution=256"])
    for network in (c.generator, c.discriminator):
        table = channels(network.channel_base, network.channel_max, 256)
        assert table == {r: min(network.channel_base // r, 512) for r in (4, 8, 16, 32, 64, 128, 256)}


def test_width_scales_channels():
    assert channels(16384, 512, 128, 0.5) == {4: 256, 8: 256, 16: 256, 32: 256, 64: 128, 128: 64}
    assert channels(16384, 512, 64, 0.8) == {4: 408, 8: 408, 16: 408, 32: 408, 64: 208}  # multiples of 8
    assert channels(256, 16, 64, 0.5) == {4: 8, 8: 8, 16: 8, 32: 4, 64: 2}
    assert channels(16, 16, 32, 0.1) == {4: 1, 8: 1, 16: 1, 32: 1}
    small, large = (generator(width=w).synthesis.b8.conv1.weight.shape for w in (0.5, 1.0))
    assert (small, large) == ((8, 8, 3, 3), (16, 16, 3, 3))
    d = discriminator(channel_base=256, channel_max=24)
    assert d.b16.conv0.weight.shape == (16, 16, 3, 3)
    assert d.b4.fc.weight.shape == (24, 24 * 16)


def test_1024():
    """Few channels, many pixels; above 256 text reaches the layers in LAFITE's other form."""
    g, d = make(resolution=1024, channel_base=1024, channel_max=4)
    image = draw(g, z(1), text(1))
    assert image.shape == (1, 3, 1024, 1024)
    assert d(image, text(1)).logit.isfinite().all()
    assert g.num_ws == 18
    assert hasattr(g.synthesis.b256.conv1, "affine_0")
    assert hasattr(g.synthesis.b512.conv1, "scale_layer_2")


def test_clamp_bounds_activations():
    d = make_d(conv_clamp=0.01, architecture="orig")
    seen = []
    d.b16.register_forward_hook(lambda module, inputs, output: seen.append(output.abs().max().item()))
    d(torch.randn(4, 3, 16, 16) * 100, text(4))
    assert seen == [pytest.approx(0.01)]
    g = make_g(conv_clamp=0.01, architecture="orig")
    assert draw(g, z(2), text(2)).abs().max() <= 0.0100001


def second_order(g, d, autocast=False):
    """The gradients of R1 (in the discriminator) and of the path length (in the generator)."""
    image = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(4)) * 2 - 1
    image.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logit = d(image, text(4)).logit
    (slope,) = torch.autograd.grad(logit.sum(), image, create_graph=True)
    r1 = torch.autograd.grad(slope.square().sum((1, 2, 3)).mean(), list(d.parameters()), allow_unused=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ws = g.styles(z(4), text(4))
        fake = g.from_styles(ws, text(4), noise="const").image
    assert logit.dtype == fake.dtype == ws.dtype == torch.float32
    probe = torch.randn(fake.shape, generator=torch.Generator().manual_seed(6)) / 16
    (slope,) = torch.autograd.grad((fake * probe).sum(), ws, create_graph=True)
    length = slope.square().sum(2).mean(1).sqrt()
    path = torch.autograd.grad((length - 0.1).square().mean(), list(g.parameters()), allow_unused=True)
    return [torch.zeros(1) if p is None else p for p in (*r1, *path)]


@pytest.mark.parametrize("architectures", [("skip", "resnet"), ("resnet", "skip"), ("orig", "orig")])
@pytest.mark.parametrize(("g_text", "d_text"), [("lafite", "lafite"), ("mapping", "projection")])
def test_second_order_gradients_in_every_layout_and_precision(g_text, d_text, architectures):
    g, d = make({"text": g_text, "architecture": architectures[0]}, {"text": d_text, "architecture": architectures[1]})
    plain = second_order(g, d)
    assert sum(p.abs().sum() > 0 for p in plain) > len(plain) * 0.6
    half = second_order(g, d, autocast=True)
    last = second_order(g.to(memory_format=torch.channels_last), d.to(memory_format=torch.channels_last))
    half_last = second_order(g, d, autocast=True)

    def flat(grads):
        return torch.cat([p.reshape(-1) for p in grads])

    for a, b in zip(last, plain):
        assert a.isfinite().all()
        close(a, b, 2e-4)
    for other in (half, half_last):
        assert flat(other).isfinite().all()
        assert torch.nn.functional.cosine_similarity(flat(other), flat(plain), dim=0) > 0.98


def test_layout_follows_the_weights():
    """Networks moved to channels_last compute in it throughout, without converting back and forth."""
    g, d = (net.to(memory_format=torch.channels_last) for net in make())
    seen = []

    def look(module, inputs, output):
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    for net in (g, d):
        for module in net.modules():
            if isinstance(module, stylegan2.StyledConv) or (isinstance(module, stylegan2.Conv2d) and module.down == 2):
                module.register_forward_hook(look)
    d(draw(g, z(2), text(2)), text(2))
    assert seen
    assert all(seen)
