"""StyleGAN2's discriminator (1912.04958, 2006.06676), conditioned on text as in LAFITE (2111.13792) or like a class.

Parameters have the published names; `Critic` knows nothing of the configuration, so published weights load into it.
Legend: B batch, C channels, H height, W width; pictures are nominally in [-1, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from t2i.errors import not_one_of, wrong
from t2i.interfaces import Judgement, Stage, Text
from t2i.nets import contract
from t2i.nets.contract import Dimensions
from t2i.nets.layers import ops
from t2i.nets.layers.attention import SelfAttention, check
from t2i.nets.layers.equalised import COLOURS, Conv2d, FullyConnected, Mapping, channels, minibatch_stddev
from t2i.parallel import gather


@dataclass
class Options:
    """Of `discriminator` in a configuration."""

    GROWS: ClassVar[bool] = True

    name: str = "stylegan2"
    channel_base: int = 16384  # channels at resolution r: min(channel_base / r, channel_max) · model.width
    channel_max: int = 512
    architecture: str = "resnet"  # resnet, skip or orig
    # How text enters: lafite (f(x) + <d(x), t>), lafite_published (<d(x), t> summed over the batch, as in the published
    # code) or projection (the sentence in place of a class label)
    text: str = "lafite"
    mbstd_group: int = 4  # pictures compared by minibatch stddev; must divide the batch of one process
    conv_clamp: float | None = None  # clamps activations at this value (256 for fp16)
    self_attention: list[int] = field(default_factory=list)  # resolutions at which places attend to each other

    def problems(self, resolution: int) -> list[str]:
        positive = ("channel_base", "channel_max", "mbstd_group")
        return [
            *(p for name in positive for p in wrong(getattr(self, name) > 0, name, getattr(self, name), "above 0")),
            *not_one_of("architecture", self.architecture, "resnet", "skip", "orig"),
            *not_one_of("text", self.text, "lafite", "lafite_published", "projection"),
            *wrong(self.conv_clamp is None or self.conv_clamp > 0, "conv_clamp", self.conv_clamp, "above 0, or null"),
        ]


REGIONS = 16  # side of the map of regions that words are compared with (2101.04702, section 4.3)


class CriticBlock(nn.Module):
    """Halves the resolution: x [B, i, H, W] (None in the first block) → [B, o, H/2, W/2]."""

    resample_filter: Tensor

    def __init__(self, i: int, o: int, colours: int, architecture: str, starts: bool, clamp: float | None):
        """starts: pictures may enter here."""
        super().__init__()
        self.register_buffer("resample_filter", ops.make_filter())
        self.adds = architecture == "skip"  # the picture enters in every block
        self.fromrgb = Conv2d(colours, i, 1, clamp=clamp) if starts or self.adds else None
        self.conv0 = Conv2d(i, i, 3, clamp=clamp)
        self.conv1 = Conv2d(i, o, 3, down=2, clamp=clamp)
        self.skip = Conv2d(i, o, 1, bias=False, act=False, down=2) if architecture == "resnet" else None
        self.attend: SelfAttention | None = None  # of what comes out

    def forward(self, x: Tensor | None, image: Tensor) -> Tensor:
        x = enter(self.fromrgb, x, image, self.adds)
        if self.skip is None:
            x = self.conv1(self.conv0(x))
        else:
            gain = math.sqrt(0.5)
            x = self.skip(x, gain) + self.conv1(self.conv0(x), gain)
        return x if self.attend is None else self.attend(x)


def enter(fromrgb: Conv2d | None, x: Tensor | None, image: Tensor, adds: bool) -> Tensor:
    """What a block begins with: x from the block before, the picture, or (`adds`) both."""
    if x is not None and not adds:
        return x
    assert fromrgb is not None
    y = fromrgb(image)
    return y if x is None else x + y


class CriticHead(nn.Module):
    """[B, C, 4, 4] → the score [B, out] and, where text_dim > 0, the embedding d(x) [B, text_dim]."""

    def __init__(
        self, width: int, out: int, text_dim: int, colours: int, architecture: str,
        clamp: float | None, group: int | None, stddev: int, starts: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.group, self.stddev = group, stddev
        self.adds = architecture == "skip"
        self.fromrgb = Conv2d(colours, width, 1) if starts or self.adds else None
        self.conv = Conv2d(width + stddev, width, 3, clamp=clamp)
        self.fc = FullyConnected(width * 16, width, act=True)
        self.fts = FullyConnected(width, text_dim) if text_dim else None
        self.out = FullyConnected(width, out)

    def forward(self, x: Tensor | None, image: Tensor) -> tuple[Tensor, Tensor | None]:
        x = enter(self.fromrgb, x, image, self.adds)
        if self.stddev:
            x = minibatch_stddev(x, self.group, self.stddev)
        x = self.fc(self.conv(x).flatten(1))
        return self.out(x), None if self.fts is None else self.fts(x)


class Critic(contract.Discriminator):
    """Pictures [B, 3, H, W] (and a condition [B, c_dim]) → score [B], embedding [B, text_dim] or None.

    With a condition the score is a projection (1802.05637): Σ(out · mapping(c)) / √cmap_dim. stages: resolutions
    besides the first at which pictures may enter, while the network grows.
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
        stages: Sequence[int] = (),
    ):
        super().__init__()
        self.resolutions = sorted(widths, reverse=True)
        self.architecture = architecture
        for r in self.resolutions[:-1]:
            starts = r == self.resolutions[0] or r in stages
            setattr(self, f"b{r}", CriticBlock(widths[r], widths[r // 2], colours, architecture, starts, clamp))
        cmap_dim = (widths[4] if cmap_dim is None else cmap_dim) if c_dim else 0
        self.mapping = Mapping(0, c_dim, cmap_dim, num_ws=0) if c_dim else None
        self.b4 = CriticHead(
            widths[4], cmap_dim or 1, text_dim, colours, architecture, clamp, mbstd_group, mbstd_channels, 4 in stages
        )

    def judge(self, image: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        score, embedding, _ = self.examine(image)
        return self.project(score, c), embedding

    def examine(
        self, image: Tensor, keep: int = 0, stage: Stage | None = None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """All that does not depend on the condition: scores [B, 1 or cmap_dim], embedding, features at `keep`²."""
        start, alpha = (stage.resolution, stage.alpha) if stage else (self.resolutions[0], 1.0)
        x = kept = None
        for r in self.resolutions[self.resolutions.index(start) : -1]:
            block = getattr(self, f"b{r}")
            fades = r == start and alpha < 1
            x = block(x, image)  # [B, C, r/2, r/2]
            if self.architecture == "skip" or fades:
                image = ops.downsample2d(image, block.resample_filter)
            if fades:  # from pictures that enter one block later
                x = x * alpha if self.architecture == "skip" else self._fromrgb(r // 2)(image).lerp(x, alpha)
            kept = x if r == 2 * keep else kept
        score, embedding = self.b4(x, image)
        return score, embedding, kept

    def _fromrgb(self, resolution: int) -> Conv2d:
        return getattr(self, f"b{resolution}").fromrgb

    def project(self, score: Tensor, c: Tensor | None) -> Tensor:
        """Scores [B, 1 or cmap_dim] and condition → [B]."""
        if self.mapping is None:
            return score[:, 0]
        return (score * self.mapping(None, c)).sum(1) / math.sqrt(score.shape[1])


class Discriminator(Critic):
    """Picture and caption → Judgement; the embedding d(x) is compared with sentences.

    text "lafite": logit = f(x) + ⟨d(x), t⟩, per sample; "lafite_published": the product summed over the whole batch, of
    all processes, too, as LAFITE's code has it; "projection": the sentence stands for the class label.
    """

    def __init__(self, options: Options, dimensions: Dimensions):
        o, d = options, dimensions
        widths = channels(o.channel_base, o.channel_max, d.resolution, d.width)
        super().__init__(
            widths,
            c_dim=d.text if o.text == "projection" else 0,
            architecture=o.architecture,
            clamp=o.conv_clamp,
            text_dim=d.text,
            mbstd_group=o.mbstd_group,
            stages=d.stages,
        )
        self.text = o.text
        # What is optional comes last, so that all other weights start as they do without.
        check("discriminator.self_attention", o.self_attention, self.resolutions[1:])
        for r in o.self_attention:
            getattr(self, f"b{2 * r}").attend = SelfAttention(widths[r])
        self.region_size = min(REGIONS, d.resolution // 2) if d.regions else 0
        if d.regions:
            self.regions = Conv2d(widths[self.region_size], d.text, 1, act=False)
            self.words = FullyConnected(d.words, d.text)

    def forward(self, image: Tensor, text: Text, stage: Stage | None = None) -> Judgement:
        """image [B, 3, H, W] in [-1, 1] → logit [B], embedding [B, text_dim], both float32; where it was built with
        regions, and the stage has come so far, "regions" [B, text_dim, h, w] and "words" [B, L, text_dim] too."""
        score, embedding, x = self.examine(image, self.region_size, stage)
        assert embedding is not None
        judgement = Judgement(self.logit(score, embedding, text), embedding, {"score": score})
        if x is not None:
            judgement.extra |= {"regions": self.regions(x), "words": self.words(text.words)}
        return judgement

    def judge_again(self, seen: Judgement, text: Text) -> Tensor:
        """[B]; captions enter last."""
        return self.logit(seen.extra["score"], seen.embedding, text)

    def judge_alone(self) -> None:
        """A group of one for minibatch stddev."""
        self.b4.group = 1

    def logit(self, score: Tensor, embedding: Tensor, text: Text) -> Tensor:
        """[B] of pictures that have been looked at and any captions."""
        logit = self.project(score, text.sentence)
        if self.mapping is None:
            match = (embedding * text.sentence).sum(1)  # [B]
            logit = logit + (gather(match).sum() if self.text == "lafite_published" else match)
        return logit
