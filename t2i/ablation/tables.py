"""The CSV files of an ablation, a line a row and a line a run; and the settings in which rows differ."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from t2i.ablation.results import Outcome
from t2i.ablation.summary import Column, Summary
from t2i.ablation.trials import Ablation, flat


def rows_csv(summaries: Sequence[Summary], columns: Sequence[Column]) -> str:
    """A line a row: costs, and of every score mean, spread, number of seeds and difference to the base."""
    figures = [f"{c.name} {what}" for c in columns for what in ("mean", "spread", "seeds", "difference", "mark")]
    lines: list[list[Any]] = [
        ["row", "overrides", "finished", "failed", "seconds_per_kimg", "ratio", "memory_gb", *figures]
    ]
    for s in summaries:
        costs = [_short(v) for v in (s.seconds_per_kimg, s.ratio, s.memory_gb)]
        line: list[Any] = [s.row.name, " ".join(s.row.own), s.seeds, s.failed, *costs]
        for cell in s.cells:
            if cell is None:
                line += ["", "", 0, "", ""]
            else:
                line += [cell.mean, cell.spread, len(cell.values), cell.difference, cell.mark]
        lines.append(line)
    return _csv(lines)


def runs_csv(outcomes: Sequence[Outcome], columns: Sequence[Column]) -> str:
    """A line a run."""
    lines: list[list[Any]] = [
        ["row", "seed", "state", "kimg", "seconds_per_kimg", "memory_gb", *[c.name for c in columns], "error"]
    ]
    for o in outcomes:
        costs = [_short(o.seconds_per_kimg), _short(o.memory_gb)]
        figures = [o.scores.get(c.name) for c in columns]
        lines.append([o.trial.row.name, o.trial.seed, o.state, o.kimg, *costs, *figures, (o.error or [""])[-1]])
    return _csv(lines)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _csv(lines: list[list[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def settings_table(a: Ablation) -> dict[str, Any]:
    """The settings in which rows differ: a line a row, with whether it is the base's value."""
    first = a.seeds[0]
    every = [flat(dataclasses.asdict(t.settings), ".") for t in a.trials if t.seed == first]
    keys = [k for k in dict.fromkeys(k for one in every for k in one) if k != "name"]
    keys = [k for k in keys if len({repr(one.get(k)) for one in every}) > 1]
    lines = [[(one.get(k, "–"), one.get(k) == every[0].get(k)) for k in keys] for one in every]
    return {"keys": keys, "lines": lines}
