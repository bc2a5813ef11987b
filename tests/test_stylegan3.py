"""StyleGAN3 and what it is made of: filters, equivariance, running means, text, precision, training."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_losses import bare_run
from test_train import arguments, run_here  # noqa: F401
from torch.autograd import gradcheck, gradgradcheck

from t2i import checkpoint, config, parallel, schedule, views
from t2i import model as models
from t2i.errors import UserError
from t2i.interfaces import Batch, Generated, Judgement, Latent, Stage, Text
from t2i.metrics import equivariance
from t2i.nets.contract import Dimensions, Discriminator
from t2i.nets.discriminators import stylegan2 as discriminators
from t2i.nets.generators import stylegan2, stylegan3
from t2i.nets.layers import filtered, ops
from t2i.nets.layers.filtered import design_lowpass_filter, filtered_lrelu

TEXT, WORD = 12, 7


def text(batch, seed=0):
    g = torch.Generator().manual_seed(seed)
    sentence = F.normalize(torch.randn(batch, TEXT, generator=g))
    mask = torch.arange(4)[None] < torch.tensor([[4], [2]] * batch)[:batch]
    return Text(sentence, torch.randn(batch, 4, WORD, generator=g), mask)


def z(batch, seed=1):
    return Latent(torch.randn(batch, 10, generator=torch.Generator().manual_seed(seed)))


def generator(nets=stylegan3, words=WORD, width=1.0, **options):
    """Of pictures of 32×32."""
    torch.manual_seed(0)
    small = {"channel_base": 256, "channel_max": 12, "latent_dim": 10, "style_dim": 8}
    small |= {"layers": 6} if nets is stylegan3 else {}
    return nets.Generator(nets.Options(**(small | options)), Dimensions(32, TEXT, words, width))


def discriminator(**options):
    torch.manual_seed(0)
    chosen = discriminators.Options(channel_base=256, channel_max=12, **options)
    return discriminators.Discriminator(chosen, Dimensions(32, TEXT))


def draw(g, latent, captions, **more):
    return g(latent, captions, **more).image


# ---- filters and the nonlinearity


def test_lowpass_filters_pass_low_frequencies_and_stop_high_ones():
    """Frequency response: 1 before the transition, a half in it, 0 after; if radial, the same in all directions."""
    taps, cutoff, width, fs = 24, 4.0, 6.0, 32.0
    place = (torch.arange(taps) - (taps - 1) / 2) / fs
    f = design_lowpass_filter(taps, cutoff, width, fs)
    gain = lambda frequency: float((f * torch.cos(2 * math.pi * frequency * place)).sum())
    assert gain(0) == pytest.approx(1)
    assert gain(cutoff) == pytest.approx(0.5, abs=0.02)
    assert gain(cutoff - width / 2) == pytest.approx(1, abs=0.02)
    assert gain(cutoff + width / 2) == pytest.approx(0, abs=0.02)
    f = design_lowpass_filter(taps, cutoff, width, fs, radial=True)
    assert f.sum() == pytest.approx(1)
    y, x = torch.meshgrid(place, place, indexing="ij")
    for frequency, expected in ((cutoff, 0.5), (cutoff - width / 2, 1), (cutoff + width / 2, 0)):
        for turn in (0, 0.4, math.pi / 4):
            wave = torch.cos(2 * math.pi * frequency * (x * math.cos(turn) + y * math.sin(turn)))
            assert float((f * wave).sum()) == pytest.approx(expected, abs=0.06)
    assert design_lowpass_filter(1, cutoff, width, fs) is None
    assert design_lowpass_filter(7, cutoff, width, fs, radial=True).isfinite().all()  # its middle is r = 0


def plain(x, fu, fd, b, up, down, padding, gain, slope, clamp):
    """The definition, on zero-stuffed pictures."""
    x = ops.upfirdn2d(x + b[:, None, None], fu, up=up, padding=padding, gain=up**2)
    x = F.leaky_relu(x, slope) * gain
    x = x if clamp is None else x.clamp(-clamp, clamp)
    return ops.upfirdn2d(x, fd, down=down)


CASES = {
    "t": (12, 12, 2, 2, (9, 8, 9, 8)),
    "up 4, crop": (24, 12, 4, 2, (-6, -9, -5, -9)),
    "radial": (12, (12, 12), 2, 2, (9, 8, 9, 8)),
    "unequal": (5, 6, 3, 2, (4, -2, 7, 1)),
    "down only": (None, 12, 1, 2, (8, 8, 8, 8)),
    "up only": (8, None, 2, 1, 5),
}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("part", [1, 10**9])
@pytest.mark.parametrize("case", CASES)
def test_filtered_lrelu_is_its_definition(case, part, clamp, memory_format, monkeypatch):
    """With first and second derivatives, in both memory layouts, over several blocks of rows, pictures one by one or
    together."""
    monkeypatch.setattr(filtered, "PART", part)
    taps_up, taps_down, up, down, padding = CASES[case]
    g = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    fu, fd = (None if n is None else randn(*(n if isinstance(n, tuple) else (n,))) / 4 for n in (taps_up, taps_down))
    x, b = randn(2, 3, 13, 17).to(memory_format=memory_format).requires_grad_(), randn(3).requires_grad_()
    results = []
    for function in (filtered_lrelu, plain):
        y = function(x, fu, fd, b, up, down, padding, 1.3, 0.2, clamp)
        probe = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y).requires_grad_()
        first = torch.autograd.grad((y * probe).sum(), (x, b), create_graph=True)
        second = torch.autograd.grad(first[0].square().sum() + first[1].sum(), probe)
        results.append([y, *first, *second])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)
    if fu is not None and fd is not None:
        assert filtered.layout(results[0][0]) == memory_format


def test_filtered_lrelu_derivatives():
    fu, fd = design_lowpass_filter(6, 2, 2, 8).double(), design_lowpass_filter(6, 2, 2, 8, radial=True).double()
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    b = torch.tensor([0.1, -0.2], dtype=torch.float64, requires_grad=True)
    for down in (fd, fu):
        function = lambda x, b, down=down: filtered_lrelu(x, fu, down, b, 2, 2, 4, clamp=0.7)
        assert gradcheck(function, (x, b), fast_mode=True)
        assert gradgradcheck(function, (x, b), fast_mode=True)


def test_filtered_lrelu_keeps_a_byte_for_each_upsampled_value():
    x = torch.randn(1, 4, 32, 32, requires_grad=True)
    f = design_lowpass_filter(12, 4, 4, 32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.nbytes) or t, lambda t: t):
        y = filtered_lrelu(x, f, f, None, 2, 2, 10)
    upsampled = 4 * (2 * 32 + 20 - 11) ** 2
    assert sum(kept) == upsampled
    y.sum().backward()
    with torch.no_grad():
        assert filtered_lrelu(x, f, f, None, 2, 2, 10).grad_fn is None


def test_half_precision_comes_out_as_it_went_in():
    x = torch.randn(2, 8, 20, 20)
    f = design_lowpass_filter(12, 4, 4, 32)
    whole = filtered_lrelu(x, f, f, torch.ones(8), 2, 2, 10)
    half = filtered_lrelu(x.bfloat16(), f, f, torch.ones(8), 2, 2, 10)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0, atol=0.05)


# ---- the generator


@pytest.mark.parametrize("how", ["mapping", "lafite"])
@pytest.mark.parametrize("kind", ["t", "r"])
def test_generator_builds_and_listens_to_text(kind, how):
    g = generator(equivariance=kind, text=how)
    image = draw(g, z(3), text(3))
    assert image.shape == (3, 3, 32, 32)
    assert image.dtype == torch.float32
    assert g.num_ws == 6 + 2
    assert ((image - draw(g, z(3), text(3, seed=5))).abs().amax((1, 2, 3)) > 1e-4).all()
    assert torch.equal(image, draw(g, z(3), text(3), noise="random"))  # there is none
    image.square().mean().backward()
    assert [n for n, p in g.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    kernel = g.synthesis.L0_36_12.weight.shape if kind == "t" else g.synthesis.L0_36_24.weight.shape
    assert kernel == ((12, 12, 3, 3) if kind == "t" else (24, 24, 1, 1))  # R has twice the channels


def test_truncation_mixing_and_independence_of_the_batch():
    g = generator()
    g.w_avg.normal_()
    ws = g.styles(z(3), text(3))
    half = g.w_avg.lerp(ws, 0.5)
    close = lambda a, b: torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    close(draw(g, z(3), text(3), truncation=0.5), g.synthesis(half, text(3)))
    w2 = g.styles(z(3, seed=2), text(3))
    mixture = Latent(z(3).z, {"z2": z(3, seed=2).z, "cutoff": torch.full((3,), 4)})
    close(draw(g, mixture, text(3)), g.synthesis(torch.cat([ws[:, :4], w2[:, 4:]], 1), text(3)))
    close(draw(g, z(3)[1:2], text(3)[1:2]), draw(g, z(3), text(3))[1:2])


def test_running_means_move_only_when_tracked_and_over_all_processes(monkeypatch):
    g = generator()
    before = {k: v.clone() for k, v in g.state_dict().items()}
    g(z(4), text(4))
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items())
    seen = []

    def everyone(rows):  # a second process with rows twice as large
        seen.append(rows)
        return torch.cat([rows, 4 * rows])

    monkeypatch.setattr(parallel, "gather", everyone)
    g(z(4), text(4), track=True)
    assert [len(rows) for rows in seen] == [4] * (1 + 7)  # w, and one a layer
    beta = 0.5 ** (8 / 20_000)
    first = g.synthesis.L0_36_12.magnitude_ema
    assert float(first) == pytest.approx(beta + (1 - beta) * 2.5 * float(seen[1].mean()), abs=1e-6)
    torch.testing.assert_close(g.w_avg, 0.002 * 2.5 * seen[0].mean(0))
    x = g.synthesis.input(g.styles(z(4), text(4))[:, 0])
    torch.testing.assert_close(seen[1], x.square().mean((1, 2, 3)).detach())


def test_a_layer_divides_by_its_inputs_running_magnitude():
    g = generator()
    layer, x, w = g.synthesis.L2_52_12, torch.randn(2, 12, 36, 36), torch.randn(2, 8)
    t = text(2).sentence
    y = layer(x, w, t)
    layer.magnitude_ema.fill_(9.0)
    torch.testing.assert_close(layer(3 * x, w, t), y, rtol=1e-4, atol=1e-5)


def test_the_users_transform_moves_the_picture():
    g = generator()
    image = draw(g, z(1), text(1))
    matrix = torch.eye(3)
    matrix[0, 2] = -4 / 32  # read the input four pixels to the left: the picture moves right
    with g.moved(matrix):
        moved = draw(g, z(1), text(1))
    g.synthesis.input.transform[0, 2] = -4 / 32
    torch.testing.assert_close(draw(g, z(1), text(1)), moved)
    torch.testing.assert_close(moved[..., 4:], image[..., :-4], rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["t", "r"])
def test_second_order_gradients_layouts_and_precision(kind):
    """The path-length penalty, which differentiates twice."""

    def penalty(g, autocast=False):
        ws = g.styles(z(2), text(2))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            image = g.from_styles(ws, text(2)).image
        assert image.dtype == torch.float32
        (slope,) = torch.autograd.grad((image * torch.linspace(-1, 1, 32)).sum(), ws, create_graph=True)
        loss = slope.square().sum()
        return torch.cat([p.flatten() for p in torch.autograd.grad(loss, [w for w in g.parameters() if w.ndim > 1])])

    g = generator(equivariance=kind, text="mapping")
    exact = penalty(g)
    assert exact.abs().sum() > 0
    last = penalty(generator(equivariance=kind, text="mapping").to(memory_format=torch.channels_last))
    # Weights of 3×3 lie otherwise in memory, but their gradients have the same shape.
    torch.testing.assert_close(last, exact, rtol=1e-3, atol=2e-4 * float(exact.abs().max()))
    assert F.cosine_similarity(penalty(g, autocast=True), exact, dim=0) > 0.98


def test_width_multiplies_channels():
    wide, thin = (generator(width=w).synthesis.names[0] for w in (1.0, 0.5))
    assert (wide, thin) == ("L0_36_12", "L0_36_6")


# ---- equivariance


def pictures(size=32):
    """A band-limited picture of two waves, as a function of the place in pixels from the middle."""

    def picture(x, y):
        return torch.sin(0.35 * x + 0.1 * y) + 0.5 * torch.cos(0.25 * y - 0.15 * x + 1)

    index = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(index, index, indexing="ij")
    return picture, x, y


@pytest.mark.parametrize(("tx", "ty"), [(3, -2), (-1.3, 2.6), (0, 0), (0.5, 0)])
def test_translate_moves_a_picture(tx, ty):
    picture, x, y = pictures()
    moved, mask = equivariance.translate(picture(x, y)[None, None], tx, ty)
    error = (moved[0, 0] - picture(x - tx, y - ty)).abs() * mask
    assert error.max() < (1e-12 if tx == int(tx) and ty == int(ty) else 0.02)
    assert mask.sum() >= (32 - 9) ** 2
    assert mask.sum() == {3: 29 * 30, -1.3: 27 * 27, 0: 32 * 32, 0.5: 27 * 32}[tx]


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, math.pi / 2])
def test_rotate_turns_a_picture(angle):
    picture, x, y = pictures()
    turned, mask = equivariance.rotate(picture(x, y)[None, None], angle)
    c, s = math.cos(angle), math.sin(angle)
    expected, inside = equivariance.band_limit(picture(c * x - s * y, s * x + c * y)[None, None], angle)
    assert ((turned - expected) * mask * inside).abs().max() < 0.02
    assert (mask * inside).sum() > 100


@pytest.mark.parametrize("kind", ["t", "r"])
def test_stylegan3_is_equivariant(kind):
    """T to shifts, R to rotations too: beyond 60 dB with random weights."""
    found = equivariance.compute(generator(equivariance=kind), z(4), text(4), batch=2)
    assert found["EQ-T"] > 60
    assert found["EQ-T frac"] > 60
    assert (found["EQ-R"] > 60) == (kind == "r"), found


def test_a_transform_that_the_user_has_set_makes_no_difference():
    """A quarter turn and a shift: if the metric's shift came behind them it would go another way."""
    g = generator()
    g.synthesis.input.transform.copy_(torch.tensor([[0.0, -1, 0.1], [1, 0, 0.05], [0, 0, 1]]))
    found = equivariance.compute(g, z(4), text(4), batch=2, kinds=["EQ-T", "EQ-T frac"])
    assert min(found.values()) > 60, found


