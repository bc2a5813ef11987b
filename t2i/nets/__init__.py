"""Networks by name: a file of generators/ has a Generator, a file of discriminators/ a Discriminator."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from t2i.errors import UserError, closest


def find(kind: str, name: str) -> ModuleType:
    """The module t2i/nets/<kind>/<name>.py; kind: "generators" or "discriminators"."""
    known = [p.stem for p in (Path(__file__).parent / kind).glob("*.py") if not p.stem.startswith("_")]
    if name not in known:
        raise UserError(f"{kind.removesuffix('s')}.name={name}: {closest(name, known)}")
    return import_module(f"t2i.nets.{kind}.{name}")
