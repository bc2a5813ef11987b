"""StyleGAN3 (2106.12423), configurations T and R, conditioned on text in the ways of stylegan2.py.

Details move with the objects and do not stick to pixels: the picture grows from Fourier features, every layer is
band-limited, there is no noise. Parameters have the published names; the discriminator is StyleGAN2's.
Legend: B batch, C channels, H height, W width; ws [B, num_ws, style_dim]; pictures are nominally in [-1, 1].
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t2i import config
from t2i.interfaces import Text
from t2i.nets.layers import ops
from t2i.nets.layers.attention import Attend, attends
from t2i.nets.layers.equalised import COLOURS, FullyConnected, Mapping, Track
from t2i.nets.layers.filtered import design_lowpass_filter, filtered_lrelu
from t2i.nets.layers.styled import Styled

MARGIN = 10  # pixels around the picture in which layers compute beyond its edge
FILTER_SIZE = 6  # taps for each factor of resampling
OUTPUT_SCALE = 0.25
CLAMP = 256.0
MAGNITUDE_HALF_LIFE = 20_000  # pictures, of the running mean of each layer's input magnitude


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
    def follow(self, x: Tensor, track: Track) -> None:
        """The running mean of the input's square moves towards that of x, over all processes."""
        power = torch.linalg.vector_norm(x, dim=(1, 2, 3), dtype=torch.float32).square() / x[0].numel()  # [B]
        power = track(power)
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

    def add_attention(self, options: config.Attention, word_dim: int) -> None:
        """At a sampling rate means behind its last layer, but for those of the picture's own sharpness."""
        layers = [getattr(self, name) for name in self.names[: -1 - self.critical]]
        last = {layer.out.rate: layer for layer in layers}
        widths = {r: layer.out.channels for r, layer in last.items()}
        for r, attend in attends(options, widths, self.w_dim, word_dim).items():
            last[r].attend = attend

    def forward(
        self, ws: Tensor, text: Text | Tensor | None = None, noise: Any = None, track: Track | None = None
    ) -> Tensor:
        """noise: there is none here; taken so that all generators are called alike. track: see Generator.

        Vectors are taken as they are. Sentences, of unit length, are first scaled to components of unit variance.
        """
        caption = text
        if isinstance(text, Text):
            text = text.sentence * math.sqrt(text.sentence.shape[1])
        w, *rest = ws.unbind(1)
        x = self.input(w)
        for name, w in zip(self.names, rest, strict=True):
            layer = getattr(self, name)
            if track is not None:
                layer.follow(x.detach(), track)
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, x, w, text, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, w, text)
            if layer.attend is not None:
                x = layer.attend(x, caption, w)
        return x.to(ws.dtype) * self.output_scale


class Generator(nn.Module):
    """Latent and caption → picture. g_text "mapping" joins the sentence to z; "lafite" gives it to every layer."""

    w_avg_beta = 0.998  # decay of the running mean of w

    def __init__(self, model: config.Model, text_dim: int, word_dim: int = 0):
        """text_dim, word_dim: channels of Text.sentence and Text.words; the latter for model.attention.words."""
        super().__init__()
        lafite, r = model.g_text == "lafite", model.stylegan3 == "r"
        wide = model.width * (2 if r else 1)  # 1×1 convolutions afford twice the channels
        rates = plan(
            model.resolution, round(model.channel_base * wide), round(model.channel_max * wide), model.stylegan3_layers
        )
        self.latent_dim = model.latent_dim
        self.synthesis = Synthesis(
            model.style_dim,
            rates,
            kernel=1 if r else 3,
            radial=r,
            clamp=CLAMP if model.conv_clamp is None else model.conv_clamp,
            text_dim=text_dim if lafite else 0,
            text_hidden=model.style_dim,
            recompute=model.stylegan3_recompute,
        )
        self.num_ws = self.synthesis.num_ws
        c_dim = 0 if lafite else text_dim
        self.mapping = Mapping(model.latent_dim, c_dim, model.style_dim, self.num_ws, model.mapping_layers)
        self.synthesis.add_attention(model.attention, word_dim)  # last: all other weights start as they do without

    def forward(
        self,
        z: Tensor,
        text: Text,
        *,
        truncation: float = 1.0,
        noise: Any = None,
        mix: tuple[Tensor, int] | None = None,
        track: Track | None = None,
    ) -> Tensor:
        """z [B, latent_dim] → picture [B, 3, H, W], nominally in [-1, 1], not clamped.

        truncation: 1 = none, 0 = every w is w_avg. noise: ignored. mix (z2, cutoff): the ws from `cutoff` on come
        from z2 (style mixing). track: the running means (w_avg, input magnitudes) take this batch in; it is given a
        process's rows and returns those of all.
        """
        ws = self.mapping(z, text, truncation)
        if track is not None:
            self.mapping.follow(ws[:, 0], track, self.w_avg_beta)
        if mix is not None:
            z2, cutoff = mix
            ws = torch.cat([ws[:, :cutoff], self.mapping(z2, text, truncation)[:, cutoff:]], 1)
        return self.synthesis(ws, text, noise, track)