def test_stylegan2_is_not():
    found = equivariance.compute(generator(stylegan2), z(4), text(4), batch=2)
    assert max(found.values()) < 35, found
    alone = equivariance.compute(generator(stylegan2), z(4), text(4), batch=2, kinds=["EQ-R"])
    assert alone == {"EQ-R": found["EQ-R"]}


@pytest.mark.parametrize("nets", [stylegan2, stylegan3])
def test_the_input_is_put_back(nets):
    g = generator(nets)
    assert g.movable
    before = {k: v.clone() for k, v in g.state_dict().items()}
    matrix = torch.tensor([[0.0, -1, 0.1], [1, 0, 0]])
    with pytest.raises(ZeroDivisionError), g.moved(matrix):  # noqa: PT012
        assert any(not torch.equal(v, before[k]) for k, v in g.state_dict().items())
        raise ZeroDivisionError
    assert all(torch.equal(v, before[k]) for k, v in g.state_dict().items())
    with pytest.raises(UserError, match="EQ-R"):
        equivariance.compute(g, z(1), text(1), kinds=["EQ-r"])


def test_recomputing_changes_no_gradient_and_keeps_less():
    """First derivatives, the path length's second ones, and the running means, which must move once only.

    Kept is what the graph holds beside the layers' inputs."""
    found, kept = [], []
    for recompute in (False, True):
        g = generator(stylegan3, recompute=recompute)
        sizes = {}

        def record(x, sizes=sizes):
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(record, lambda x: x):
            image = draw(g, z(2), text(2), track=True)
        kept.append(sum(sizes.values()))
        first = torch.autograd.grad(image.square().sum(), list(g.parameters()))
        ws = g.styles(z(2), text(2))
        (slope,) = torch.autograd.grad(g.from_styles(ws, text(2)).image.square().sum(), ws, create_graph=True)
        second = torch.autograd.grad(slope.square().sum(), list(g.parameters()), allow_unused=True)
        means = [b for n, b in g.named_buffers() if n.endswith("magnitude_ema")]
        assert all(m != 1 for m in means)
        found.append([image, *first, *(x for x in second if x is not None), *means])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert kept[1] < kept[0] / 2


