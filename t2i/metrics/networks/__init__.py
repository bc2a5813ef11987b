"""What looks at pictures: from pictures to features, apart from the mathematics of any metric. One file a network.

Such a file has
    SETTINGS                    what a user may say about it, by name: options of score.py, keys of eval.networks
    missing(settings)           why it cannot be had and where it is usually found, in one line; None where it can be
    load(settings, device)      the Network; called only where it is not missing. UserError for damaged weights
and imports what is heavy inside its functions, since score.py --help lists the settings of every file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from t2i.errors import UserError, closest
from t2i.options import flag


@dataclass(frozen=True)
class Setting:
    """Something a user may say about a network."""

    metavar: str
    help: str
    default: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """What decides which networks judge. `settings["vgg"]` is what the user said, or the default."""

    given: Mapping[str, str | None] = field(default_factory=dict)
    scenes: bool = False  # real pictures are drawn scenes, which bring judges of their own
    seed: int = 0  # of patches
    spell: Callable[[str], str] = (
        flag  # a setting's name as the user writes it: --lpips-alex, or eval.networks.lpips_alex
    )

    def __getitem__(self, name: str) -> str | None:
        return self.given.get(name) or declared()[name].default


@dataclass(frozen=True)
class Network:
    """A network that looks at pictures, and perhaps reads their captions, for metrics."""

    see: Callable[[Any, Sequence[int]], dict[str, Any]]  # [N, 3, H, W] in [-1, 1], their numbers → {name: [N, ...]}
    fingerprint: str  # of its weights, so that two scores can tell whether they saw through the same eyes
    itself: Any = None  # for metrics that ask more of it than features
    read: Callable[[Sequence[str]], dict[str, Any]] = lambda captions: {}  # N captions → {name: [N, ...]}
    most: float = float("inf")  # pictures of a set that it looks at
    title: str = ""
    used_in_training: Callable[[Any], bool] = lambda model: False  # of a t2i.model.Model


def known() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


@cache
def declared() -> dict[str, Setting]:
    """Every setting of every network."""
    return {name: setting for network in known() for name, setting in _file(network).SETTINGS.items()}


def check(given: Mapping[str, str | None], spell: Callable[[str], str] = flag) -> None:
    """UserError for a setting that no network has, or a value it does not take."""
    for name, value in given.items():
        if name not in declared():
            raise UserError(f"{spell(name)}: no such setting; {closest(name, declared())}")
        if value and (choices := declared()[name].choices) and value not in choices:
            raise UserError(f"{spell(name)} {value}: {closest(value, choices)}")


def missing(name: str, settings: Settings) -> str | None:
    """Why a network cannot be had, in one line; None where it can. Fetches and loads nothing."""
    return _file(name).missing(settings)


def load(name: str, settings: Settings, device: Any) -> Network:
    """A network by its name. UserError where its weights are missing or damaged."""
    if reason := missing(name, settings):
        raise UserError(reason)
    return _file(name).load(settings, device)


def _file(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
