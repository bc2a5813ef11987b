"""Rows of figures as text and as JSON."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """A header and a line a row. columns: key → format of its numbers, in order; the first is set to the left.

    What is no number stands as it is, and what a row lacks is left blank.
    """
    cells = [list(columns)] + [[_cell(row.get(key, ""), form) for key, form in columns.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["  ".join(f"{c:>{w}}" if i else f"{c:<{w}}" for i, (c, w) in enumerate(zip(r, widths))) for r in cells]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, form: str) -> str:
    return value if isinstance(value, str) else f"{value:{form}}"


def report(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], facts: Mapping[str, Any], file: Path | None
) -> None:
    """Prints what it was measured on and the table, and writes both as JSON: {"machine": ..., "rows": ...}."""
    from t2i.machine import machine  # here: it imports torch

    facts = {**machine(), **facts, "date": time.strftime("%Y-%m-%d")}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(table(rows, columns))
    if file:
        file.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2) + "\n")