# ---- attention in both backbones


@pytest.mark.parametrize("kind", ["cross", "modulation"])
@pytest.mark.parametrize("nets", [stylegan2, stylegan3])
def test_attention_begins_without_effect_and_then_reads_words(nets, kind):
    without = generator(nets)
    g = generator(nets, self_attention=[16], word_attention=[16], word_attention_kind=kind)
    assert torch.equal(draw(without, z(2), text(2)), draw(g, z(2), text(2)))
    added = [n for n, _ in g.named_parameters() if "attend" in n]
    assert {n for n, _ in g.named_parameters()} - set(added) == {n for n, _ in without.named_parameters()}
    with torch.no_grad():
        for name, p in g.named_parameters():
            if "attend" in name:
                p.add_(torch.randn_like(p) * 0.5)
    t, other = text(2), text(2, seed=3)
    image = draw(g, z(2), t)
    changed = draw(g, z(2), Text(t.sentence, other.words, t.mask))
    assert (image - changed).abs().amax((1, 2, 3)).min() > 1e-4
    hidden = t.words.masked_fill(~t.mask[..., None], 50.0)
    torch.testing.assert_close(draw(g, z(2), Text(t.sentence, hidden, t.mask)), image)
    # the path length through it, and its gradient for attention's own weights
    ws = g.styles(z(2), t)
    (slope,) = torch.autograd.grad(g.from_styles(ws, t).image.square().sum(), ws, create_graph=True)
    slope.square().sum().backward()
    silent = [n for n, p in g.named_parameters() if n in added and (p.grad is None or not p.grad.abs().sum() > 0)]
    # adding the same to all keys, or to all of a query's logits, changes no attention
    assert all(n.endswith(("k.bias", "words.out.bias", "among.out.bias")) for n in silent), silent


