"""StyleGAN2 (1912.04958, 2006.06676) conditioned on text, as in LAFITE (2111.13792) or like a class label.

Parameters have the published names, so published weights load: without text into `Mapping`, `Synthesis` and
`Critic`, which know nothing of the configuration; `Generator` and `Discriminator` are what the pipeline builds.
Legend: B batch, C channels, H height, W width; ws [B, num_ws, style_dim]; pictures are nominally in [-1, 1].
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i import config
from t2i.interfaces import Text
from t2i.nets.layers import ops
from t2i.nets.layers.attention import Attend, attends
from t2i.nets.layers.equalised import COLOURS, GAIN, Conv2d, Mapping, Track, channels
from t2i.nets.layers.styled import Styled


class StyledConv(Styled):
    """3×3 modulated convolution, noise, bias, leaky ReLU: [B, I, H / up, W / up] → [B, O, H, W]."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, i: int, o: int, resolution: int, up: int = 1, clamp: float | None = None, **styled: Any):
        super().__init__(i, o, 3, **styled)
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("resample_filter", ops.make_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, text: Tensor | None, noise: Any, gain: float = 1.0) -> Tensor:
        clamp = None if self.clamp is None else self.clamp * gain
        gain *= GAIN  # lrelu(a·x) = a·lrelu(x): applied where it is cheap, to demodulation, noise and bias
        if noise is None:
            n = None
        elif noise == "const":
            n = self.noise_const[None, None]
        elif noise == "random":
            n = torch.randn(len(x), 1, self.resolution, self.resolution, device=x.device)
        else:
            n = noise.randn(len(x), 1, self.resolution, self.resolution)
        n = None if n is None else n * (self.noise_strength * gain)
        x = ops.modulated_conv2d(
            x, self.weight, self.style(w, text), n, self.resample_filter, self.up, padding=1,
            flip_weight=self.up == 1, gain=gain,
        )  # fmt: skip
        x = x + (self.bias * gain).to(x.dtype)[:, None, None]
        x = F.leaky_relu(x, ops.SLOPE, inplace=True)
        return x if clamp is None else x.clamp(-clamp, clamp)


