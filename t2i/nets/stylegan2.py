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
from t2i.interfaces import Judgement, Text
from t2i.nets import ops
from t2i.nets.attention import Attend, SelfAttention, attends, check
from t2i.nets.layers import GAIN, Conv2d, FullyConnected, Mapping, Track, minibatch_stddev

COLOURS = 3
REGIONS = 16  # side of the map of regions that words are compared with (2101.04702, section 4.3)


def channels(base: int, most: int, resolution: int, width: float = 1.0) -> dict[int, int]:
    """Resolution 4, 8, ... → channels: min(base // r, most) · width, a scaled count above 16 in multiples of 8."""
    table = {}
    for r in (2**n for n in range(2, resolution.bit_length())):
        n = min(base // r, most)
        if width != 1:
            n = round(n * width / 8) * 8 if n * width >= 16 else round(n * width)
        table[r] = max(n, 1)
    return table


class Styled(nn.Module):
    """Weights [O, I, k, k] and the affine layer that gives their style [B, I] from w, or from w and text.

    Text enters as in LAFITE: an MLP of the text is joined to w (join=True), or shifts and scales the style of w.
    """

    def __init__(
        self, i: int, o: int, k: int, w_dim: int, text_dim: int = 0, text_hidden: int = 512, join: bool = True
    ):
        super().__init__()
        self.mode = ("join" if join else "scale") if text_dim else "plain"
        between = (text_dim + text_hidden) // 2
        if self.mode != "join":
            self.affine = FullyConnected(w_dim, i, bias=1)
        for name in {"plain": (), "join": ("pre_",), "scale": ("scale_layer_", "bias_layer_")}[self.mode]:
            setattr(self, f"{name}0", FullyConnected(text_dim, between, act=True, lr=0.01))
            setattr(self, f"{name}1", FullyConnected(between, text_hidden, act=True, lr=0.01))
            if self.mode == "scale":
                setattr(self, f"{name}2", FullyConnected(text_hidden, i))
        if self.mode == "join":
            self.affine_0 = FullyConnected(w_dim + text_hidden, i, bias=1)
        self.weight = nn.Parameter(torch.randn(o, i, k, k))
        self.bias = nn.Parameter(torch.zeros(o))

    def style(self, w: Tensor, text: Tensor | None) -> Tensor:
        """w [B, w_dim], text [B, text_dim] → [B, I] in float32."""
        if self.mode == "plain":
            return self.affine(w)
        if self.mode == "join":
            return self.affine_0(torch.cat([self._mlp("pre_", text), w], 1))
        return self._mlp("bias_layer_", text) + self.affine(w) * self._mlp("scale_layer_", text)

    def _mlp(self, name: str, x: Any) -> Tensor:
        for n in range(3 if self.mode == "scale" else 2):
            x = getattr(self, f"{name}{n}")(x)
        return x


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


class CriticBlock(nn.Module):
    """Halves the resolution: x [B, i, H, W] (None in the first block) → [B, o, H/2, W/2]."""

    resample_filter: Tensor

    def __init__(self, i: int, o: int, colours: int, architecture: str, first: bool, clamp: float | None):
        super().__init__()
        self.register_buffer("resample_filter", ops.make_filter())
        self.fromrgb = Conv2d(colours, i, 1, clamp=clamp) if first or architecture == "skip" else None
        self.conv0 = Conv2d(i, i, 3, clamp=clamp)
        self.conv1 = Conv2d(i, o, 3, down=2, clamp=clamp)
        self.skip = Conv2d(i, o, 1, bias=False, act=False, down=2) if architecture == "resnet" else None
        self.attend: SelfAttention | None = None  # of what comes out

    def forward(self, x: Tensor | None, image: Tensor) -> Tensor:
        if self.fromrgb is not None:
            y = self.fromrgb(image)
            x = y if x is None else x + y
        if self.skip is None:
            x = self.conv1(self.conv0(x))
        else:
            gain = math.sqrt(0.5)
            x = self.skip(x, gain) + self.conv1(self.conv0(x), gain)
        return x if self.attend is None else self.attend(x)


class CriticHead(nn.Module):
    """[B, C, 4, 4] → the score [B, out] and, where text_dim > 0, the embedding d(x) [B, text_dim]."""

    def __init__(
        self, width: int, out: int, text_dim: int, colours: int, architecture: str,
        clamp: float | None, group: int | None, stddev: int,
    ):  # fmt: skip
        super().__init__()
        self.group, self.stddev = group, stddev
        self.fromrgb = Conv2d(colours, width, 1) if architecture == "skip" else None
        self.conv = Conv2d(width + stddev, width, 3, clamp=clamp)
        self.fc = FullyConnected(width * 16, width, act=True)
        self.fts = FullyConnected(width, text_dim) if text_dim else None
        self.out = FullyConnected(width, out)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.fromrgb is not None:
            x = x + self.fromrgb(image)
        if self.stddev:
            x = minibatch_stddev(x, self.group, self.stddev)
        x = self.fc(self.conv(x).flatten(1))
        return self.out(x), None if self.fts is None else self.fts(x)


class Critic(nn.Module):
    """Pictures [B, 3, H, W] (and a condition [B, c_dim]) → score [B], embedding [B, text_dim] or None.

    With a condition the score is a projection (1802.05637): Σ(out · mapping(c)) / √cmap_dim.
    """

    def __init__(
        self,
        widths: dict[int, int],
        c_dim: int = 0,
        cmap_dim: int | None = None,
        colours: int = COLOURS,
        architecture: str = "resnet",
        clamp: float | None = None,
        text_dim: int = 0,
        mbstd_group: int | None = 4,
        mbstd_channels: int = 1,
    ):
        super().__init__()
        self.resolutions = sorted(widths, reverse=True)
        self.architecture = architecture
        for r in self.resolutions[:-1]:
            first = r == self.resolutions[0]
            setattr(self, f"b{r}", CriticBlock(widths[r], widths[r // 2], colours, architecture, first, clamp))
        cmap_dim = (widths[4] if cmap_dim is None else cmap_dim) if c_dim else 0
        self.mapping = Mapping(0, c_dim, cmap_dim, num_ws=0) if c_dim else None
        self.b4 = CriticHead(
            widths[4], cmap_dim or 1, text_dim, colours, architecture, clamp, mbstd_group, mbstd_channels
        )

    def judge(self, image: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        score, embedding, _ = self.look(image)
        return self.project(score, c), embedding

    def look(self, image: Tensor, keep: int = 0) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """All that does not depend on the condition: scores [B, 1 or cmap_dim], embedding, features at `keep`²."""
        x = kept = None
        for r in self.resolutions[:-1]:
            block = getattr(self, f"b{r}")
            x = block(x, image)  # [B, C, r/2, r/2]
            if self.architecture == "skip":
                image = ops.downsample2d(image, block.resample_filter)
            kept = x if r == 2 * keep else kept
        score, embedding = self.b4(x, image)
        return score, embedding, kept

    def project(self, score: Tensor, c: Tensor | None) -> Tensor:
        """Scores [B, 1 or cmap_dim] and condition → [B]."""
        if self.mapping is None:
            return score[:, 0]
        return (score * self.mapping(None, c)).sum(1) / math.sqrt(score.shape[1])


class Discriminator(Critic):
    """Picture and caption → Judgement; the embedding d(x) is compared with sentences.

    d_text "lafite": logit = f(x) + ⟨d(x), t⟩, per sample; "lafite_published": the product summed over the whole batch
    too, as LAFITE's code has it; "projection": the sentence stands for the class label.
    """

    def __init__(self, model: config.Model, text_dim: int, word_dim: int = 0):
        """word_dim: channels of Text.words, where words are compared with regions; 0 builds no heads for that."""
        base, most = model.d_channel_base or model.channel_base, model.d_channel_max or model.channel_max
        super().__init__(
            channels(base, most, model.resolution, model.width),
            c_dim=text_dim if model.d_text == "projection" else 0,
            architecture=model.d_architecture,
            clamp=model.conv_clamp,
            text_dim=text_dim,
            mbstd_group=model.mbstd_group,
        )
        self.d_text = model.d_text
        widths = channels(base, most, model.resolution, model.width)
        # What is optional comes last, so that all other weights start as they do without.
        check("d_self", model.attention.d_self, self.resolutions[1:])
        for r in model.attention.d_self:
            getattr(self, f"b{2 * r}").attend = SelfAttention(widths[r])
        self.region_size = min(REGIONS, model.resolution // 2) if word_dim else 0
        if word_dim:
            self.regions = Conv2d(widths[self.region_size], text_dim, 1, act=False)
            self.words = FullyConnected(word_dim, text_dim)

    def forward(self, image: Tensor, text: Text) -> Judgement:
        """image [B, 3, H, W] in [-1, 1] → logit [B], embedding [B, text_dim], both float32; with word_dim regions
        [B, text_dim, h, w] and words [B, L, text_dim] too."""
        score, embedding, x = self.look(image, self.region_size)
        assert embedding is not None
        judgement = Judgement(self.logit(score, embedding, text), embedding, score=score)
        if x is not None:
            judgement.regions, judgement.words = self.regions(x), self.words(text.words)
        return judgement

    def logit(self, score: Tensor, embedding: Tensor, text: Text) -> Tensor:
        """[B] of pictures that have been looked at and any captions."""
        logit = self.project(score, text.sentence)
        if self.mapping is None:
            match = embedding * text.sentence
            logit = logit + (match.sum() if self.d_text == "lafite_published" else match.sum(1))
        return logit