def test_self_attention_in_the_discriminator_under_r1():
    plain_d, d = discriminator(), discriminator(self_attention=[8])
    image = torch.randn(4, 3, 32, 32, requires_grad=True)
    assert torch.equal(d(image, text(4)).logit, plain_d(image, text(4)).logit)
    d.b16.attend.gate.data.fill_(0.7)
    logit = d(image, text(4)).logit
    assert not torch.allclose(logit, plain_d(image, text(4)).logit)
    (slope,) = torch.autograd.grad(logit.sum(), image, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in d.b16.attend.named_parameters() if not n.endswith("bias"))


def test_mistakes_name_the_field():
    for make, options, said in (
        (generator, {"word_attention": [10]}, r"generator\.word_attention=\[10\].*16"),
        (generator, {"self_attention": [4]}, r"generator\.self_attention"),
        (discriminator, {"self_attention": [32]}, r"discriminator\.self_attention.*16"),
    ):
        with pytest.raises(UserError, match=said):
            make(**options)
    with pytest.raises(UserError, match="no words"):
        generator(stylegan2, words=0, word_attention=[16])
    with pytest.raises(UserError, match=r"generator\.equivariance=x.*generator\.word_attention_kind=y"):
        config.load(None, ["generator.name=stylegan3", "generator.equivariance=x", "generator.word_attention_kind=y"])


