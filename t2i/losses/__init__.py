"""The two tables of losses. A loss is a function from Views to a scalar; its keyword arguments are its options.

To add one: write the function, name it here, give it a weight in a configuration.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from t2i.errors import UserError, closest
from t2i.losses import adversarial, contrastive, regularization
from t2i.views import Views

DISCRIMINATOR: dict[str, Callable[..., Tensor]] = {
    "adversarial": adversarial.discriminator,
    "r1": regularization.r1,
    "img_txt_d": contrastive.img_txt_d_real,
}
GENERATOR: dict[str, Callable[..., Tensor]] = {
    "adversarial": adversarial.generator,
    "path_length": regularization.path_length,
    "img_txt_d": contrastive.img_txt_d_fake,
    "img_txt_clip": contrastive.img_txt_clip,
}


@dataclass(frozen=True)
class Term:
    """One loss of a run."""

    name: str
    function: Callable[..., Tensor]
    weight: float
    every: int  # steps between two uses; the weight is multiplied by it
    options: dict[str, Any]


def choose(table: dict[str, Callable[..., Tensor]], config: dict[str, dict[str, Any]]) -> list[Term]:
    """The terms of one network's objective: those of the configuration that have a weight and stand in its table.

    Raises UserError naming an unknown loss or option and the closest known one.
    """
    terms = []
    for name, given in config.items():
        known = DISCRIMINATOR.keys() | GENERATOR.keys()
        if name not in known:
            raise UserError(f"loss.{name}: no such loss; {closest(name, known)}")
        options = {k: v for k, v in given.items() if k not in ("weight", "every")}
        for function in (DISCRIMINATOR.get(name), GENERATOR.get(name)):
            allowed = list(inspect.signature(function).parameters)[1:] if function else options
            for option in options:
                if option not in allowed:
                    raise UserError(f"loss.{name}.{option}: {closest(option, [*allowed, 'weight', 'every'])}")
        weight, every = float(given.get("weight", 1.0)), int(given.get("every", 1))
        if name in table and weight > 0:
            terms.append(Term(name, table[name], weight, every, options))
    return terms


def due(terms: list[Term], step: int) -> list[Term]:
    """The terms that this step computes: lazy ones only on their steps."""
    return [t for t in terms if step % t.every == 0]


def total(terms: list[Term], views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum to differentiate, and every term unweighted."""
    values = {t.name: t.function(views, **t.options) for t in terms}
    loss = sum((t.weight * t.every * values[t.name] for t in terms), start=views.text.sentence.new_zeros(()))
    return loss, {name: value.detach() for name, value in values.items()}
