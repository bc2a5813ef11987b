"""The algorithms of the search: one a file with a class `Search` (see t2i/search/algorithm.py), found by its name.

Adding an algorithm is adding a file here; its name is then known to --search, and its first line to --help.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from t2i.errors import UserError, closest


def known() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))


def check(name: str) -> None:
    """UserError, with the names there are, where no algorithm has this one."""
    if name not in known():
        raise UserError(f"--search {name}: no such algorithm; {closest(name, known())}")


def find(name: str) -> Any:
    """The class of a named algorithm, a subclass of Algorithm."""
    check(name)
    return import_module(f"{__name__}.{name}").Search


def summaries() -> dict[str, str]:
    """The first line of each algorithm's file, without importing it."""
    sources = {name: (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8") for name in known()}
    return {name: (ast.get_docstring(ast.parse(text)) or "").split("\n")[0] for name, text in sources.items()}
