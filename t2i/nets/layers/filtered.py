"""StyleGAN3's alias-free nonlinearity (2106.12423): low-pass filters, and the leaky ReLU between resamplings.

A separable resampling is a product with a banded matrix along the height and one along the width: dense
multiplication in blocks, which beats a convolution over zero-stuffed data several times. Between the two resamplings
of `filtered_lrelu` nothing is kept for the backward pass but one byte for each upsampled value.
Legend: B batch, C channels, H height, W width.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from t2i.nets.layers import ops

BLOCK = 16  # output rows of one product: longer ones multiply more zeros, shorter ones keep the machine less busy
LONGEST = 256  # the same on an accelerator, where a launch costs more than zeros do
PART = 2**24  # upsampled numbers that exist at a time, if that holds one picture: they would be the peak of memory


def design_lowpass_filter(numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False) -> Tensor | None:
    """A Kaiser low-pass filter (2106.12423, appendix C.1) as float32 that sums to 1; None for one tap.

    cutoff and the width of the transition in the units of the sampling rate fs. → [numtaps], to be used along both
    axes; or, radial, the jinc filter [numtaps, numtaps], which treats all directions alike.
    """
    if numtaps == 1:
        return None
    if not radial:
        f = scipy.signal.firwin(numtaps, cutoff, width=width, fs=fs)
        return torch.as_tensor(f, dtype=torch.float32)
    x = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    r = np.hypot(x[:, None], x[None, :])
    r = np.maximum(r, 1e-9 / fs)  # an odd filter's middle, where the jinc tends to π·cutoff²
    window = np.kaiser(numtaps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(numtaps, width / (fs / 2))))
    f = scipy.special.j1(2 * np.pi * cutoff * r) / (np.pi * r) * np.outer(window, window)
    return torch.as_tensor(f / f.sum(), dtype=torch.float32)


@lru_cache(maxsize=512)
def _taps(taps: int, size: int, out: int, up: int, down: int, before: int, device: torch.device) -> Tensor:
    """[out, size]: which tap of a filter joins an output to an input; `taps` where none does."""
    o, i = torch.arange(out)[:, None], torch.arange(size)[None, :]
    k = taps - 1 - before + o * down - i * up
    return torch.where((k >= 0) & (k < taps), k, taps).to(device)


class Resampling(NamedTuple):
    """Zero insertion, padding or cropping, convolution and subsampling, as in ops.upfirdn2d: a linear operator."""

    f: Tensor | None  # [k] along both axes, [k, k], or None: nothing happens
    up: int
    down: int
    before: tuple[int, int]  # zeros before the first row and column; negative crops
    size: tuple[int, int]  # H, W of the input
    out: tuple[int, int]  # H, W of the output

    @property
    def T(self) -> "Resampling":
        """The transposed operator: a resampling too."""
        if self.f is None:
            return self
        k = self.f.shape[0]
        before = k - 1 - self.before[0], k - 1 - self.before[1]
        return Resampling(self.f.flip(list(range(self.f.ndim))), self.down, self.up, before, self.out, self.size)

    def __call__(self, x: Tensor, each: Callable[[Tensor, slice], None] | None = None) -> Tensor:
        """x [B, C, *size] → [B, C, *out], in x's dtype and memory layout.

        each(part, rows) is called on the result, [B, C, rows, W], piece by piece where it is made so, while a piece
        is still in the cache, and may change it in place.
        """
        if self.f is None or self.f.ndim == 2:
            y = x.clone(memory_format=torch.preserve_format) if self.f is None else self._whole(x, self.f)
            if each:
                each(y, slice(None))
            return y
        # Lengthening the rows while the columns are few, and shortening the columns first, leaves most of the work
        # to the products along the height, which in channels_last are large.
        if self.up > self.down:
            return self._along(0, self._along(1, x), each)
        y = self._along(1, self._along(0, x))
        if each:
            each(y, slice(None))
        return y

    def _whole(self, x: Tensor, f: Tensor) -> Tensor:
        """With a filter [k, k] that is no product of two."""
        after = [(self.out[n] - 1) * self.down + len(f) - self.size[n] * self.up - self.before[n] for n in range(2)]
        padding = (self.before[1], after[1], self.before[0], after[0])
        return ops._resample(x, f.to(x.dtype), (self.up, self.up), (self.down, self.down), padding)

    def _along(self, axis: int, x: Tensor, each: Callable[[Tensor, slice], None] | None = None) -> Tensor:
        """x resampled along its height (axis 0) or width (axis 1)."""
        assert self.f is not None
        (b, c, h, w), size, out, before = x.shape, self.size[axis], self.out[axis], self.before[axis]
        taps = len(self.f)
        index = _taps(taps, size, out, self.up, self.down, before, x.device)
        matrix = F.pad(self.f, (0, 1))[index].to(x.dtype)  # [out, size]
        last = layout(x) == torch.channels_last
        x = x.permute(0, 2, 3, 1) if last else x.contiguous()
        oh, ow = (out, w) if axis == 0 else (h, out)
        y = x.new_empty((b, oh, ow, c) if last else (b, c, oh, ow))
        picture = y.permute(0, 3, 1, 2) if last else y  # [B, C, H, W]
        # As three dimensions, of which the second is resampled; or the last, by a product from the other side.
        middle = axis == 0 or last
        if not middle:
            x, y = x.view(1, -1, w), y.view(1, -1, out)
        else:
            many = b * h if axis == 1 else b if last else b * c
            x, y = x.view(many, size, -1), y.view(many, out, -1)
        block = BLOCK if x.device.type == "cpu" else LONGEST
        for start in range(0, out, block):
            stop = min(start + block, out)
            low = max(-(-(start * self.down - before) // self.up), 0)
            high = min((taps - 1 - before + (stop - 1) * self.down) // self.up + 1, size)
            band = matrix[start:stop, low:high]
            part = y[:, start:stop] if middle else y[:, :, start:stop]
            if low >= high:  # nothing but padding
                part.zero_()
            elif middle:
                torch.bmm(band.expand(len(x), -1, -1), x[:, low:high], out=part)
            else:
                torch.bmm(x[:, :, low:high], band.T[None], out=part)
            if each:
                each(picture[:, :, start:stop], slice(start, stop))
        return picture


def layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def _resampling(f: Tensor | None, size: tuple[int, int], up: int, down: int, padding: ops.Padding) -> Resampling:
    """Of an input of H, W = size."""
    x0, x1, y0, y1 = ops._padding(padding)
    if f is None and up == down == 1 and not (x0 or x1 or y0 or y1):
        return Resampling(None, 1, 1, (0, 0), size, size)
    f = torch.ones(1) if f is None else f
    k = len(f)
    out = (size[0] * up + y0 + y1 - k) // down + 1, (size[1] * up + x0 + x1 - k) // down + 1
    return Resampling(f, up, down, (y0, x0), size, out)


def _through(
    x: Tensor, sign: Tensor | None, before: Resampling, after: Resampling, act: Callable[[Tensor, Tensor | None], None]
) -> Tensor:
    """after(act(before(x))), a few pictures at a time; act changes its argument in place, told the signs there."""
    many = max(PART // (x.shape[1] * before.out[0] * before.out[1]), 1)
    parts = []
    with torch.autocast(x.device.type, enabled=False):
        for start in range(0, len(x), many):
            signs = None if sign is None else sign[start : start + many]

            def each(y: Tensor, rows: slice, signs: Tensor | None = signs) -> None:
                act(y, None if signs is None else signs[:, :, rows])

            parts.append(after(before(x[start : start + many], each)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Between(torch.autograd.Function):
    """before → × slope, 1 or 0, by `sign` → after: linear in x, and so are all its derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sign: Tensor, before: Resampling, after: Resampling, slope: float) -> Tensor:
        ctx.save_for_backward(sign)
        ctx.options = before, after, slope

        def multiply(y: Tensor, sign: Tensor | None) -> None:
            assert sign is not None
            factor = sign.to(y.dtype)
            y.mul_(F.leaky_relu(factor, slope).mul_(factor))  # 1 → 1, -1 → slope, 0 → 0

        return _through(x, sign, before, after, multiply)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        before, after, slope = ctx.options
        return _Between.apply(g, ctx.saved_tensors[0], after.T, before.T, slope), None, None, None, None


