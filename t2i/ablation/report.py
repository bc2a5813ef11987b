"""The page and the tables of an ablation: one HTML file that needs nothing else and no script, and two CSV files.

Numbers first: what a row costs, its scores as mean ± spread over the seeds, and whether it differs from the first row,
the base, by more than that spread. Then failures, pictures, curves, settings and how it all was made.
"""

import csv
import dataclasses
import io
import math
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

import t2i
from t2i.ablation.chart import COLOURS, curves, number
from t2i.ablation.pictures import real_pictures, side_by_side
from t2i.ablation.plan import Ablation, Row, flat
from t2i.ablation.results import Outcome, outcome
from t2i.machine import machine

TEMPLATES = Path(t2i.__file__).parent / "assets"


class Page:
    """An ablation's report; `write` reads the runs' folders and writes it anew."""

    def __init__(self, a: Ablation, command: str):
        self.a, self.command = a, command
        self.html = a.folder / "report.html"
        self.real = real_pictures(a)
        self.machine = machine()
        jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )  # fmt: skip
        self.template = jinja.get_template("ablation.html")

    def write(self, states: dict[str, str]) -> list[Outcome]:
        """states: what runs that are neither finished nor failed are doing, by name. Returns what all runs came to."""
        outcomes = [outcome(self.a, t, states.get(t.name, "")) for t in self.a.trials]
        columns = judged_columns(self.a, outcomes)
        summaries = summarise(self.a, outcomes, columns)
        page = self.template.render(
            a=self.a,
            seeds=sorted({o.trial.seed for o in outcomes}),
            command=self.command,
            machine=self.machine,
            date=time.strftime("%Y-%m-%d %H:%M"),
            outcomes=outcomes,
            done=sum(o.state == "finished" for o in outcomes),
            failed=[o for o in outcomes if o.state == "failed"],
            running=bool(states),
            columns=columns,
            rows=summaries,
            verdicts=[verdict(c, k, summaries) for k, c in enumerate(columns) if c.better][:6],
            side=side_by_side(self.a, outcomes, self.real),
            curves=curves(self.a, outcomes),
            settings=settings_table(self.a),
            yaml=self.a.path.read_text(encoding="utf-8"),
            number=number,
        )
        _replace(self.html, page)
        _replace(self.a.folder / "report.csv", rows_csv(summaries, columns))
        _replace(self.a.folder / "runs.csv", runs_csv(outcomes, columns))
        return outcomes


def _replace(path: Path, text: str) -> None:
    """Whoever reads the file meanwhile sees the old or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


# ---- numbers


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


# ---- settings


def settings_table(a: Ablation) -> dict[str, Any]:
    """The settings in which rows differ: a line a row, with whether it is the base's value."""
    first = a.seeds[0]
    every = [flat(dataclasses.asdict(t.settings), ".") for t in a.trials if t.seed == first]
    keys = [k for k in dict.fromkeys(k for one in every for k in one) if k != "name"]
    keys = [k for k in keys if len({repr(one.get(k)) for one in every}) > 1]
    lines = [[(one.get(k, "–"), one.get(k) == every[0].get(k)) for k in keys] for one in every]
    return {"keys": keys, "lines": lines}
