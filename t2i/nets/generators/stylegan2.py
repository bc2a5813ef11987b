"""StyleGAN2 (1912.04958, 2006.06676) conditioned on text, as in LAFITE (2111.13792) or like a class label.

Parameters have the published names, so published weights load: without text into `Mapping` and `Synthesis`, which know
nothing of the configuration; `Generator` is what the pipeline builds.
Legend: B batch, C channels, H height, W width; ws [B, num_ws, style_dim]; pictures are nominally in [-1, 1].
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2i.errors import not_one_of, wrong
from t2i.interfaces import Stage, Text
from t2i.nets.contract import Dimensions
from t2i.nets.layers import ops
from t2i.nets.layers.attention import Attend, attends
from t2i.nets.layers.equalised import COLOURS, GAIN, Conv2d, Mapping, channels
from t2i.nets.layers.styled import Styled, StyleGenerator


@dataclass
class Options:
    """Of `generator` in a configuration."""

    GROWS: ClassVar[bool] = True

    name: str = "stylegan2"
    latent_dim: int = 512
    style_dim: int = 512
    mapping_layers: int = 2
    channel_base: int = 16384  # channels at resolution r: min(channel_base / r, channel_max) · model.width
    channel_max: int = 512
    architecture: str = "skip"  # skip, resnet or orig
    text: str = "lafite"  # how text enters: lafite (MLPs, in every layer) or mapping (joined to z)
    noise: bool = True  # noise inputs; false suits pictures of flat colours, where noise can only hurt
    style_mixing: float = 0.9  # probability that a batch mixes two latents
    # Pictures are tanh(this · x) of what the last layer gives; 0: x. A pretrained trunk has seen none but bounded ones.
    tanh: float = 0.0
    conv_clamp: float | None = None  # clamps activations at this value (256 for fp16)
    self_attention: list[int] = field(default_factory=list)  # resolutions at which places attend to each other
    word_attention: list[int] = field(default_factory=list)  # and to the words of the caption
    word_attention_kind: str = "cross"  # cross (GigaGAN's residual) or modulation (XMC-GAN's)

    def problems(self, resolution: int) -> list[str]:
        return [*not_one_of("architecture", self.architecture, "skip", "resnet", "orig"), *style_problems(self)]


def style_problems(o: Any) -> list[str]:
    """Of the options that both StyleGANs have."""
    positive = ("latent_dim", "style_dim", "mapping_layers", "channel_base", "channel_max")
    return [
        *(problem for name in positive for problem in wrong(getattr(o, name) > 0, name, getattr(o, name), "above 0")),
        *not_one_of("text", o.text, "lafite", "mapping"),
        *wrong(0 <= o.tanh < 100, "tanh", o.tanh, "0 or more, as 0.3"),
        *wrong(0 <= o.style_mixing <= 1, "style_mixing", o.style_mixing, "a probability, 0 to 1"),
        *wrong(o.conv_clamp is None or o.conv_clamp > 0, "conv_clamp", o.conv_clamp, "above 0, or null"),
        *not_one_of("word_attention_kind", o.word_attention_kind, "cross", "modulation"),
    ]


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
        ends: bool,
        clamp: float | None,
        **styled: Any,
    ):
        """ends: a picture may be finished here."""
        super().__init__()
        self.register_buffer("resample_filter", ops.make_filter())
        self.adds = architecture == "skip"  # to the picture so far; else toRGB makes the whole of it
        if i == 0:
            self.const = nn.Parameter(torch.randn(o, resolution, resolution))
        else:
            self.conv0 = StyledConv(i, o, resolution, up=2, clamp=clamp, **styled)
        self.conv1 = StyledConv(o, o, resolution, clamp=clamp, **styled)
        self.torgb = ToRGB(o, colours, clamp=clamp, **styled) if ends or self.adds else None
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
        draws: bool = True,
        alpha: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:
        """x [B, i, H/2, W/2], image [B, 3, H/2, W/2] or None, ws: one [B, w_dim] a layer → (x, image) at H, W.

        caption: what attention to words reads. draws: the picture is wanted here. alpha: how far it has faded from
        that of the block before, enlarged, to this block's.
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
        if self.torgb is not None and (self.adds or draws):
            y = self.torgb(x, ws[self.convs], text)
            if image is None:
                image = y
            elif self.adds:
                image = image + (y if alpha == 1 else alpha * y)
            else:
                image = y if alpha == 1 else image.lerp(y, alpha)
        return x, image


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] (and text [B, text_dim] where text_dim > 0) → picture [B, 3, H, W].

    `widths`: channels at each resolution. Text joins w up to resolution `change` and scales its style above. `stages`:
    resolutions besides the last at which pictures may be finished, while the network grows.
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
        stages: Sequence[int] = (),
    ):
        super().__init__()
        self.resolutions = sorted(widths)
        self.widths, self.w_dim = widths, w_dim
        self.num_ws = 2 * len(widths)  # a w for every convolution and one for the last toRGB
        i = 0
        for r, o in sorted(widths.items()):
            ends = r == self.resolutions[-1] or r in stages
            block = SynthesisBlock(
                i, o, r, colours, architecture, ends, clamp,
                w_dim=w_dim, text_dim=text_dim, text_hidden=text_hidden, join=r <= change,
            )  # fmt: skip
            setattr(self, f"b{r}", block)
            i = o

    def add_attention(self, options: Options, word_dim: int) -> None:
        o = options
        found = attends(
            self.widths, self.w_dim, word_dim, o.self_attention, o.word_attention, o.word_attention_kind
        )  # fmt: skip
        for r, attend in found.items():
            getattr(self, f"b{r}").attend = attend

    def forward(
        self,
        ws: Tensor,
        text: Text | Tensor | None = None,
        noise: Any = "random",
        stage: Stage | None = None,
        track: bool = False,
    ) -> Tensor:
        """noise: "random", "const" (the stored maps), None, or an object whose `.randn(B, 1, H, W)` each layer calls.

        Vectors are taken as they are. Sentences, of unit length, are first scaled to components of unit variance:
        w has those, and beside it text √C times weaker goes unheard for most of a short training.
        track: there are no running means here; taken so that all synthesis networks are called alike.
        """
        caption = text
        if isinstance(text, Text):
            text = text.sentence * math.sqrt(text.sentence.shape[1])
        goal, alpha = (stage.resolution, stage.alpha) if stage else (self.resolutions[-1], 1.0)
        x = image = None
        w, first = ws.unbind(1), 0
        for r in self.resolutions[: self.resolutions.index(goal) + 1]:
            block = getattr(self, f"b{r}")
            draws = r == goal or (2 * r == goal and alpha < 1)  # a picture that is still fading shows the one before
            # Each toRGB shares the w of the convolution after it.
            w_here = w[first : first + block.convs + 1]
            x, image = block(x, image, w_here, text, noise, caption, draws, alpha if r == goal else 1.0)
            first += block.convs
        assert image is not None
        return image


