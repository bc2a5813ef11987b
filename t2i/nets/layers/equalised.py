"""Layers shared by the networks: equalised learning rate, mapping network, minibatch standard deviation.

Parameters and buffers carry the names of the published StyleGAN2-ADA networks, so that their weights load."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import UserError
from t2i.interfaces import Text
from t2i.nets.layers import ops

COLOURS = 3
GAIN = math.sqrt(2)  # keeps the second moment through a leaky ReLU


def normalize_2nd_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """x [B, C] divided by the root of its mean square, a row."""
    return x * (x.square().mean(1, keepdim=True) + eps).rsqrt()


def sentence(text: Text | Tensor | None) -> Tensor | None:
    """The condition [B, C] of a network: sentences, or any other vectors."""
    return text.sentence if isinstance(text, Text) else text


class FullyConnected(nn.Module):
    """[B, I] → [B, O] with equalised learning rate (1710.10196, section 4.1), times `lr` for slower layers.

    Always in the precision of its weights, also under autocast: it is cheap and what it computes is delicate.
    """

    def __init__(self, i: int, o: int, act: bool = False, lr: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) / lr)
        self.bias = nn.Parameter(torch.full((o,), float(bias)))
        self.act, self.lr, self.weight_gain = act, lr, lr / math.sqrt(i)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            gain = GAIN if self.act else 1.0  # lrelu(a·x) = a·lrelu(x): the gain can go before it, where it is cheap
            x = x.to(self.weight.dtype) * (self.weight_gain * gain)
            x = F.linear(x, self.weight, self.bias * (self.lr * gain))
            return F.leaky_relu(x, ops.SLOPE) if self.act else x


class Conv2d(nn.Module):
    """[B, I, H, W] → [B, O, H·up / down, W·up / down]: equalised convolution, bias, leaky ReLU unless act=False."""

    resample_filter: Tensor

    def __init__(
        self,
        i: int,
        o: int,
        k: int,
        bias: bool = True,
        act: bool = True,
        up: int = 1,
        down: int = 1,
        clamp: float | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o)) if bias else None
        self.register_buffer("resample_filter", ops.make_filter())
        self.act, self.up, self.down, self.clamp = act, up, down, clamp
        self.weight_gain = 1 / math.sqrt(i * k * k)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        # lrelu(a·x) = a·lrelu(x) for a > 0, so the gains go into weights and bias, which are smaller than pictures.
        clamp = None if self.clamp is None else self.clamp * gain
        gain = gain * GAIN if self.act else gain
        w = self.weight * (self.weight_gain * gain)
        b = None if self.bias is None else self.bias * gain
        k = w.shape[-1] // 2
        x = ops.conv2d_resample(x, w, self.resample_filter, self.up, self.down, k, flip_weight=self.up == 1, bias=b)
        x = F.leaky_relu(x, ops.SLOPE, inplace=True) if self.act else x
        return x if clamp is None else x.clamp(-clamp, clamp)


class Mapping(nn.Module):
    """z [B, z_dim] and a condition [B, c_dim] → w, [B, num_ws, w_dim], or [B, w_dim] where num_ws is 0.

    Both are normalised and joined; either dimension may be 0 (left out). `w_avg` is the centre of truncation: a
    buffer that training moves.
    """

    w_avg: Tensor
    fc0: FullyConnected

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, layers: int = 8, lr: float = 0.01):
        super().__init__()
        self.z_dim, self.c_dim, self.num_ws, self.layers = z_dim, c_dim, num_ws, layers
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        for n in range(layers):
            i = w_dim if n else z_dim + (w_dim if c_dim else 0)
            setattr(self, f"fc{n}", FullyConnected(i, w_dim, act=True, lr=lr))
        if num_ws:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Tensor | None, text: Text | Tensor | None = None, truncation: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """`truncation` pulls the first `cutoff` (None: all) of the ws towards w_avg; 0 gives w_avg itself."""
        with torch.autocast(self.fc0.weight.device.type, enabled=False):
            dtype = self.fc0.weight.dtype
            parts = [normalize_2nd_moment(z.to(dtype))] if self.z_dim and z is not None else []
            if self.c_dim:
                c = sentence(text)
                assert c is not None
                parts.append(normalize_2nd_moment(self.embed(c)))
            w = torch.cat(parts, 1)
            for n in range(self.layers):
                w = getattr(self, f"fc{n}")(w)
            if not self.num_ws:
                return w
            ws = w[:, None].expand(-1, self.num_ws, -1)
            if truncation == 1:
                return ws
            cutoff = self.num_ws if cutoff is None else cutoff
            return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation), ws[:, cutoff:]], 1)


def minibatch_stddev(x: Tensor, group: int | None = 4, channels: int = 1) -> Tensor:
    """x [B, C, H, W] → [B, C + channels, H, W]: how much pictures of a group differ (1710.10196, section 3).

    A group takes every (B / group)-th picture; a smaller batch is one group, None means the whole batch. In float32
    or wider. A group that does not divide the batch raises UserError.
    """
    b, c, h, w = x.shape
    group = b if group is None else min(group, b)
    if b % group:
        fits = max(n for n in range(1, group) if b % n == 0)
        raise UserError(
            f"discriminator.mbstd_group={group}: does not divide the {b} pictures of one process; "
            f"set discriminator.mbstd_group={fits} or a batch that is a multiple of {group}"
        )
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    y = y.reshape(group, b // group, channels, c // channels, h, w)  # [G, n, F, c, H, W]
    y = (y - y.mean(0)).square().mean(0)  # variance [n, F, c, H, W]; Tensor.var is slow over the first dimension
    y = (y + 1e-8).sqrt().mean((2, 3, 4))  # [n, F]
    y = y.repeat(group, 1)[:, :, None, None].expand(-1, -1, h, w)  # [B, F, H, W]
    return torch.cat([x, y.to(x.dtype)], 1)


def channels(base: int, most: int, resolution: int, width: float = 1.0) -> dict[int, int]:
    """Resolution 4, 8, ... → channels: min(base // r, most) · width, a scaled count above 16 in multiples of 8."""
    table = {}
    for r in (2**n for n in range(2, resolution.bit_length())):
        n = min(base // r, most)
        if width != 1:
            n = round(n * width / 8) * 8 if n * width >= 16 else round(n * width)
        table[r] = max(n, 1)
    return table
