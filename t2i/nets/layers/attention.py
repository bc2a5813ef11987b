"""Attention: one fused, exact function that gradient penalties can differentiate twice, and the layers made of it.

On CUDA the kernel is xformers' memory-efficient one, elsewhere torch's scaled-dot-product attention. Neither has a
double backward, so under create_graph the gradient is computed by plain differentiable operations instead.
Legend: B batch, L queries, S keys, N heads, D channels a head, C channels, H height, W width.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import UserError
from t2i.interfaces import Text
from t2i.nets.layers.equalised import FullyConnected

ALIGN = 8  # kernels on CUDA want channels and masks in multiples of this


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q·k · scale) v (1706.03762, eq. 1): q [B, L, N, D], k [B, S, N, D], v [B, S, N, D'] → [B, L, N, D'].

    mask [B, S] bool: False hides a key; a row that hides them all gives 0. scale None: D^-½. Same dtype out as in
    (of mixed ones the widest; under autocast its own). Self-attention where q, k and v come of the same sequence.
    Memory grows with L + S, except under create_graph, where it grows with L·S.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
    else:
        dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), v.dtype)
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if mask is None:
        return _Attention.apply(q, k, v, None, scale)
    some = mask.any(1)
    # Kernels differ in what an empty row gives; here it sees everything, and counts for nothing.
    out = _Attention.apply(q, k, v, mask | ~some[:, None], scale)
    return out * some[:, None, None, None].to(dtype)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v, mask)
        ctx.scale = scale
        if not any(ctx.needs_input_grad):
            return _fused(q, k, v, mask, scale)
        # A graph of its own, that the first backward goes through: with what the kernel itself keeps for it.
        with torch.enable_grad():
            q, k, v = ctx.inner = [x.detach().requires_grad_() for x in (q, k, v)]
            ctx.result = _fused(q, k, v, mask, scale)
        return ctx.result.detach()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        q, k, v, mask = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            return *_gradients(q, k, v, mask, ctx.scale, g), None, None
        return *torch.autograd.grad(ctx.result, ctx.inner, g, retain_graph=True), None, None


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        if q.device.type == "cuda" and q.dtype != torch.float64:
            return _xformers(q, k, v, mask, scale)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # [B, N, L, D]
        visible = None if mask is None else mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, visible, scale=scale).transpose(1, 2)


def _xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    from xformers.ops import memory_efficient_attention  # here: slow to import, and of no use without CUDA

    width = v.shape[-1]
    q, k, v = (F.pad(x, (0, -x.shape[-1] % ALIGN)) for x in (q, k, v))
    bias = None
    if mask is not None:
        (b, s), shape = mask.shape, (len(q), q.shape[2], q.shape[1], -1)
        bias = q.new_zeros(b, 1, 1, s + -s % ALIGN)  # its rows begin at aligned addresses
        bias[..., :s].masked_fill_(~mask[:, None, None, :], -math.inf)
        bias = bias.expand(shape)[..., :s]
    return memory_efficient_attention(q, k, v, bias, scale=scale)[..., :width]


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, g: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative by q, k and v of <attention, g> in operations that can be differentiated on."""
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v, g = (x.transpose(1, 2).to(wide) for x in (q, k, v, g))  # [B, N, L or S, D]
        logits = q @ k.mT * scale  # [B, N, L, S]
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, :], -math.inf)
        p = logits.softmax(-1)
        dp = g @ v.mT
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) * scale
        gradients = ds @ k, ds.mT @ q, p.mT @ g
    dq, dk, dv = (x.to(dtype).transpose(1, 2) for x in gradients)
    return dq, dk, dv


# ---- layers on maps x [B, C, H, W]: each gives x back as it was until training opens it


def sequence(x: Tensor) -> Tensor:
    """[B, C, H, W] → [B, H·W, C]."""
    return x.flatten(2).mT


