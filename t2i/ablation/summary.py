"""Rows over their seeds: their costs, scores as mean ± spread, and differences from the first row, the base."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from t2i.ablation.results import Outcome
from t2i.ablation.trials import Ablation, Row

# Of rows, in order, legible on white and on black; where they end, the last for all.
COLOURS = (
    "currentColor", "#4e79a7", "#f28e2b", "#e15759", "#3fa7a0", "#59a14f", "#c9a227", "#b07aa1", "#e377a2", "#9c755f",
    "#6a6ee0", "#94a324", "#0f9bd7", "#8c8c8c",
)  # fmt: skip


@dataclass
class Column:
    """One score of the table."""

    score: str
    key: str
    better: int  # 1: more is better, -1: less is, 0: not said
    low: float  # over all runs
    high: float

    @property
    def name(self) -> str:
        return f"{self.score} {self.key}"

    @property
    def digits(self) -> int:
        """Behind the point, so that about three figures show."""
        most = max(abs(self.low), abs(self.high), 1e-9)
        return max(2 - math.floor(math.log10(most)), 0) if most >= 0.1 else 4


@dataclass
class Cell:
    """A score of a row."""

    mean: float
    spread: float | None  # sample standard deviation over the seeds; None for one seed
    values: list[float]  # one a seed
    difference: float | None = None  # to the base, over the seeds that both have
    mark: str = ""  # better, worse or differs: by more than the spreads; within: by less; "": one seed cannot tell
    best: bool = False


@dataclass
class Summary:
    """A row over its seeds."""

    row: Row
    colour: str
    seeds: int  # finished
    wanted: int
    failed: int
    seconds_per_kimg: float | None
    ratio: float | None  # of that to the base's
    memory_gb: float | None
    cells: list[Cell | None]  # one a column


def judged_columns(a: Ablation, outcomes: Sequence[Outcome]) -> list[Column]:
    columns = []
    for score in a.scores:
        found = {k.removeprefix(f"{score.name} ") for o in outcomes for k in o.scores if k.startswith(f"{score.name} ")}
        for key in score.keys or sorted(found):
            values = [o.scores[n] for o in outcomes if (n := f"{score.name} {key}") in o.scores]
            better = 1 if key in score.higher else -1 if key in score.lower else 0
            columns.append(Column(score.name, key, better, min(values, default=0.0), max(values, default=0.0)))
    return columns


def summarise(a: Ablation, outcomes: Sequence[Outcome], columns: Sequence[Column]) -> list[Summary]:
    """A summary a row; the first row is the base."""
    out: list[Summary] = []
    first = [o for o in outcomes if o.trial.row is a.rows[0]]
    for i, row in enumerate(a.rows):
        mine = [o for o in outcomes if o.trial.row is row]
        whole = [o for o in mine if o.state == "finished"]  # what a few steps cost would mislead
        seconds = _median([o.seconds_per_kimg for o in whole])
        base_seconds = out[0].seconds_per_kimg if out else seconds
        out.append(
            Summary(
                row=row,
                colour=COLOURS[min(i, len(COLOURS) - 1)],
                seeds=len(whole),
                wanted=len(mine),
                failed=sum(o.state == "failed" for o in mine),
                seconds_per_kimg=seconds,
                ratio=seconds / base_seconds if seconds and base_seconds else None,
                memory_gb=max((o.memory_gb for o in whole if o.memory_gb), default=None),
                cells=[compare(by_seed(mine, c), by_seed(first, c) if i else {}, c.better) for c in columns],
            )
        )
    for k, column in enumerate(columns):
        cells = [cell for s in out if (cell := s.cells[k])]
        if column.better and len(cells) > 1:
            best = max(cell.mean * column.better for cell in cells)
            for cell in cells:
                cell.best = cell.mean * column.better == best
    return out


def by_seed(outcomes: Sequence[Outcome], column: Column) -> dict[int, float]:
    return {o.trial.seed: o.scores[column.name] for o in outcomes if column.name in o.scores}


def compare(mine: dict[int, float], base: dict[int, float], better: int) -> Cell | None:
    """A row's values by seed against the base's.

    The difference is one of means over the seeds that both have. It is marked when it is larger than either's spread
    (sample standard deviation over the seeds). That is no test of significance: three seeds do not make one.
    """
    if not mine:
        return None
    values = list(mine.values())
    cell = Cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, values)
    both = [s for s in mine if s in base]
    if not both:
        return cell
    a, b = [mine[s] for s in both], [base[s] for s in both]
    cell.difference = statistics.fmean(a) - statistics.fmean(b)
    if len(both) > 1:
        if abs(cell.difference) <= max(statistics.stdev(a), statistics.stdev(b)):
            cell.mark = "within"
        elif not better:
            cell.mark = "differs"
        else:
            cell.mark = "better" if cell.difference * better > 0 else "worse"
    return cell


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def verdict(column: Column, place: int, summaries: Sequence[Summary]) -> dict[str, Any]:
    """The rows by what they did to a score, the largest difference first."""
    others = [(s, cell) for s in summaries[1:] if (cell := s.cells[place]) and cell.difference is not None]
    others.sort(key=lambda pair: -abs(pair[1].difference or 0))
    groups = {mark: [pair for pair in others if pair[1].mark == mark] for mark in ("better", "worse", "within", "")}
    return {"column": column, "groups": groups}


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """With a true minus, and without -0; in powers of ten where it would be too long."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{f'{digits}f' if abs(value) < 1e6 else '3e'}}".replace("e+0", "e")
    if float(text) == 0:
        text = ("±" if sign else "") + text.lstrip("+-")
    return text.replace("-", "−")