class Generator(StyleGenerator):
    """Latent and caption → picture."""

    w_avg_beta = 0.995
    movable = True

    def __init__(self, options: Options, dimensions: Dimensions):
        super().__init__()
        o, d = options, dimensions
        lafite = o.text == "lafite"
        self.latent_dim, self.w_dim, self.style_mixing, self.tanh = o.latent_dim, o.style_dim, o.style_mixing, o.tanh
        self.takes_noise = o.noise
        self.synthesis = Synthesis(
            o.style_dim,
            channels(o.channel_base, o.channel_max, d.resolution, d.width),
            architecture=o.architecture,
            clamp=o.conv_clamp,
            text_dim=d.text if lafite else 0,
            text_hidden=o.style_dim,  # 512 in LAFITE, where both are 512
            stages=d.stages,
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(o.latent_dim, 0 if lafite else d.text, o.style_dim, self.num_ws, o.mapping_layers)
        self.synthesis.add_attention(o, d.words)  # last: all other weights start as they do without

    @contextmanager
    def moved(self, matrix: Tensor) -> Iterator[None]:
        """The constant map that all pictures start from is resampled linearly."""
        const = self.synthesis.b4.const
        before = const.detach().clone()
        theta = matrix[:2].to(const).clone()
        theta[:, 2] *= 2  # a picture is 2 wide in grid_sample's coordinates
        grid = F.affine_grid(theta[None], [1, *before.shape], align_corners=False)
        with torch.no_grad():
            const.copy_(F.grid_sample(before[None], grid, padding_mode="border", align_corners=False)[0])
        try:
            yield
        finally:
            with torch.no_grad():
                const.copy_(before)