def heads(width: int) -> int:
    """How many heads of 64 channels, or fewer, share so many channels."""
    return next(n for n in range(max(width // 64, 1), 0, -1) if width % n == 0)


class SelfAttention(nn.Module):
    """x + gate · attention among all places of x; the gate starts at 0 (1805.08318, eq. 3), dot products as there."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = heads(width)
        self.qkv = FullyConnected(width, 3 * width)
        self.out = FullyConnected(width, width)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        s = sequence(x)  # [B, H·W, C]
        q, k, v = self.qkv(unit(s)).unflatten(2, (3, self.heads, -1)).unbind(2)
        return add(x, self.out(attention(q, k, v).flatten(2)) * self.gate)


class CrossAttention(nn.Module):
    """x + attention from every place of x to the words of the caption (GigaGAN, 2303.05511, section 3.1).

    The output's weights start at 0, not a gate in front of random ones: a gate learns one number, whose gradient is of
    any sign while what it lets in is random, and was found where it began after 170 steps.
    """

    def __init__(self, width: int, word_dim: int, w_dim: int = 0):
        super().__init__()
        self.heads = heads(width)
        self.q = FullyConnected(width, width)
        self.kv = FullyConnected(word_dim, 2 * width)
        self.out = FullyConnected(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, text: Text, w: Tensor | None = None) -> Tensor:
        q = self.q(unit(sequence(x))).unflatten(2, (self.heads, -1))
        k, v = self.kv(unit(text.words)).unflatten(2, (2, self.heads, -1)).unbind(2)  # [B, L, N, D]
        return add(x, self.out(attention(q, k, v, text.mask).flatten(2)))


class AttentionalModulation(nn.Module):
    """x · (1 + γ) + β, γ and β for every place from the words it attends to and from w (2101.04702, section 4.2).

    Attention is over cosines times 15, as there; γ and β start at 0.
    """

    SHARPNESS = 15.0

    def __init__(self, width: int, word_dim: int, w_dim: int = 0):
        super().__init__()
        self.q = FullyConnected(width, width)
        self.k = FullyConnected(word_dim, width)
        self.v = FullyConnected(word_dim, width)
        self.local = FullyConnected(width, 2 * width)
        self.whole = FullyConnected(w_dim, 2 * width) if w_dim else None
        for layer in (self.local, self.whole):
            if layer is not None:
                nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, text: Text, w: Tensor | None = None) -> Tensor:
        words = unit(text.words)
        q, k = (F.normalize(y, dim=2, eps=1e-6) for y in (self.q(unit(sequence(x))), self.k(words)))
        context = attention(q[:, :, None], k[:, :, None], self.v(words)[:, :, None], text.mask, self.SHARPNESS)
        style = self.local(context[:, :, 0])  # [B, H·W, 2C]
        if self.whole is not None and w is not None:
            style = style + self.whole(w)[:, None]
        gamma, beta = style.mT.unflatten(2, x.shape[2:]).to(x.dtype).chunk(2, 1)  # [B, C, H, W]
        return torch.addcmul(x + beta, x, gamma)


def unit(s: Tensor) -> Tensor:
    """[B, L, C] with components of unit variance in every row, in float32 (or wider)."""
    s = s.to(torch.promote_types(s.dtype, torch.float32))
    return s * (s.square().mean(2, keepdim=True) + 1e-8).rsqrt()


def add(x: Tensor, y: Tensor) -> Tensor:
    """x [B, C, H, W] + y [B, H·W, C]."""
    return x + y.mT.unflatten(2, x.shape[2:]).to(x.dtype)


WORDS = {"cross": CrossAttention, "modulation": AttentionalModulation}


class Attend(nn.Module):
    """What a place of a generator's map sees of all others, and then of the words."""

    def __init__(self, width: int, w_dim: int, word_dim: int, among: bool, words: str | None):
        """among: self-attention. words: a key of WORDS, or None."""
        super().__init__()
        self.among = SelfAttention(width) if among else None
        self.words = WORDS[words](width, word_dim, w_dim) if words else None

    def forward(self, x: Tensor, text: Text | Tensor | None, w: Tensor) -> Tensor:
        """x [B, C, H, W], w [B, w_dim] → [B, C, H, W]. Raises TypeError where it needs words and `text` has none."""
        if self.among is not None:
            x = self.among(x)
        if self.words is not None:
            if not isinstance(text, Text):
                raise TypeError("attention to words needs a Text")
            x = self.words(x, text, w)
        return x


def attends(
    widths: dict[int, int], w_dim: int, word_dim: int, among: list[int], words: list[int], kind: str
) -> dict[int, Attend]:
    """The chosen resolutions of a generator → their Attend.

    widths: the channels at every resolution it has. among, words: where its places attend to each other, and to words
    in the way `kind`. Raises UserError for resolutions that it has not, and where the text encoder gives no words.
    """
    check("generator.self_attention", among, list(widths))
    check("generator.word_attention", words, list(widths))
    if words and not word_dim:
        raise UserError(f"generator.word_attention={words}: the text encoder gives no words; choose another")
    return {
        r: Attend(n, w_dim, word_dim, r in among, kind if r in words else None)
        for r, n in widths.items()
        if r in [*among, *words]
    }


def check(field: str, chosen: list[int], known: list[int]) -> None:
    """Refuses resolutions that a network does not have."""
    for r in chosen:
        if r not in known:
            raise UserError(f"{field}={chosen}: here it can be of {', '.join(map(str, sorted(known)))}")
