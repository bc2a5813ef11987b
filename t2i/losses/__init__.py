"""All losses, and a run's choice of them.

To add one, write a file here with a function from Views to a scalar, its options as keyword arguments, and name it in
the file's table LOSSES with what it needs; give it a weight in a configuration.
"""

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from t2i import schedule
from t2i.config import Config
from t2i.errors import UserError, closest
from t2i.objective import Loss, Term
from t2i.views import Views

FILES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
TABLE: dict[str, Loss] = {k: v for f in FILES for k, v in import_module(f"t2i.losses.{f}").LOSSES.items()}


def choose(network: Literal["discriminator", "generator"], config: Config) -> list[Term]:
    """The terms of one network's objective: the losses of the configuration that ever have weight and act on it.

    Raises UserError naming an unknown loss or option and the closest known one, or a value of the wrong kind.
    """
    terms = []
    for name, given in config.loss.items():
        if name not in TABLE:
            raise UserError(f"loss.{name}: no such loss; {closest(name, TABLE)}")
        loss = TABLE[name]
        allowed = _options(loss.discriminator) | _options(loss.generator)
        options = {k: v for k, v in given.items() if k not in ("weight", "every")}
        for option, value in options.items():
            if option not in allowed:
                raise UserError(f"loss.{name}.{option}: {closest(option, [*allowed, 'weight', 'every'])}")
            _check(f"loss.{name}.{option}", option, value, allowed[option])
        weight, function = given.get("weight", 1.0), getattr(loss, network)
        if function is not None and max(schedule.values(weight)) > 0:
            mine = {k: v.default for k, v in _parameters(function).items()}
            chosen = mine | {k: int(v) if allowed[k] is int else v for k, v in options.items() if k in mine}
            terms.append(Term(name, loss, function, weight, int(given.get("every", 1)), chosen))
    return terms


def _parameters(function: Callable[..., Tensor]) -> dict[str, inspect.Parameter]:
    """Option → parameter, of a loss function."""
    return dict(list(inspect.signature(function).parameters.items())[1:])


def _options(function: Callable[..., Tensor] | None) -> dict[str, Any]:
    """Option → type, of a loss function."""
    if function is None:
        return {}
    hints = get_type_hints(function)
    return {name: hints.get(name) for name in _parameters(function)}


def _check(field: str, option: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{field}={value}: {closest(str(value), get_args(kind))}")
    if kind is bool and not isinstance(value, bool):
        raise UserError(f"{field}={value}: true or false")
    if kind is int and not (isinstance(value, int | float) and not isinstance(value, bool) and value in range(10**9)):
        raise UserError(f"{field}={value}: a whole number, 0 or more")
    if kind is float and (problem := schedule.problem(value)):
        raise UserError(f"{field}={value}: {problem}")
    if option == "temperature" and min(schedule.values(value)) <= 0:
        raise UserError(f"{field}={value}: must be above 0")
    if option == "gamma" and min(schedule.values(value)) < 0:
        raise UserError(f"{field}={value}: must be 0 or more")


def due(terms: list[Term], step: int, kimg: float) -> list[Term]:
    """The terms that this step computes: lazy ones only on their steps, none while its weight is 0."""
    return [t for t in terms if step % t.every == 0 and schedule.at(t.weight, kimg) > 0]


def differentiated_inputs(terms: Iterable[Term]) -> set[str]:
    """What penalties differentiate by, as Loss.differentiated_inputs names it."""
    return {name for t in terms for name in t.differentiated_inputs}


def temperatures(terms: Iterable[Term]) -> nn.ParameterDict:
    """The logarithms of the temperatures that are learnt: with the discriminator's weights, by its optimiser alone."""
    learnt = {t.name: t.options["temperature"] for t in terms if t.options.get("learnable")}
    return nn.ParameterDict({name: torch.tensor(float(schedule.at(value, 0))).log() for name, value in learnt.items()})


def total(terms: list[Term], views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum to differentiate, and every term unweighted."""
    loss, values = views.text.sentence.new_zeros(()), {}
    for t in terms:
        weight, options = t.at(views.kimg)
        value = t.function(views, **options)
        loss = loss + weight * t.every * value
        values[t.name] = value.detach()
    return loss, values
