"""Networks by name: a file of generators/ has a Generator, a file of discriminators/ a Discriminator."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from t2i.errors import UserError, closest


def find(kind: str, name: str) -> ModuleType:
    """The module t2i/nets/<kind>/<name>.py; kind: "generators" or "discriminators"."""
    known = [p.stem for p in (Path(__file__).parent / kind).glob("*.py") if not p.stem.startswith("_")]
    if name not in known:
        raise UserError(f"{kind.removesuffix('s')}.name={name}: {closest(name, known)}")
    return import_module(f"t2i.nets.{kind}.{name}")


def shared(kind: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Of options that were given for another network those that this one has too."""
    if given.get("name", name) == name:
        return given
    known = {field.name for field in fields(find(kind, name).Options)}
    return {key: value for key, value in given.items() if key in known}
