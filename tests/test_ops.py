"""nets/layers/ops.py: against slow direct definitions, and first and second derivatives against finite differences."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from t2i.nets.layers import ops

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape, grad=False):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64).requires_grad_(grad)


def check_gradients(function, *inputs):
    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(function, inputs, fast_mode=True)


def slow_upfirdn2d(x, f, up, down, padding, flip, gain):
    """Zero insertion, padding or cropping, correlation with the flipped filter, subsampling: loops over pixels."""
    x, f = x.numpy(), f.numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    f = (f if flip else f[::-1, ::-1]) * gain
    (b, c, h, w), (kh, kw), (x0, x1, y0, y1) = x.shape, f.shape, padding
    stuffed = np.zeros((b, c, h * up[1], w * up[0]))
    stuffed[:, :, :: up[1], :: up[0]] = x
    padded = np.pad(stuffed, [(0, 0), (0, 0), (max(y0, 0), max(y1, 0)), (max(x0, 0), max(x1, 0))])
    padded = padded[:, :, max(-y0, 0) : padded.shape[2] - max(-y1, 0), max(-x0, 0) : padded.shape[3] - max(-x1, 0)]
    rows, columns = range(0, padded.shape[2] - kh + 1, down[1]), range(0, padded.shape[3] - kw + 1, down[0])
    out = [[(padded[:, :, i : i + kh, j : j + kw] * f).sum((2, 3)) for j in columns] for i in rows]
    return torch.tensor(np.array(out)).permute(2, 3, 0, 1)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=150, deadline=None)
@given(
    up=pairs, down=pairs, size=st.tuples(st.integers(3, 6), st.integers(3, 6)),
    padding=st.tuples(*[st.integers(-2, 4)] * 4), taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    separable=st.booleans(), flip=st.booleans(), gain=st.sampled_from([1.0, 4.0, -0.5]), seed=st.integers(0, 99),
)  # fmt: skip
def test_upfirdn2d_is_its_definition(up, down, size, padding, taps, separable, flip, gain, seed):
    generator = torch.Generator().manual_seed(seed)
    kh, kw = (taps[0], taps[0]) if separable else taps
    x0, x1, y0, y1 = padding
    h, w = size[0] * up[1] + y0 + y1, size[1] * up[0] + x0 + x1
    # Keep an output pixel, and do not crop more than there is.
    if (
        h < kh
        or w < kw
        or size[0] * up[1] + min(y0, 0) + min(y1, 0) < 1
        or size[1] * up[0] + min(x0, 0) + min(x1, 0) < 1
    ):
        return
    f = torch.randn(*([kh] if separable else [kh, kw]), generator=generator, dtype=torch.float64)
    x = torch.randn(2, 2, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    y = ops.upfirdn2d(x, f, up, down, padding, flip, gain)
    expected = slow_upfirdn2d(x.detach(), f, up, down, padding, flip, gain)
    torch.testing.assert_close(y.detach(), expected)
    # Linear in x: the gradient of <y, v> is the transposed operator, <A x, v> = <x, Aᵀ v>, and has x's shape.
    v = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    (g,) = torch.autograd.grad((y * v).sum(), x)
    torch.testing.assert_close((g * x.detach()).sum(), (expected * v).sum())


RESAMPLINGS = {
    "identity": {},
    "blur": {"padding": (1, 2, 2, 1)},
    "up": {"up": 2, "padding": (2, 1, 2, 1), "gain": 4},
    "down": {"down": 2, "padding": 1},
    "crop": {"up": (2, 1), "padding": (-1, 3, 0, -2), "flip_filter": True},
    "both": {"up": (2, 3), "down": (3, 2), "padding": (3, -1, 0, 2), "gain": 0.7},
}


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("name", RESAMPLINGS)
def test_upfirdn2d_gradients(name, dims):
    f = randn(*[3, 4][:dims])
    check_gradients(lambda x: ops.upfirdn2d(x, f, **RESAMPLINGS[name]), randn(2, 2, 5, 4, grad=True))


@pytest.mark.parametrize("function", [ops.filter2d, ops.upsample2d, ops.downsample2d])
def test_resampling_keeps_a_constant_away_from_the_border(function):
    y = function(torch.full((1, 2, 12, 12), 3.0), ops.make_filter())
    assert y.shape[2] == {"filter2d": 12, "upsample2d": 24, "downsample2d": 6}[function.__name__]
    torch.testing.assert_close(y[:, :, 2:-2, 2:-2], torch.full_like(y[:, :, 2:-2, 2:-2], 3.0))


def test_make_filter():
    assert ops.make_filter((1, 3)).tolist() == [[1 / 16, 3 / 16], [3 / 16, 9 / 16]]


def test_resampling_keeps_dtype_under_autocast_and_layout():
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.upsample2d(x, ops.make_filter())
    assert y.dtype == torch.float32
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert ops.downsample2d(x.bfloat16(), ops.make_filter()).dtype == torch.bfloat16


@pytest.mark.parametrize("clamp", [None, 0.6])
@pytest.mark.parametrize("act", ops.ACTIVATIONS)
def test_bias_act_gradients(act, clamp):
    x, b = randn(3, 2, 4, grad=True), randn(2, grad=True)
    # Finite differences need a distance from the kinks, at 0 and at ±clamp.
    with torch.no_grad():
        y = ops.bias_act(x, b, act, 1.0)
        near = ((x + b[:, None]).abs() < 1e-3) | ((y.abs() - 0.6).abs() < 1e-3)
        x[near] += 0.01
    check_gradients(lambda x, b: ops.bias_act(x, b, act, 1.0, clamp), x, b)


def test_bias_act_by_hand():
    x, b = torch.tensor([[-3.0, 0.0, 2.0]]), torch.tensor([1.0, -1.0, 1.0])
    root = math.sqrt(2)
    torch.testing.assert_close(ops.bias_act(x, b, "lrelu"), torch.tensor([[-0.4 * root, -0.2 * root, 3 * root]]))
    assert ops.bias_act(x, b, "relu", gain=0.5, clamp=1.0).tolist() == [[0.0, 0.0, 1.0]]
    assert ops.bias_act(x, None, "linear", gain=2).tolist() == [[-6.0, 0.0, 4.0]]


@pytest.mark.parametrize("flip_weight", [True, False])
@pytest.mark.parametrize(("up", "down", "k"), [(1, 1, 3), (2, 1, 3), (1, 2, 3), (2, 1, 1), (1, 2, 1), (2, 2, 3)])
def test_conv2d_resample_gradients_and_definition(up, down, k, flip_weight):
    x, w, b, f = randn(2, 2, 4, 4, grad=True), randn(3, 2, k, k, grad=True), randn(3, grad=True), randn(4, 4)
    options = {"f": f, "up": up, "down": down, "padding": k // 2, "flip_weight": flip_weight}
    y = ops.conv2d_resample(x, w, bias=b, **options)
    assert y.shape == (2, 3, 4 * up // down, 4 * up // down)
    # Definition: upsample, then convolve, then downsample; the padding counts at the high resolution.
    p = k // 2
    pad = [p + (4 + up - 1) // 2 if up > 1 else p, p + (4 - up) // 2 if up > 1 else p]
    pad = [pad[0] + ((4 - down + 1) // 2 if down > 1 else 0), pad[1] + ((4 - down) // 2 if down > 1 else 0)]
    high = ops.upfirdn2d(x, f if up > 1 else None, up=up, padding=pad * 2, gain=up**2)
    high = F.conv2d(high, w if flip_weight else w.flip(2, 3))
    expected = ops.upfirdn2d(high, f if down > 1 else None, down=down) + b[:, None, None]
    torch.testing.assert_close(y, expected)
    check_gradients(lambda x, w, b: ops.conv2d_resample(x, w, bias=b, **options), x, w, b)


def per_sample_convolution(x, w, styles, noise, demodulate, **options):
    """1912.04958, equations 1 and 3, with the weights of each picture written out."""
    rows = []
    for i in range(len(x)):
        weights = w * styles[i][:, None, None]
        if demodulate:
            weights = weights / (weights.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(ops.conv2d_resample(x[i : i + 1], weights, **options))
    return torch.cat(rows) * options.get("gain", 1) + noise


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_conv2d_equals_weights_per_sample(demodulate, up, k):
    x, w, s = randn(2, 3, 4, 4, grad=True), randn(2, 3, k, k, grad=True), randn(2, 3, grad=True)
    noise = randn(2, 1, 4 * up, 4 * up, grad=True)
    options = {"f": ops.make_filter(), "up": up, "padding": k // 2, "flip_weight": up == 1}
    y = ops.modulated_conv2d(x, w, s, noise, demodulate=demodulate, gain=1.5, **options)
    without = per_sample_convolution(x, w, s, 0, demodulate, **options)
    torch.testing.assert_close(y, without * 1.5 + noise)
    check_gradients(
        lambda x, w, s, n: ops.modulated_conv2d(x, w, s, n, demodulate=demodulate, **options), x, w, s, noise
    )


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 3), i=st.integers(1, 4), o=st.integers(1, 4), size=st.integers(1, 5), k=st.sampled_from([1, 3]),
    up=st.sampled_from([1, 2]), demodulate=st.booleans(), last=st.booleans(), scale=st.sampled_from([1e-3, 1.0, 1e3]),
)  # fmt: skip
def test_modulated_conv2d_over_shapes(b, i, o, size, k, up, demodulate, last, scale):
    x, w, s = randn(b, i, size, size), randn(o, i, k, k), randn(b, i) * scale
    x = x.to(memory_format=torch.channels_last) if last else x
    options = {"f": ops.make_filter(), "up": up, "padding": k // 2, "flip_weight": up == 1}
    y = ops.modulated_conv2d(x, w, s, demodulate=demodulate, **options)
    torch.testing.assert_close(y, per_sample_convolution(x, w, s, 0, demodulate, **options))


def test_modulated_conv2d_does_not_overflow_in_half_precision():
    """Demodulation cancels the size of the styles, so neither huge nor tiny ones may spoil a half-precision result."""
    x, w = torch.randn(1, 8, 4, 4, generator=GENERATOR), torch.randn(4, 8, 3, 3, generator=GENERATOR)
    s = torch.rand(1, 8, generator=GENERATOR) + 0.5
    expected = ops.modulated_conv2d(x, w, s, padding=1)
    for size in (1e-2, 1.0, 1e6):
        y = ops.modulated_conv2d(x.half(), w, s * size, padding=1)
        assert y.dtype == torch.float16
        torch.testing.assert_close(y.float(), expected, atol=0.02, rtol=0.02)
