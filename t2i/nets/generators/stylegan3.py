"""StyleGAN3 (2106.12423), configurations T and R, conditioned on text in the ways of stylegan2.py.

Details move with the objects and do not stick to pixels: the picture grows from Fourier features, every layer is
band-limited, there is no noise. Parameters have the published names. It is made to meet StyleGAN2's discriminator.
Legend: B batch, C channels, H height, W width; ws [B, num_ws, style_dim]; pictures are nominally in [-1, 1].
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t2i import parallel
from t2i.errors import not_one_of, wrong
from t2i.interfaces import Stage, Text
from t2i.nets.contract import Dimensions
from t2i.nets.generators.stylegan2 import style_problems
from t2i.nets.layers import ops
from t2i.nets.layers.attention import Attend, attends
from t2i.nets.layers.equalised import COLOURS, FullyConnected, Mapping
from t2i.nets.layers.filtered import design_lowpass_filter, filtered_lrelu
from t2i.nets.layers.styled import Styled, StyleGenerator

MARGIN = 10  # pixels around the picture in which layers compute beyond its edge
FILTER_SIZE = 6  # taps for each factor of resampling
OUTPUT_SCALE = 0.25
CLAMP = 256.0
MAGNITUDE_HALF_LIFE = 20_000  # pictures, of the running mean of each layer's input magnitude


@dataclass
class Options:
    """Of `generator` in a configuration.

    Training R collapses early without a blur over what D sees (2106.12423, appendix D.1):
    train.d_blur=[[0, 10], [K, 0]] with K = 200 · batch / 32.
    """

    GROWS: ClassVar[bool] = False

    name: str = "stylegan3"
    equivariance: str = "t"  # t (to translation) or r (to rotation too; twice the channels)
    layers: int = 14  # before toRGB
    latent_dim: int = 512
    style_dim: int = 512
    mapping_layers: int = 2
    channel_base: int = 16384  # channels at a cutoff of c: min(channel_base / 2 / c, channel_max) · model.width
    channel_max: int = 512
    text: str = "lafite"  # how text enters: lafite (MLPs, in every layer) or mapping (joined to z)
    style_mixing: float = 0.9  # probability that a batch mixes two latents
    # Pictures are tanh(this · x) of what the last layer gives; 0: x. A pretrained trunk has seen none but bounded ones.
    tanh: float = 0.0
    conv_clamp: float | None = 256.0  # clamps activations at this value
    recompute: bool = False  # layers keep only their inputs for the backward pass: memory for time
    self_attention: list[int] = field(default_factory=list)  # sampling rates at which places attend to each other
    word_attention: list[int] = field(default_factory=list)  # and to the words of the caption
    word_attention_kind: str = "cross"  # cross (GigaGAN's residual) or modulation (XMC-GAN's)

    def problems(self, resolution: int) -> list[str]:
        return [
            *not_one_of("equivariance", self.equivariance, "t", "r"),
            *wrong(self.layers >= 4, "layers", self.layers, "4 or more"),
            *style_problems(self),
        ]


@dataclass(frozen=True)
class Rate:
    """What a signal between two layers is: its sampling rate, cutoff and transition width (in cycles a picture)."""

    channels: int
    size: int  # height and width, with the margin
    rate: int
    cutoff: float
    half_width: float


def plan(
    resolution: int,
    base: int,
    most: int,
    layers: int = 14,
    critical: int = 2,
    first_cutoff: float = 2.0,
    first_stopband: float = 2.0**2.1,
    last_stopband_rel: float = 2.0**0.3,
    margin: int = MARGIN,
    colours: int = COLOURS,
) -> list[Rate]:
    """What every layer puts out, the last of layers + 1 being toRGB (2106.12423, appendix C.1 and C.2).

    Cutoffs and stopbands grow geometrically to the resolution's own; the last `critical` layers are sampled no
    higher than they need, for sharpness.
    """
    rates = []
    for i in range(layers + 1):
        e = min(i / (layers - critical), 1)
        cutoff = first_cutoff * (resolution / 2 / first_cutoff) ** e
        stopband = first_stopband * (resolution / 2 * last_stopband_rel / first_stopband) ** e
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        size = rate + 2 * margin if i < layers - 1 else resolution
        channels = round(min(base / 2 / cutoff, most)) if i < layers else colours
        rates.append(Rate(max(channels, 1), size, rate, cutoff, max(stopband, rate / 2) - cutoff))
    return rates


class SynthesisInput(nn.Module):
    """w [B, w_dim] → Fourier features [B, C, H, W], turned and shifted by w and by the buffer `transform`.

    transform [3, 3], or [B, 3, 3], maps the picture's coordinates to the features': with it a user turns and shifts
    what is drawn (2106.12423, section 3.2).
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, out: Rate):
        super().__init__()
        self.out = out
        self.weight = nn.Parameter(torch.randn(out.channels, out.channels))
        self.affine = FullyConnected(w_dim, 4)  # cosine and sine of the rotation, shift
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        freqs = torch.randn(out.channels, 2)
        radius2 = freqs.square().sum(1, keepdim=True)
        freqs /= radius2.sqrt() * radius2.exp().pow(0.25)  # uniform in the unit disc
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs * out.cutoff)
        self.register_buffer("phases", torch.rand(out.channels) - 0.5)

    def forward(self, w: Tensor) -> Tensor:
        rate, size, cutoff = self.out.rate, self.out.size, self.out.cutoff
        with torch.autocast(w.device.type, enabled=False):
            t = self.affine(w)
            c, s, x, y = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
            turn = torch.stack([c, -s, s, c], 1).view(-1, 2, 2)
            shift = -torch.stack([x, y], 1)[:, :, None]
            # Turned after being shifted, and the user's transform before both.
            user = self.transform.to(t.dtype).expand(len(t), 3, 3)
            matrix = turn @ user[:, :2, :2]  # [B, 2, 2]
            offset = turn @ (user[:, :2, 2:] + shift)  # [B, 2, 1]
            phases = self.phases.to(t.dtype) + (self.freqs @ offset)[:, :, 0]  # [B, C]
            freqs = self.freqs @ matrix  # [B, C, 2]
            # Frequencies that the sampling could not carry are faded out.
            size2 = freqs.square().sum(2).clamp_min(1e-12).sqrt()
            amplitudes = (1 - (size2 - cutoff) / (rate / 2 - cutoff)).clamp(0, 1)
            # Pixel centres, in pictures, the margin outside of ±0.5.
            grid = (torch.arange(size, dtype=t.dtype, device=t.device) + 0.5 - size / 2) / rate
            x, y = (freqs[:, None, :, n] * grid[:, None] for n in range(2))  # [B, size, C]
            wave = x[:, None] + (y + phases[:, None])[:, :, None]  # [B, H, W, C]
            features = torch.sin(wave * (2 * math.pi)) * amplitudes[:, None, None, :]
            features = features @ (self.weight / math.sqrt(len(self.weight))).T
        return features.permute(0, 3, 1, 2)


