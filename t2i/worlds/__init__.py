"""Drawn worlds, one a file or folder here: captioned pictures without a download, and with the truth about each.

A world is a module with these two functions; its name is then known to make_shards --world. Adding a world is adding
a file here. It must not import torch, which the processes that draw would wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, cast

from PIL import Image

from t2i.errors import UserError, closest


class World(Protocol):
    """What a world's module offers; whatever else it knows (prompts, names) is between it and its judge."""

    def draw(
        self, seed: int, index: int, size: int, held_out: Sequence[Any], only_held_out: bool
    ) -> tuple[Image.Image, list[str], dict[str, Any]]:
        """Picture `index` of the world `seed`: RGB of side 2·size, the same everywhere and whatever else is drawn.

        held_out: what is never shown, or with only_held_out always. Returns the picture, its captions, and what is
        shown as plain JSON values ("attributes"), for judges alone.
        """
        ...

    def held_out(self, given: str, only: bool) -> dict[str, Any]:
        """What --held-out means here: name → an item of draw's held_out. "default" and "none" are always known.

        UserError for what cannot be held out, or, with only, drawn alone.
        """
        ...


@dataclass(frozen=True)
class Question:
    """What one picture is judged by: a prompt, what a right picture shows, and the plan of one that does."""

    prompt: str
    things: tuple[tuple[str | None, str], ...]  # (colour, object), one or two; None where any colour is right
    plan: dict[str, Any]
    count: int | None = None  # how many of its one object; None: any number
    side: str = ""  # "left" or "right": of the second object the first is there, or one alone in that half


def known() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def find(name: str) -> World:
    """The world of a name; UserError with the names there are."""
    if name not in known():
        raise UserError(f"--world {name}: no such world; {closest(name, known())}")
    return cast(World, import_module(f"{__name__}.{name}"))
