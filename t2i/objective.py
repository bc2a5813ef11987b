"""What a loss is, what it needs, and what becomes of it in a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from t2i import schedule
from t2i.schedule import Schedule


@dataclass(frozen=True)
class Loss:
    """A loss by name, with all that it needs of others. A file of t2i/losses exports some as LOSSES.

    discriminator, generator: what it adds to either one's objective: a function from Views to a scalar, whose keyword
    arguments are its options. A float among these may be a schedule.
    """

    discriminator: Callable[..., Tensor] | None = None
    generator: Callable[..., Tensor] | None = None
    frozen: tuple[str, ...] = ()  # files of t2i/encoders that it looks through; "{code}": the one that option names
    captions: int = 1  # of each picture
    regions: bool = False  # the discriminator gives regions and words
    styles: bool = False  # the generator has an intermediate space W
    differentiated_inputs: tuple[str, ...] = ()  # of "real", "fake" and "sentence"


@dataclass(frozen=True)
class Term:
    """One loss of one network's objective."""

    name: str
    loss: Loss
    function: Callable[..., Tensor]
    weight: Schedule
    every: int  # steps between two uses; the weight is multiplied by it
    options: dict[str, Any]

    def at(self, kimg: float) -> tuple[float, dict[str, Any]]:
        """Weight and options after so many thousand pictures."""
        now = {k: schedule.at(v, kimg) if isinstance(v, list) else v for k, v in self.options.items()}
        return schedule.at(self.weight, kimg), now

    @property
    def frozen(self) -> set[str]:
        """The frozen networks that it looks through; "d" is the discriminator."""
        return {name.format(**self.options) for name in self.loss.frozen} - {"d"}
