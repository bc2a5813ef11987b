"""StyleGAN2's discriminator (1912.04958, 2006.06676), conditioned on text as in LAFITE (2111.13792) or like a class.

Parameters have the published names; `Critic` knows nothing of the configuration, so published weights load into it.
Legend: B batch, C channels, H height, W width; pictures are nominally in [-1, 1].
"""

import math

from torch import Tensor, nn

from t2i import config
from t2i.interfaces import Judgement, Text
from t2i.nets.layers import ops
from t2i.nets.layers.attention import SelfAttention, check
from t2i.nets.layers.equalised import COLOURS, Conv2d, FullyConnected, Mapping, channels, minibatch_stddev

REGIONS = 16  # side of the map of regions that words are compared with (2101.04702, section 4.3)


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
