"""Scores side by side, but only those that may be compared."""

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.errors import UserError, closest
from t2i.metrics.metric import owner
from t2i.metrics.protocol import differences

FORMAT = 2
REMEDY = "score both by one protocol, or add --force to see them all the same"


@dataclass(frozen=True)
class Comparison:
    """Several files' scores, one of which may be marked as the best of each kind."""

    names: list[str]  # of the files, as short as they can be told apart by
    results: list[dict[str, Any]]  # as score.py wrote them
    scores: list[str]  # that any of them has, or that were asked for
    differences: dict[str, list[Any]]  # fields of the protocol that forbid comparing, forced all the same

    def values(self, score: str) -> list[float | None]:
        return [r["scores"].get(score) for r in self.results]

    def interval(self, number: int, score: str) -> tuple[float, float] | None:
        return self.results[number].get("intervals", {}).get(score)

    def best(self, score: str) -> int | None:
        """The number of the one whose 95 % interval lies apart from, and on the better side of, all others'.

        None where intervals meet or lack, where one has no rival, and where no way is better.
        """
        way, held = better(score), [self.interval(n, score) for n, v in enumerate(self.values(score)) if v is not None]
        if not way or len(held) < 2 or None in held or self.differences:
            return None
        ends = [h for h in held if h is not None]
        if way == "lower":
            ends = [(-high, -low) for low, high in ends]
        first = max(range(len(ends)), key=lambda i: ends[i][0])
        if any(high >= ends[first][0] for i, (_, high) in enumerate(ends) if i != first):
            return None
        return [n for n, v in enumerate(self.values(score)) if v is not None][first]


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


def gather(
    paths: Sequence[str | Path], force: bool = False, only: Sequence[str] | None = None, free: Collection[str] = ()
) -> Comparison:
    """The files' scores. UserError naming the fields where their protocols differ, unless `force`.

    only: names of scores, or of metrics (without a score of that name) for all of theirs; None: all scores. free:
    fields that may differ, as the ψ of a curve.
    """
    if len(paths) < 2:
        raise UserError("--compare: give two files or more")
    results = [read(p) for p in paths]
    different = {field: values for field, values in differences(results).items() if field not in free}
    if different and not force:
        raise UserError(f"--compare: not comparable; {'; '.join(_told(different))}; {REMEDY}")
    scores = list(dict.fromkeys(s for r in results for s in r["scores"]))
    if only is not None:
        owners = {score: metric.name for score in scores if (metric := owner(score))}
        for name in only:
            if name not in scores and name not in owners.values():
                known = [*scores, *owners.values()]
                raise UserError(f"--metrics {name}: no such score in these files; {closest(name, set(known))}")
        wanted = {s for name in only for s in scores if s == name or (name not in scores and owners.get(s) == name)}
        scores = [s for s in scores if s in wanted]
    return Comparison(short_names(paths), results, scores, different)


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """Their stems, and as many of their folders as it takes to tell them apart; numbers where that is not enough."""
    parts = [Path(os.path.abspath(p)).with_suffix("").parts for p in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{p[-1]} ({n})" for n, p in enumerate(parts, 1)]


def text(c: Comparison) -> str:
    """For the terminal: a line a score, a column a file; * marks the best where the intervals allow it."""
    lines = [f"NOT COMPARABLE in {line}" for line in _told(c.differences)]
    lines += [f"{n}: {subject_line(r)}" for n, r in zip(c.names, c.results)]
    width = max(18, *(len(n) + 2 for n in c.names))
    lines.append(f"{'':<30}" + "".join(f"{n:>{width}}" for n in c.names) + "   better")
    for score in c.scores:
        best = c.best(score)
        numbers = [_number(v) + "*" * (n == best) for n, v in enumerate(c.values(score))]
        lines.append(f"{score:<30}{''.join(f'{cell:>{width}}' for cell in numbers)}   {better(score)}")
        if any(score in r.get("intervals", {}) for r in c.results):
            lines.append(f"{'':<30}" + "".join(f"{_margin(r, score):>{width}}" for r in c.results))
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


def _told(different: dict[str, list[Any]]) -> list[str]:
    return [f"{field}: {', '.join(map(str, values))}" for field, values in different.items()]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if abs(value) < 100 else f"{value:.5g}"


def _margin(result: dict[str, Any], score: str) -> str:
    interval = result.get("intervals", {}).get(score)
    return f"{_number(interval[0])}…{_number(interval[1])}" if interval else ""