class ToRGB(Styled):
    """1×1 modulated convolution without demodulation: [B, I, H, W] → [B, 3, H, W] in float32 (or wider)."""

    def __init__(self, i: int, colours: int, clamp: float | None = None, **styled: Any):
        super().__init__(i, colours, 1, **styled)
        self.clamp, self.weight_gain = clamp, 1 / math.sqrt(i)

    def forward(self, x: Tensor, w: Tensor, text: Tensor | None) -> Tensor:
        x = ops.modulated_conv2d(x, self.weight, self.style(w, text), demodulate=False, gain=self.weight_gain)
        return ops.bias_act(x.to(self.bias.dtype), self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """Doubles the resolution (the first block, i = 0, starts from a constant 4×4) and adds to the picture."""

    resample_filter: Tensor

    def __init__(
        self,
        i: int,
        o: int,
        resolution: int,
        colours: int,
        architecture: str,
        last: bool,
        clamp: float | None,
        **styled: Any,
    ):
        super().__init__()
        self.register_buffer("resample_filter", ops.make_filter())
        if i == 0:
            self.const = nn.Parameter(torch.randn(o, resolution, resolution))
        else:
            self.conv0 = StyledConv(i, o, resolution, up=2, clamp=clamp, **styled)
        self.conv1 = StyledConv(o, o, resolution, clamp=clamp, **styled)
        self.torgb = ToRGB(o, colours, clamp=clamp, **styled) if last or architecture == "skip" else None
        self.skip = Conv2d(i, o, 1, bias=False, act=False, up=2) if i and architecture == "resnet" else None
        self.convs = 1 if i == 0 else 2
        self.attend: Attend | None = None

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Sequence[Tensor],
        text: Tensor | None,
        noise: Any,
        caption: Text | Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, i, H/2, W/2], image [B, 3, H/2, W/2] or None, ws: one [B, w_dim] a layer → (x, image) at H, W.

        caption: what attention to words reads.
        """
        gain = math.sqrt(0.5) if self.skip is not None else 1.0
        if x is None:
            x = self.conv1(self.const.expand(len(ws[0]), -1, -1, -1), ws[0], text, noise)
        else:
            y = None if self.skip is None else self.skip(x, gain)
            x = self.conv1(self.conv0(x, ws[0], text, noise), ws[1], text, noise, gain)
            x = x if y is None else x + y
        if self.attend is not None:
            x = self.attend(x, caption, ws[self.convs])
        if image is not None:
            image = ops.upsample2d(image, self.resample_filter)
        if self.torgb is not None:
            y = self.torgb(x, ws[self.convs], text)
            image = y if image is None else image + y
        return x, image


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] (and text [B, text_dim] where text_dim > 0) → picture [B, 3, H, W].

    `widths`: channels at each resolution. Text joins w up to resolution `change` and scales its style above.
    """

    def __init__(
        self,
        w_dim: int,
        widths: dict[int, int],
        colours: int = COLOURS,
        architecture: str = "skip",
        clamp: float | None = None,
        text_dim: int = 0,
        text_hidden: int = 512,
        change: int = 256,
    ):
        super().__init__()
        self.resolutions = sorted(widths)
        self.widths, self.w_dim = widths, w_dim
        self.num_ws = 2 * len(widths)  # a w for every convolution and one for the last toRGB
        i = 0
        for r, o in sorted(widths.items()):
            last = r == self.resolutions[-1]
            block = SynthesisBlock(
                i, o, r, colours, architecture, last, clamp,
                w_dim=w_dim, text_dim=text_dim, text_hidden=text_hidden, join=r <= change,
            )  # fmt: skip
            setattr(self, f"b{r}", block)
            i = o

    def add_attention(self, options: config.Attention, word_dim: int) -> None:
        for r, attend in attends(options, self.widths, self.w_dim, word_dim).items():
            getattr(self, f"b{r}").attend = attend

    def forward(self, ws: Tensor, text: Text | Tensor | None = None, noise: Any = "random") -> Tensor:
        """noise: "random", "const" (the stored maps), None, or an object whose `.randn(B, 1, H, W)` each layer calls.

        Vectors are taken as they are. Sentences, of unit length, are first scaled to components of unit variance:
        w has those, and beside it text √C times weaker goes unheard for most of a short training.
        """
        caption = text
        if isinstance(text, Text):
            text = text.sentence * math.sqrt(text.sentence.shape[1])
        x = image = None
        w, first = ws.unbind(1), 0
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            # Each toRGB shares the w of the convolution after it.
            x, image = block(x, image, w[first : first + block.convs + 1], text, noise, caption)
            first += block.convs
        assert image is not None
        return image


class Generator(nn.Module):
    """Latent and caption → picture. g_text "mapping" joins the sentence to z; "lafite" gives it to every layer."""

    w_avg_beta = 0.995  # decay of the running mean of w

    def __init__(self, model: config.Model, text_dim: int, word_dim: int = 0):
        """text_dim, word_dim: channels of Text.sentence and Text.words; the latter for model.attention.words."""
        super().__init__()
        lafite = model.g_text == "lafite"
        widths = channels(model.channel_base, model.channel_max, model.resolution, model.width)
        self.latent_dim = model.latent_dim
        self.synthesis = Synthesis(
            model.style_dim,
            widths,
            architecture=model.g_architecture,
            clamp=model.conv_clamp,
            text_dim=text_dim if lafite else 0,
            text_hidden=model.style_dim,  # 512 in LAFITE, where both are 512
        )
        self.noise = model.noise
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
        noise: Any = "random",
        mix: tuple[Tensor, int] | None = None,
        track: Track | None = None,
    ) -> Tensor:
        """z [B, latent_dim] → picture [B, 3, H, W], nominally in [-1, 1], not clamped.

        truncation: 1 = none, 0 = every w is w_avg. noise: see Synthesis. mix (z2, cutoff): the ws from `cutoff` on
        come from z2 (style mixing). track: the running mean of w takes this batch in; it is given a process's rows
        and returns those of all.
        """
        ws = self.mapping(z, text, truncation)
        if track is not None:
            self.mapping.follow(ws[:, 0], track, self.w_avg_beta)
        if mix is not None:
            z2, cutoff = mix
            ws = torch.cat([ws[:, :cutoff], self.mapping(z2, text, truncation)[:, cutoff:]], 1)
        return self.synthesis(ws, text, noise if self.noise else None)
