"""The interface of generators and discriminators: everything that the rest of the pipeline may ask of a network.

To add a network, write a file in generators/ or discriminators/ that defines two classes:

- `Generator` or `Discriminator`, a subclass of the one here. The pipeline builds it as Generator(options, dimensions).
- `Options`, a dataclass of the network's own settings. Each field has a type, a default and a comment that explains it.
  Its method `problems(resolution)` returns a list of what is wrong with the values, each as 'field=value: remedy'. Its
  class variable `GROWS` says whether training can start at a lower resolution than `model.resolution`.

A generator must define `latent_dim` and `forward`, a discriminator `forward`. Everything else is optional: the defaults
here are those of a network without the feature.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from t2i.interfaces import Generated, Judgement, Latent, Stage, Text


@dataclass(frozen=True)
class Dimensions:
    """The sizes that a network must have in a run. They come from the rest of the configuration, not from `Options`."""

    resolution: int  # of the pictures at the end of training
    text: int  # channels of Text.sentence
    words: int = 0  # channels of Text.words
    width: float = 1.0  # multiplies every channel count
    stages: tuple[int, ...] = ()  # the resolutions of progressive growing, from low to high; (): no growing
    # For discriminators: a loss compares words with regions of the picture and needs both in Judgement.extra.
    regions: bool = False


class Generator(nn.Module):
    """Draws pictures from latents and captions."""

    latent_dim: int  # channels of Latent.z
    takes_noise = False  # whether layers add noise, controlled by the argument `noise`
    # The intermediate latent space W of a StyleGAN: num_ws vectors of w_dim numbers a picture. 0: there is none.
    num_ws = 0
    w_dim = 0
    movable = False  # whether `moved` is implemented, which the metrics EQ-T and EQ-R need

    def latent(self, count: int, rng: Any) -> Latent:
        """Draws `count` latents. In training mode they may be drawn differently, for example for style mixing.

        rng: the source of all randomness: randn(count, ...) and rand(count, ...), in training mode uniform() too.
        """
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
        """Draws pictures [B, 3, H, W], nominally in [-1, 1].

        stage: the state of progressive growing, whose resolution the pictures have; None: the final one.
        truncation: 1 leaves the latents as they are; towards 0 pictures become more typical and less varied.
        noise: for layers that add noise: "const" (the same for every picture), "random", None (no noise), or a random
        generator with a method randn(B, ...) that every such layer calls.
        track: update running statistics with this batch, averaged over all processes.
        """
        raise NotImplementedError

    def styles(self, latent: Latent, text: Text, truncation: Tensor | float = 1.0) -> Tensor:
        """Maps latents to W: ws [B, num_ws, w_dim]. Required if w_dim > 0.

        truncation: a number as in forward, or a tensor [B, 1, 1] with one for each picture.
        """
        raise NotImplementedError

    def from_styles(self, ws: Tensor, text: Text, stage: Stage | None = None, noise: Any = "const") -> Generated:
        """Draws pictures from ws [B, num_ws, w_dim]; stage and noise as in forward. Required if w_dim > 0."""
        raise NotImplementedError

    def moved(self, matrix: Tensor) -> Any:
        """A context manager inside which pictures are drawn translated or rotated. Required if `movable`.

        Inside, the network's input at point p is what it otherwise is at matrix·p. matrix [3, 3] acts on homogeneous
        coordinates whose origin is the centre of the picture and whose unit is its side.
        """
        raise NotImplementedError

    def watch(self) -> dict[str, Tensor]:
        """Scalars to log as curves in TensorBoard, by name."""
        return {}


class Discriminator(nn.Module):
    """Judges whether pictures are real and match their captions."""

    def look(self, image: Tensor, stage: Stage | None = None) -> Tensor:
        """What of the pictures [B, 3, H, W], nominally in [-1, 1], is judged: they themselves, or [B, N] what a frozen
        trunk sees in them. Nothing that learns has a part in it, so one look serves several judgements."""
        return image

    def forward(self, image: Tensor, text: Text, stage: Stage | None = None) -> Judgement:
        """Judges image [B, 3, H, W], nominally in [-1, 1], which has the resolution of the stage (None: the final); or
        what `look` returned for it."""
        raise NotImplementedError

    def judge_again(self, seen: Judgement, text: Text) -> Tensor | None:
        """The logits of pictures that were judged before, with other captions, without a second pass over the
        pictures. None if the network cannot; the pipeline then makes the second pass."""
        return None

    def judge_alone(self) -> None:
        """Switches off what makes a judgement depend on the rest of the batch, such as minibatch standard deviation."""

    def watch(self) -> dict[str, Tensor]:
        """Scalars to log as curves in TensorBoard, by name."""
        return {}
