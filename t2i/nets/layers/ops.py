"""Resampling, activations and modulated convolution of StyleGAN2: pure PyTorch, CPU and GPU, differentiable any
number of times. Written for speed: resampling is one depthwise convolution, modulation never builds weights per
sample. Legend: B batch, C/I/O channels, H height, W width; a filter is [kh, kw], or [k] for a separable one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = int | Sequence[int]  # one number, or (x, y)
Padding = int | Sequence[int]  # one number, or (x0, x1, y0, y1); negative numbers crop


def make_filter(taps: Sequence[float] = (1, 3, 3, 1)) -> Tensor:
    """The separable low-pass filter of `taps` as a float32 [k, k] that sums to 1."""
    f = torch.tensor(taps, dtype=torch.float32)
    f = torch.outer(f, f)
    return f / f.sum()


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _padding(value: Padding) -> tuple[int, int, int, int]:
    x0, x1, y0, y1 = [value] * 4 if isinstance(value, int) else value
    return int(x0), int(x1), int(y0), int(y1)


def _size(f: Tensor | None) -> tuple[int, int]:
    """Width and height of a filter; None is the identity."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


class _Resample(torch.autograd.Function):
    """x [B, C, H, W] → zeros inserted, padded, convolved with one filter [kh, kw], subsampled: see upfirdn2d.

    Linear in x, so its gradient is the transposed operator, which is again a resampling with `up` and `down`
    exchanged. Saying so spares autograd's own double backward of a grouped convolution, which loops over the groups.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: Tensor, up: tuple, down: tuple, padding: tuple) -> Tensor:
        # In x's own dtype, also under autocast: an image in float32 stays in float32.
        with torch.autocast(x.device.type, enabled=False):
            y = _resample(x, f.to(x.dtype), up, down, padding)
        ctx.save_for_backward(f)
        ctx.options = up, down, padding, x.shape, y.shape
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (f,) = ctx.saved_tensors
        (ux, uy), (dx, dy), (x0, _, y0, _), (_, _, h, w), (_, _, oh, ow) = ctx.options
        transposed = (
            f.shape[1] - 1 - x0, w * ux - ow * dx + x0 - ux + 1,
            f.shape[0] - 1 - y0, h * uy - oh * dy + y0 - uy + 1,
        )  # fmt: skip
        return _Resample.apply(g, f.flip(0, 1), (dx, dy), (ux, uy), transposed), None, None, None, None


def _resample(x: Tensor, f: Tensor, up: tuple, down: tuple, padding: tuple) -> Tensor:
    (ux, uy), (dx, dy), (x0, x1, y0, y1) = up, down, padding
    channels, (kh, kw) = x.shape[1], f.shape
    if up == (1, 1):
        both = (y0, x0) if x0 == x1 >= 0 and y0 == y1 >= 0 else (0, 0)
        x = x if any(both) else _pad(x, x0, x1, y0, y1)
        kernel = f.flip(0, 1).expand(channels, 1, kh, kw)
        return F.conv2d(x, kernel, stride=(dy, dx), padding=both, groups=channels)
    # A transposed convolution gives the full convolution of the zero-stuffed input: cut (or pad) it to size.
    x0, x1, y0, y1 = kw - 1 - x0, kw - ux - x1, kh - 1 - y0, kh - uy - y1
    cx, cy = max(min(x0, x1), 0), max(min(y0, y1), 0)
    kernel = f.expand(channels, 1, kh, kw)
    x = F.conv_transpose2d(x, kernel, stride=(uy, ux), padding=(cy, cx), groups=channels)
    x = _pad(x, cx - x0, cx - x1, cy - y0, cy - y1)
    return x if down == (1, 1) else x[:, :, ::dy, ::dx]


def _pad(x: Tensor, x0: int, x1: int, y0: int, y1: int) -> Tensor:
    return F.pad(x, (x0, x1, y0, y1)) if x0 or x1 or y0 or y1 else x


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Upsample, filter, downsample: x [B, C, H, W] → [B, C, (H·up + y0 + y1 − kh) // down + 1, likewise].

    Every pixel is followed by up − 1 zeros, the borders are padded with zeros (negative: cropped), the result is
    convolved with f (flip_filter: correlated) times `gain`, and every `down`-th pixel is kept. Same dtype out as in.
    """
    up, down = _pair(up), _pair(down)
    x0, x1, y0, y1 = _padding(padding)
    f = torch.ones(1, 1, device=x.device) if f is None else f.to(x.device)
    f = f.flip(list(range(f.ndim))) if flip_filter else f
    f_x = f if gain == 1 else f * gain
    if f.ndim == 1:
        x = _Resample.apply(x, f_x[None, :], (up[0], 1), (down[0], 1), (x0, x1, 0, 0))
        return _Resample.apply(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, y0, y1))
    return _Resample.apply(x, f_x, up, down, (x0, x1, y0, y1))


