"""Scores side by side, but only those that may be compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.errors import UserError
from t2i.metrics.metric import owner
from t2i.metrics.protocol import differences

FORMAT = 2
REMEDY = "score both by one protocol, or add --force to see them all the same"


def read(path: str | Path) -> dict[str, Any]:
    """A file that score.py wrote. UserError for any other."""
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"))
        if whole["format"] != FORMAT or not isinstance(whole["scores"], dict):
            raise KeyError("format")
        _ = whole["protocol"], whole["subject"]
        return whole
    except OSError as error:
        raise UserError(f"--compare {path}: {error.strerror}; give files that score.py wrote") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--compare {path}: not a file that this score.py wrote; make it again") from None


def compare(paths: Sequence[str | Path], force: bool = False) -> str:
    """A table of all files' scores. UserError naming the fields where their protocols differ, unless `force`."""
    if len(paths) < 2:
        raise UserError("--compare: give two files or more")
    results = [read(p) for p in paths]
    names = [Path(p).stem for p in paths]
    different = differences(results)
    told = [f"{field}: {', '.join(map(str, values))}" for field, values in different.items()]
    if different and not force:
        raise UserError(f"--compare: not comparable; {'; '.join(told)}; {REMEDY}")
    lines = [f"NOT COMPARABLE in {line}" for line in told]
    lines += [f"{n}: {subject_line(r)}" for n, r in zip(names, results)]
    width = max(18, *(len(n) + 2 for n in names))
    scores = list(dict.fromkeys(s for r in results for s in r["scores"]))
    lines.append(f"{'':<30}" + "".join(f"{n:>{width}}" for n in names) + "   better")
    for score in scores:
        cells = "".join(f"{_number(r['scores'].get(score)):>{width}}" for r in results)
        lines.append(f"{score:<30}{cells}   {better(score)}")
        if any(score in r.get("intervals", {}) for r in results):
            cells = "".join(f"{_margin(r, score):>{width}}" for r in results)
            lines.append(f"{'':<30}{cells}")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """One file's scores for the terminal, with their 95 % intervals."""
    lines = [f"{'score':<30}{'value':>12}{'95 % interval':>24}   better"]
    for name, value in result["scores"].items():
        interval = result["intervals"].get(name)
        shown = f"{_number(interval[0])} … {_number(interval[1])}" if interval else ""
        lines.append(f"{name:<30}{_number(value):>12}{shown:>24}   {better(name)}")
    return "\n".join(lines)


def better(score: str) -> str:
    """Which way a score is better; nothing for what is only told beside one."""
    metric = owner(score)
    return metric.better(score) if metric else ""


def subject_line(result: dict[str, Any]) -> str:
    """What was scored."""
    s, p = result["subject"], result["protocol"]
    trained = f" ({s['kimg']:g} kimg)" if s.get("kimg") is not None else ""
    size = f"{p['resolution']}×{p['resolution']}"
    return f"{s.get('model') or s.get('pictures')}{trained}, {p['samples']} pictures of {size}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.5g}"


def _margin(result: dict[str, Any], score: str) -> str:
    interval = result.get("intervals", {}).get(score)
    return f"{_number(interval[0])}…{_number(interval[1])}" if interval else ""