# ---- training

CONFIGS = Path(__file__).parents[1] / "configs"
BACKBONES = {
    "stylegan3-r, cross": [
        str(CONFIGS / "scenes_stylegan3.yaml"), "generator.equivariance=r", "generator.layers=4",
        "generator.word_attention_kind=cross", "train.d_blur=[[0,10],[0.006,0]]",
    ],
    "stylegan2, modulation": [
        str(CONFIGS / "scenes.yaml"), "generator.word_attention_kind=modulation", "generator.noise=true",
    ],
}  # fmt: skip


@pytest.mark.parametrize("backbone", BACKBONES)
def test_trains_resumes_bit_for_bit_and_draws(backbone, arguments, monkeypatch):  # noqa: F811
    """With attention everywhere, R1 and path length on: two steps, stopped in between or not."""
    path, *chosen = BACKBONES[backbone]
    arguments[0] = path
    settings = [
        *chosen, "generator.word_attention=[16]", "generator.self_attention=[16]",
        "discriminator.self_attention=[8]", "loss.path_length.every=1", "loss.r1.every=1",
    ]  # fmt: skip
    whole = run_here(arguments, monkeypatch, *settings, "name=whole", "train.kimg=0.008")
    for kimg in (0.004, 0.008):
        parts = run_here(arguments, monkeypatch, *settings, "name=parts", f"train.kimg={kimg}")
    a, b = (torch.load(checkpoint.folders(p)[-1] / "state.pt", weights_only=True) for p in (whole, parts))
    for net in ("G", "D", "G_ema"):
        assert all(torch.equal(a[net][k], b[net][k]) for k in a[net]), net
    assert a["step"] == 2
    for key, value in a["G"].items():
        if key.endswith("magnitude_ema"):
            assert value != 1
            assert value == a["G_ema"][key]
    gates = [v for k, v in a["G"].items() if k.endswith(("gate", "words.out.weight", "local.weight"))]
    assert gates
    assert all(v.abs().sum() > 0 for v in gates), "attention learnt nothing"
    model = models.load_model(whole)
    red, blue = model(["a red bus", "a blue bus"], seed=3)
    assert red.isfinite().all()
    assert not torch.equal(red, blue)