def filter2d(x: Tensor, f: Tensor | None, padding: Padding = 0, flip_filter: bool = False, gain: float = 1.0) -> Tensor:
    """[B, C, H, W] → the same size, filtered; `padding` is added to what keeps the size."""
    (kw, kh), (x0, x1, y0, y1) = _size(f), _padding(padding)
    padding = x0 + kw // 2, x1 + (kw - 1) // 2, y0 + kh // 2, y1 + (kh - 1) // 2
    return upfirdn2d(x, f, 1, 1, padding, flip_filter, gain)


def upsample2d(
    x: Tensor, f: Tensor | None, up: Pair = 2, padding: Padding = 0, flip_filter: bool = False, gain: float = 1.0
) -> Tensor:
    """[B, C, H, W] → [B, C, H·up, W·up], brightness kept."""
    (ux, uy), (kw, kh), (x0, x1, y0, y1) = _pair(up), _size(f), _padding(padding)
    padding = x0 + (kw + ux - 1) // 2, x1 + (kw - ux) // 2, y0 + (kh + uy - 1) // 2, y1 + (kh - uy) // 2
    return upfirdn2d(x, f, (ux, uy), 1, padding, flip_filter, gain * ux * uy)


def downsample2d(
    x: Tensor, f: Tensor | None, down: Pair = 2, padding: Padding = 0, flip_filter: bool = False, gain: float = 1.0
) -> Tensor:
    """[B, C, H, W] → [B, C, H / down, W / down]."""
    (dx, dy), (kw, kh), (x0, x1, y0, y1) = _pair(down), _size(f), _padding(padding)
    padding = x0 + (kw - dx + 1) // 2, x1 + (kw - dx) // 2, y0 + (kh - dy + 1) // 2, y1 + (kh - dy) // 2
    return upfirdn2d(x, f, 1, (dx, dy), padding, flip_filter, gain)