class SynthesisLayer(Styled):
    """Modulated convolution and filtered leaky ReLU: [B, C, H, W] of one rate → [B, C', H', W'] of the next."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self, into: Rate, out: Rate, kernel: int = 3, torgb: bool = False, radial: bool = False,
        clamp: float | None = CLAMP, **styled: Any,
    ):  # fmt: skip
        kernel = 1 if torgb else kernel
        super().__init__(into.channels, out.channels, kernel, **styled)
        self.into, self.out, self.torgb, self.clamp = into, out, torgb, clamp
        between = max(into.rate, out.rate) * (1 if torgb else 2)  # sampling rate of the nonlinearity
        self.up, self.down = between // into.rate, between // out.rate
        up_taps = FILTER_SIZE * self.up if self.up > 1 and not torgb else 1
        down_taps = FILTER_SIZE * self.down if self.down > 1 and not torgb else 1
        up = design_lowpass_filter(up_taps, into.cutoff, 2 * into.half_width, between)
        down = design_lowpass_filter(down_taps, out.cutoff, 2 * out.half_width, between, radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        self.register_buffer("magnitude_ema", torch.ones(()))
        total = (out.size - 1) * self.down + 1 - (into.size + kernel - 1) * self.up + up_taps + down_taps - 2
        low = (total + self.up) // 2  # samples keep their places in the picture: appendix C.3
        self.padding = (low, total - low, low, total - low)
        self.attend: Attend | None = None  # behind the layer

    def forward(self, x: Tensor, w: Tensor, text: Tensor | None) -> Tensor:
        style, gain = self.style(w, text), self.magnitude_ema.rsqrt()
        if self.torgb:
            gain = gain / math.sqrt(self.into.channels)
        x = ops.stylegan3_modulated_conv2d(
            x, self.weight, style, not self.torgb, self.weight.shape[-1] - 1, input_gain=gain, bias=self.bias
        )
        if self.torgb:
            return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
        return filtered_lrelu(
            x, self.up_filter, self.down_filter, None, self.up, self.down, self.padding, clamp=self.clamp
        )

    @torch.no_grad()
    def track(self, x: Tensor) -> None:
        """The running mean of the input's square moves towards that of x, over all processes."""
        power = torch.linalg.vector_norm(x, dim=(1, 2, 3), dtype=torch.float32).square() / x[0].numel()  # [B]
        power = parallel.gather(power)
        beta = 0.5 ** (len(power) / MAGNITUDE_HALF_LIFE)
        self.magnitude_ema.copy_(power.mean().lerp(self.magnitude_ema, beta))


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] (and text [B, text_dim] where text_dim > 0) → picture [B, 3, H, W].

    kernel 3 and radial False: configuration T, equivariant to translation; kernel 1 and radial True: R, to rotation
    too. Text joins w up to a sampling rate of `change` and scales its style above.
    """

    def __init__(
        self,
        w_dim: int,
        rates: list[Rate],
        kernel: int = 3,
        radial: bool = False,
        critical: int = 2,
        clamp: float | None = CLAMP,
        output_scale: float = OUTPUT_SCALE,
        text_dim: int = 0,
        text_hidden: int = 512,
        change: int = 256,
        recompute: bool = False,
    ):
        """recompute: layers keep nothing but their inputs for the backward pass, and compute the rest again there."""
        super().__init__()
        self.recompute = recompute
        self.output_scale, self.num_ws = output_scale, len(rates) + 1
        self.w_dim, self.critical = w_dim, critical
        self.input = SynthesisInput(w_dim, rates[0])
        self.names = []
        into = rates[0]
        for i, out in enumerate(rates):
            layer = SynthesisLayer(
                into, out, kernel, torgb=i == len(rates) - 1, radial=radial and i < len(rates) - 1 - critical,
                clamp=clamp, w_dim=w_dim, text_dim=text_dim, text_hidden=text_hidden, join=out.rate <= change,
            )  # fmt: skip
            self.names.append(f"L{i}_{out.size}_{out.channels}")
            setattr(self, self.names[-1], layer)
            into = out

    def add_attention(self, options: Options, word_dim: int) -> None:
        """At a sampling rate means behind its last layer, but for those of the picture's own sharpness."""
        o = options
        layers = [getattr(self, name) for name in self.names[: -1 - self.critical]]
        last = {layer.out.rate: layer for layer in layers}
        widths = {r: layer.out.channels for r, layer in last.items()}
        found = attends(widths, self.w_dim, word_dim, o.self_attention, o.word_attention, o.word_attention_kind)
        for r, attend in found.items():
            last[r].attend = attend

    def forward(
        self,
        ws: Tensor,
        text: Text | Tensor | None = None,
        noise: Any = None,
        stage: Stage | None = None,
        track: bool = False,
    ) -> Tensor:
        """noise, stage: there is neither here; taken so that all synthesis networks are called alike. track: the
        running means of the layers' input magnitudes take this batch in, over all processes.

        Vectors are taken as they are. Sentences, of unit length, are first scaled to components of unit variance.
        """
        caption = text
        if isinstance(text, Text):
            text = text.sentence * math.sqrt(text.sentence.shape[1])
        w, *rest = ws.unbind(1)
        x = self.input(w)
        for name, w in zip(self.names, rest, strict=True):
            layer = getattr(self, name)
            if track:
                layer.track(x.detach())
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, w, text, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, w, text)
            if layer.attend is not None:
                x = layer.attend(x, caption, w)
        return x.to(ws.dtype) * self.output_scale