def test_the_discriminators_blur_fades():
    fades = config.load(None, ["train.d_blur=[[0, 10], [2, 0]]"]).train.d_blur
    assert [schedule.at(fades, kimg) for kimg in (0, 0.5, 2, 9)] == [10, 7.5, 0, 0]
    assert schedule.at(config.load(None, ["train.d_blur=4"]).train.d_blur, 0) == 4
    assert schedule.at(config.load().train.d_blur, 0) == 0
    assert "train.d_blur=[[0, 10]" in stylegan3.Options.__doc__  # what R is trained with
    point = torch.zeros(1, 3, 31, 31)
    point[..., 15, 15] = 1
    assert views.blur(point, 0.3) is point
    blurred = views.blur(point, 2.0)
    assert blurred.sum() == pytest.approx(3)
    assert float(blurred[0, 0, 15, 17] / blurred[0, 0, 15, 15]) == pytest.approx(0.5)  # 2^-(2/2)²
    assert blurred[0, 0, 15, 15 + 7] == 0
    assert blurred[0, 0, 15, 15 + 6] > 0

    seen = []

    class D(Discriminator):
        def forward(self, image, text, stage):
            seen.append(image)
            return Judgement(image.sum((1, 2, 3)), image.flatten(1))

    for kimg, expected in ((0.0, blurred), (2.0, point)):  # σ = 2, then none
        run = bare_run(D=D(), kimg=kimg, stage=Stage(31))
        run.config.train.d_blur = [[0, 2], [2, 0]]
        batch = Batch(point, ["a red bus"], torch.zeros(1))
        v = views.Views(run, batch, text(1), Latent(point), Generated(point), run)
        assert v.real_judgement.logit == v.fake_judgement.logit
        assert all(torch.equal(image, expected) for image in seen)
        seen.clear()
