"""The two tables of losses. A loss is a function from Views to a scalar; its keyword arguments are its options.

To add one: write the function, name it here, give it a weight in a configuration.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from t2i.errors import UserError, closest
from t2i.losses import adversarial, contrastive, guidance, regularization, words
from t2i.views import Views

DISCRIMINATOR: dict[str, Callable[..., Tensor]] = {
    "adversarial": adversarial.discriminator,
    "matching": adversarial.matching,
    "r1": regularization.r1,
    "r2": regularization.r2,
    "gradient_penalty": regularization.gradient_penalty,
    "ma_gp": regularization.ma_gp,
    "img_txt_d": contrastive.img_txt_d_real,
    "word_region": words.word_region_real,
}
GENERATOR: dict[str, Callable[..., Tensor]] = {
    "adversarial": adversarial.generator,
    "path_length": regularization.path_length,
    "mode_seeking": regularization.mode_seeking,
    "img_txt_d": contrastive.img_txt_d_fake,
    "img_txt_clip": contrastive.img_txt_clip,
    "img_img_d": contrastive.img_img_d,
    "img_img_vgg": contrastive.img_img_vgg,
    "img_img_clip": contrastive.img_img_clip,
    "fake_fake": contrastive.fake_fake,
    "word_region": words.word_region_fake,
    "clip_spherical": guidance.clip_spherical,
    "clip_cosine": guidance.clip_cosine,
    "lpips": guidance.lpips,
}
# Frozen networks that a loss looks through, loaded when it has weight; the option `code`, where there is one, decides.
THROUGH = {
    "img_txt_clip": "clip", "img_img_clip": "clip", "fake_fake": "clip", "clip_spherical": "clip",
    "clip_cosine": "clip", "img_img_vgg": "vgg", "lpips": "vgg",
}  # fmt: skip
# What a penalty differentiates by, before it is known to the networks.
BY = {"r1": ("real",), "r2": ("fake",), "ma_gp": ("real", "sentence")}


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

    Raises UserError naming an unknown loss or option and the closest known one, or a value of the wrong kind.
    """
    terms = []
    for name, given in config.items():
        known = DISCRIMINATOR.keys() | GENERATOR.keys()
        if name not in known:
            raise UserError(f"loss.{name}: no such loss; {closest(name, known)}")
        options = {k: v for k, v in given.items() if k not in ("weight", "every")}
        allowed = _options(DISCRIMINATOR.get(name)) | _options(GENERATOR.get(name))
        for option, value in options.items():
            if option not in allowed:
                raise UserError(f"loss.{name}.{option}: {closest(option, [*allowed, 'weight', 'every'])}")
            _check(f"loss.{name}.{option}", option, value, allowed[option])
        weight, every = float(given.get("weight", 1.0)), int(given.get("every", 1))
        if name in table and weight > 0:
            mine = _options(table[name])
            terms.append(Term(name, table[name], weight, every, {k: v for k, v in options.items() if k in mine}))
    return terms


def _options(function: Callable[..., Tensor] | None) -> dict[str, Any]:
    """Option → type, of a loss function."""
    if function is None:
        return {}
    hints = get_type_hints(function)
    return {name: hints.get(name) for name in list(inspect.signature(function).parameters)[1:]}


def _check(field: str, option: str, value: Any, kind: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise UserError(f"{field}={value}: {closest(str(value), get_args(kind))}")
    if kind is bool and not isinstance(value, bool):
        raise UserError(f"{field}={value}: true or false")
    if kind is int and not (number and value == int(value) and value >= 0):
        raise UserError(f"{field}={value}: a whole number, 0 or more")
    if kind is float and not number:
        raise UserError(f"{field}={value}: a number")
    if option == "temperature" and value <= 0:
        raise UserError(f"{field}={value}: must be above 0")


def due(terms: list[Term], step: int) -> list[Term]:
    """The terms that this step computes: lazy ones only on their steps."""
    return [t for t in terms if step % t.every == 0]


def through(terms: list[Term]) -> set[str]:
    """The frozen networks that the terms look through, "clip" and "vgg"."""
    return {t.options.get("code", THROUGH[t.name]) for t in terms if t.name in THROUGH}


def leaves(terms: list[Term]) -> set[str]:
    """The inputs that penalties differentiate by, "real", "fake" and "sentence"."""
    return {name for t in terms for name in BY.get(t.name, ())}


def temperatures(terms: list[Term]) -> nn.ParameterDict:
    """The logarithms of the temperatures that are learnt, for the discriminator to hold: its optimiser trains them,
    its checkpoint keeps them, and the generator's update, in which it is frozen, cannot move them."""
    default = lambda t: inspect.signature(t.function).parameters["temperature"].default
    learnt = {t.name: t.options.get("temperature", default(t)) for t in terms if t.options.get("learnable")}
    return nn.ParameterDict({name: torch.tensor(float(value)).log() for name, value in learnt.items()})


def total(terms: list[Term], views: Views) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum to differentiate, and every term unweighted."""
    values = {t.name: t.function(views, **t.options) for t in terms}
    loss = sum((t.weight * t.every * values[t.name] for t in terms), start=views.text.sentence.new_zeros(()))
    return loss, {name: value.detach() for name, value in values.items()}
