"""What every generator and every discriminator is to the rest of the pipeline.

A network is one file of generators/ or discriminators/ with a class of this kind and, beside it, a dataclass `Options`:
its own settings, with types, defaults and one comment each; `problems(resolution)`, which says what is wrong with them
as 'field=value: remedy'; and `GROWS`, whether it can start at a lower resolution than it ends at. What the pipeline may
ask of a network is here, with what holds where there is none; whatever else one has is its own affair.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from t2i.interfaces import Generated, Judgement, Latent, Stage, Text


@dataclass(frozen=True)
class Dimensions:
    """What a network is built for: decided by the run, not by its options."""

    resolution: int  # of the finished pictures
    text: int  # channels of Text.sentence
    words: int = 0  # channels of Text.words
    width: float = 1.0  # multiplies every channel count
    stages: tuple[int, ...] = ()  # the resolutions at which growth may stand, rising; () for a network that never grows
    regions: bool = False  # D: a loss compares words with regions of pictures


class Generator(nn.Module):
    """Latents and captions → pictures."""

    latent_dim: int
    takes_noise = False  # has noise inputs of its own, which `noise` decides
    # Where there is an intermediate space W between latent and picture: num_ws styles of w_dim numbers a picture.
    num_ws = 0
    w_dim = 0
    movable = False  # `moved` exists

    def latent(self, count: int, rng: Any) -> Latent:
        """[count] latents; while training, with whatever training mixes in. rng: randn(count, ...), rand, uniform."""
        return Latent(rng.randn(count, self.latent_dim))

    def forward(
        self,
        latent: Latent,
        text: Text,
        stage: Stage | None = None,
        *,
        truncation: float = 1.0,
        noise: Any = "const",
        track: bool = False,
    ) -> Generated:
        """Pictures at the stage's resolution; None: the finished ones.

        truncation: 1 = none, 0 = always the most typical. noise: "const" (stored), "random", None, or an object with
        randn(B, ...) that each layer asks. track: running means take the batch in, over all processes.
        """
        raise NotImplementedError

    def styles(self, latent: Latent, text: Text, truncation: Tensor | float = 1.0) -> Tensor:
        """ws [B, num_ws, w_dim]; where w_dim is above 0."""
        raise NotImplementedError

    def from_styles(self, ws: Tensor, text: Text, stage: Stage | None = None, noise: Any = "const") -> Generated:
        """Pictures of ws [B, num_ws, w_dim]; where w_dim is above 0. noise as in forward."""
        raise NotImplementedError

    def moved(self, matrix: Tensor) -> Any:
        """A context in which what is drawn is moved by matrix [3, 3] on coordinates of the picture; where `movable`."""
        raise NotImplementedError

    def watch(self) -> dict[str, Tensor]:
        """Numbers worth a curve, scalars by name. Most networks have none."""
        return {}


class Discriminator(nn.Module):
    """Pictures and captions → Judgement."""

    def forward(self, image: Tensor, text: Text, stage: Stage | None = None) -> Judgement:
        """image [B, 3, H, W] in [-1, 1] of the stage's resolution (None: the finished one)."""
        raise NotImplementedError

    def judge_again(self, seen: Judgement, text: Text) -> Tensor | None:
        """The logit of pictures it has judged, with other captions and without a second pass; None where it cannot."""
        return None

    def judge_alone(self) -> None:
        """From now on no picture's judgement depends on which others are judged beside it. Most networks are so."""

    def watch(self) -> dict[str, Tensor]:
        """Numbers worth a curve, scalars by name. Most networks have none."""
        return {}