class _FilteredLReLU(torch.autograd.Function):
    """before → leaky ReLU, clamped → after. Its derivative is the same with the slopes that were met."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, before: Resampling, after: Resampling, slope: float, clamp: float | None
    ) -> Tensor:
        ctx.options = before, after, slope
        sign = None
        if ctx.needs_input_grad[0]:
            shape = (*x.shape[:2], *before.out)
            sign = torch.empty(shape, dtype=torch.int8, device=x.device, memory_format=layout(x))

        def activate(y: Tensor, sign: Tensor | None) -> None:
            F.leaky_relu(y, slope, inplace=True)
            if sign is None:
                if clamp is not None:
                    y.clamp_(-clamp, clamp)
                return
            s = y.sign()
            if clamp is not None:
                cut = y.clamp(-clamp, clamp)
                s -= (y - cut).sign_()  # what is cut off has the sign of the rest
                y.copy_(cut)
            sign.copy_(s)

        y = _through(x, sign, before, after, activate)
        if sign is not None:
            ctx.save_for_backward(sign)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        before, after, slope = ctx.options
        return _Between.apply(g, ctx.saved_tensors[0], after.T, before.T, slope), None, None, None, None


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: ops.Padding = 0,
    gain: float = ops.ACTIVATIONS["lrelu"][1],
    slope: float = ops.SLOPE,
    clamp: float | None = None,
) -> Tensor:
    """x [B, C, H, W] + b [C] → ×up with filter fu → leaky ReLU · gain, clamped → ÷down with filter fd.

    (2106.12423, section 3.2.) padding: of the upsampled picture, one number or (x0, x1, y0, y1), negative crops.
    gain > 0. Filters [k] (along both axes), [k, k] or None. Same dtype and memory layout out as in; differentiable
    any number of times. It keeps one byte for each upsampled value, not the values.
    """
    if b is not None:
        x = x + b.to(x.dtype)[:, None, None]
    if fu is None and fd is None and up == down == 1 and not any(ops._padding(padding)):
        x = (F.leaky_relu(x, slope) if slope != 1 else x) * gain
        return x if clamp is None else x.clamp(-clamp, clamp)
    # lrelu(a·x) = a·lrelu(x): the gain goes into the filter. An upsampling filter of gain up² keeps brightness.
    scale = gain * up**2
    fu = torch.ones(1) if fu is None else fu
    fu = fu.to(x.device) * (scale if fu.ndim == 2 else math.sqrt(scale))
    before = _resampling(fu, (x.shape[2], x.shape[3]), up, 1, padding)
    after = _resampling(None if fd is None else fd.to(x.device), before.out, 1, down, 0)
    return _FilteredLReLU.apply(x, before, after, slope, clamp)
