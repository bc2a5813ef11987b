"""What a loss file declares (`Loss`), and what a run makes of it (`Term`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from t2i import schedule
from t2i.schedule import Schedule


@dataclass(frozen=True)
class Loss:
    """A loss and what it needs. A file of t2i/losses exports its losses by name, in the dictionary LOSSES.

    discriminator, generator: the functions that are added to the objective of each network, None for neither. Such a
    function takes a Views and returns a scalar. Its keyword arguments are the options of the loss in a configuration;
    where one is a float, a configuration may give a schedule instead.
    """

    discriminator: Callable[..., Tensor] | None = None
    generator: Callable[..., Tensor] | None = None
    # The frozen networks whose features it uses, as files of t2i/encoders. "{x}" is the one that its option x names.
    frozen: tuple[str, ...] = ()
    captions: int = 1  # how many captions of each picture it needs: 1 or 2
    regions: bool = False  # whether it needs "regions" and "words" in Judgement.extra
    styles: bool = False  # whether it needs a generator with an intermediate latent space W
    # By which it takes gradients itself: "real pictures", "fake pictures", "real looks", "fake looks" (see
    # Discriminator.look), "sentence"; "{x}" is what its option x says.
    differentiated_inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Term:
    """One loss in the objective of one network, with its settings from the configuration."""

    name: str
    loss: Loss
    function: Callable[..., Tensor]
    weight: Schedule
    every: int  # computed on every n-th step only; its weight is then multiplied by n
    options: dict[str, Any]

    def at(self, kimg: float) -> tuple[float, dict[str, Any]]:
        """The weight and the options, schedules evaluated, after `kimg` thousand real pictures."""
        now = {k: schedule.at(v, kimg) if isinstance(v, list) else v for k, v in self.options.items()}
        return schedule.at(self.weight, kimg), now

    @property
    def differentiated_inputs(self) -> set[str]:
        """What it differentiates by itself."""
        return {name.format(**self.options) for name in self.loss.differentiated_inputs}

    @property
    def frozen(self) -> set[str]:
        """The frozen networks whose features it uses. An option may also name "d", the discriminator, which is none."""
        return {name.format(**self.options) for name in self.loss.frozen} - {"d"}