class Generator(StyleGenerator):
    """Latent and caption → picture."""

    w_avg_beta = 0.998
    movable = True

    def __init__(self, options: Options, dimensions: Dimensions):
        super().__init__()
        o, d = options, dimensions
        lafite, r = o.text == "lafite", o.equivariance == "r"
        wide = d.width * (2 if r else 1)  # 1×1 convolutions afford twice the channels
        self.latent_dim, self.w_dim, self.style_mixing, self.tanh = o.latent_dim, o.style_dim, o.style_mixing, o.tanh
        self.synthesis = Synthesis(
            o.style_dim,
            plan(d.resolution, round(o.channel_base * wide), round(o.channel_max * wide), o.layers),
            kernel=1 if r else 3,
            radial=r,
            clamp=o.conv_clamp,
            text_dim=d.text if lafite else 0,
            text_hidden=o.style_dim,
            recompute=o.recompute,
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(o.latent_dim, 0 if lafite else d.text, o.style_dim, self.num_ws, o.mapping_layers)
        self.synthesis.add_attention(o, d.words)  # last: all other weights start as they do without

    @contextmanager
    def moved(self, matrix: Tensor) -> Iterator[None]:
        """The Fourier features that all pictures start from are moved: where they were read at before·p, they are
        now read at before·(matrix·p). A transform that the user has set stays what is done last."""
        transform = self.synthesis.input.transform
        before = transform.clone()
        whole = torch.eye(3).to(transform)
        whole[:2] = matrix[:2].to(transform)
        transform.copy_(before @ whole)
        try:
            yield
        finally:
            transform.copy_(before)