SLOPE = 0.2  # of the leaky ReLU
# Name: (function, gain that keeps the second moment of the activations).
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (F.relu, math.sqrt(2)),
    "lrelu": (lambda x: F.leaky_relu(x, SLOPE), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (F.silu, math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    act: str = "linear",
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """clamp(act(x + b)·gain) for x [B, C, ...] and b [C]; gain None = the activation's own. Same dtype out as in."""
    function, own_gain = ACTIVATIONS[act]
    gain = own_gain if gain is None else gain
    if b is not None:
        x = x + b.to(x.dtype).reshape([-1 if i == 1 else 1 for i in range(x.ndim)])
    x = function(x)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    flip_weight: bool = True,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolution of x [B, I, H, W] with w [O, I, k, k] (+ bias [O]) between ×up and ÷down resampling with filter f.

    → [B, O, H·up / down, W·up / down] where padding = k // 2. flip_weight=True correlates, as F.conv2d does; False
    convolves. Blurring and striding are ordered so that the convolution runs at the lowest resolution.
    """
    (fw, fh), k = _size(f), w.shape[-1]

    def sides(taps: int) -> tuple[int, int]:
        """Padding before and after one dimension, with what the resampling filters take."""
        before = padding + (up > 1) * ((taps + up - 1) // 2) + (down > 1) * ((taps - down + 1) // 2)
        after = padding + (up > 1) * ((taps - up) // 2) + (down > 1) * ((taps - down) // 2)
        return before, after

    pad = (*sides(fw), *sides(fh))
    if up == 1 or k == 1:
        w = w if flip_weight else w.flip(2, 3)
        if up > 1:
            x = upfirdn2d(F.conv2d(x, w), f, up=up, padding=pad, gain=up**2)
        elif down == 1:
            return F.conv2d(x, w, bias, padding=padding)
        elif k == 1:
            return F.conv2d(upfirdn2d(x, f, down=down, padding=pad), w, bias)
        else:
            return F.conv2d(upfirdn2d(x, f, padding=pad), w, bias, stride=down)
    else:
        w = w.transpose(0, 1).flip(2, 3) if flip_weight else w.transpose(0, 1)
        pad = pad[0] - (k - 1), pad[1] - (k - up), pad[2] - (k - 1), pad[3] - (k - up)
        x = upfirdn2d(F.conv_transpose2d(x, w, stride=up), f, padding=pad, gain=up**2)
    x = x if down == 1 else upfirdn2d(x, f, down=down)
    return x if bias is None else x + bias.to(x.dtype)[:, None, None]


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    f: Tensor | None = None,
    up: int = 1,
    padding: int = 0,
    demodulate: bool = True,
    flip_weight: bool = True,
    gain: Tensor | float = 1.0,
) -> Tensor:
    """Convolution of x [B, I, H, W] whose weights w [O, I, k, k] are scaled by styles [B, I] (1912.04958, eq. 1–3).

    Scaling the input channels, one plain convolution, scaling the output channels: with d = (Σ_i s_i² Σ_k w²)^-½ the
    result is that of weights built per sample. `gain` multiplies the result, then noise [B or 1, 1, H·up, W·up] is
    added. Styles and d are in float32 (or wider) whatever x is.
    """
    batch, out, k = len(x), w.shape[0], w.shape[-1]
    if k == 1 and up == 1 and padding == 0 and not demodulate:
        # toRGB: so few outputs that weights per sample are the smaller thing to scale.
        weights = (w[:, :, 0, 0] * gain) * styles[:, None, :]  # [B, O, I]
        y = (weights.to(x.dtype) @ x.flatten(2)).reshape(batch, out, *x.shape[2:])
        return y if noise is None else y + noise.to(y.dtype)
    scale: Tensor | None = None
    if demodulate:
        with torch.autocast(x.device.type, enabled=False):
            energy = w.square().sum((2, 3)).to(styles.dtype)  # [O, I]
            scale = (styles.square() @ energy.T + 1e-8).rsqrt() * gain  # [B, O]
            # The size of the styles cancels; dividing by it here keeps half precision from overflowing.
            size = styles.detach().abs().amax(1, keepdim=True).clamp_min(1e-8) * math.sqrt(w[0].numel())
            styles, scale = styles / size, scale * size
    elif gain != 1:
        styles = styles * gain
    x = x * styles.to(x.dtype)[:, :, None, None]
    x = conv2d_resample(x, w.to(x.dtype), f, up, 1, padding, flip_weight)
    noise = None if noise is None else noise.to(x.dtype)
    if scale is None:
        return x if noise is None else x + noise
    scale = scale.to(x.dtype)[:, :, None, None]
    return x * scale if noise is None else torch.addcmul(noise, x, scale)


def stylegan3_modulated_conv2d(
    x: Tensor,
    w: Tensor,
    styles: Tensor,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | float | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """StyleGAN3's modulated_conv2d (2106.12423, appendix G.1): x [B, I, H, W] is taken times `input_gain`, a scalar.

    Weights and styles count by their direction alone where demodulated: their published normalisation beforehand
    cancels in it, and is left out. bias [O] is added.
    """
    bias = None if bias is None else bias[None, :, None, None]
    # On a CPU the gradient of 3×3 weights takes up to four times as long in channels_last, which all else is faster in.
    detour = x.device.type == "cpu" and w.shape[-1] > 1 and not x.is_contiguous()
    if detour:
        x, w = x.contiguous(), w.contiguous()
    x = modulated_conv2d(
        x, w, styles, bias, padding=padding, demodulate=demodulate, gain=1.0 if input_gain is None else input_gain
    )
    return x.contiguous(memory_format=torch.channels_last) if detour else x
