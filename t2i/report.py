"""The page and the tables of an ablation: one HTML file that needs nothing else and no script, and two CSV files.

Numbers first: what a row costs, its scores as mean ± spread over the seeds, and whether it differs from the first row,
the base, by more than that spread. Then failures, pictures, curves, settings and how it all was made.
"""

import base64
import csv
import dataclasses
import io
import json
import math
import os
import platform
import re
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup, escape
from PIL import Image

import t2i
from t2i.ablation import Ablation, Outcome, Row, flat, outcome
from t2i.data.loader import BadSample, Samples
from t2i.errors import UserError

# Of rows, in order, legible on white and on black; where they end, the last for all.
COLOURS = (
    "currentColor", "#4e79a7", "#f28e2b", "#e15759", "#3fa7a0", "#59a14f", "#c9a227", "#b07aa1", "#e377a2", "#9c755f",
    "#6a6ee0", "#94a324", "#0f9bd7", "#8c8c8c",
)  # fmt: skip
SEARCHED = 20_000  # samples whose captions are compared with the prompts
LARGEST = 128  # side of a picture on the page
POINTS = 80  # of a curve


class Page:
    """An ablation's report; `write` reads the runs' folders and writes it anew."""

    def __init__(self, a: Ablation, command: str):
        self.a, self.command = a, command
        self.html = a.folder / "report.html"
        self.real = real_pictures(a)
        self.machine = machine()
        loader = jinja2.FileSystemLoader(Path(__file__).parent / "assets")
        self.jinja = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )

    def write(self, states: dict[str, str]) -> list[Outcome]:
        """states: what runs that are neither finished nor failed are doing, by name. Returns what all runs came to."""
        outcomes = [outcome(self.a, t, states.get(t.name, "")) for t in self.a.trials]
        columns = judged_columns(self.a, outcomes)
        summaries = summarise(self.a, outcomes, columns)
        page = self.jinja.get_template("ablation.html").render(
            a=self.a,
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


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """With a true minus, and without -0."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = ("±" if sign else "") + text.lstrip("+-")
    return text.replace("-", "−")


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


# ---- pictures


def real_pictures(a: Ablation) -> list[tuple[str, Path]]:
    """For each prompt the reference's picture with the nearest caption: (caption, PNG). Kept in the ablation's folder.

    An ablation without prompts gets captions of the reference, spread over it. Near: the words in common over all
    words of both, a word weighing -log of the share of captions that have it.
    """
    if not a.pictures:
        return []
    file = a.folder / "real" / "captions.json"
    wanted = {"reference": a.reference, "asked": a.prompts}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if {k: known.get(k) for k in wanted} != wanted:
        samples = Samples(a.reference)
        prompts, found = _nearest(samples, a.prompts)
        file.parent.mkdir(parents=True, exist_ok=True)
        for i, (_, index) in enumerate(found):
            Image.fromarray(samples.read(index).image.permute(1, 2, 0).numpy()).save(file.with_name(f"{i:02d}.png"))
        known = wanted | {"prompts": prompts, "captions": [caption for caption, _ in found]}
        file.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    a.prompts = known["prompts"]
    return [(caption, file.with_name(f"{i:02d}.png")) for i, caption in enumerate(known["captions"])]


def _nearest(samples: Samples, prompts: list[str]) -> tuple[list[str], list[tuple[str, int]]]:
    """The prompts, or else 8 captions, and for each (nearest caption, its sample's number)."""
    captions: list[tuple[str, int]] = []
    numbers = range(0, len(samples), -(-len(samples) // SEARCHED))
    for i in numbers if prompts else range(0, len(samples), -(-len(samples) // 8)):
        try:
            captions += [(text, i) for text in samples.look_up(i).captions]
        except BadSample:
            continue
    if not captions:
        raise UserError(f"reference {samples.source}: no sample can be read; make the shards again")
    if not prompts:
        firsts = list({i: (text, i) for text, i in reversed(captions)}.values())[::-1]
        return [text for text, _ in firsts], firsts
    words = [frozenset(_words(text)) for text, _ in captions]
    count = Counter(w for some in words for w in some)

    def weight(some: frozenset[str]) -> float:
        return sum(math.log((1 + len(words)) / (1 + count[w])) for w in some)

    found = []
    for prompt in prompts:
        mine = frozenset(_words(prompt))
        best = max(range(len(words)), key=lambda k: weight(words[k] & mine) / (weight(words[k] | mine) or 1.0))
        found.append(captions[best])
    return prompts, found


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def side_by_side(a: Ablation, outcomes: Sequence[Outcome], real: Sequence[tuple[str, Path]]) -> dict[str, Any] | None:
    """Prompts down, real pictures and rows across: all of one seed and from the same latents."""
    per_seed = {s: {o.trial.row.name: o for o in outcomes if o.trial.seed == s and o.pictures} for s in a.seeds}
    seed = max(a.seeds, key=lambda s: len(per_seed[s]))
    if not real or not per_seed[seed]:
        return None
    rows = []
    for i, (prompt, (caption, path)) in enumerate(zip(a.prompts, real)):
        here = [per_seed[seed].get(row.name) for row in a.rows]
        drawn = [strip(o.pictures[i], upright=len(here) > 6) if o else None for o in here]
        other = "" if caption.strip().lower().rstrip(".") == prompt.strip().lower().rstrip(".") else caption
        rows.append({"prompt": prompt, "caption": other, "real": strip([path]), "drawn": drawn})
    return {"seed": seed, "rows": rows}


def strip(paths: Sequence[Path], upright: bool = False) -> dict[str, Any] | None:
    """Pictures beside or below each other as one data URI, with its size on the page."""
    pictures = [Image.open(path).convert("RGB") for path in paths]
    if not pictures:
        return None
    large = pictures[0].width > LARGEST
    if large:
        pictures = [p.resize((LARGEST, LARGEST), Image.Resampling.LANCZOS) for p in pictures]
    side = pictures[0].width
    step = side + max(side // 32, 1)
    long = len(pictures) * step - (step - side)
    sheet = Image.new("RGB", (side, long) if upright else (long, side), "#808080")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (0, i * step) if upright else (i * step, 0))
    data, kind = io.BytesIO(), "jpeg" if large else "png"
    sheet.save(data, kind, **({"quality": 90} if large else {"optimize": True}))
    scale = max(80 // side, 1)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"uri": uri, "width": sheet.width * scale, "height": sheet.height * scale}


# ---- curves


def curves(a: Ablation, outcomes: Sequence[Outcome]) -> list[tuple[str, Markup]]:
    """A panel for each loss and statistic: the mean over seeds of every row that has it, over kimg."""
    names = sorted(
        {k for o in outcomes for k in o.curves}, key=lambda k: ("/" not in k, "_norm" in k or "sign" in k, k)
    )
    panels: list[tuple[str, Markup]] = []
    end = max((x for o in outcomes for points in o.curves.values() for x, _ in points), default=1.0)
    for name in names:
        lines = []
        for i, row in enumerate(a.rows):
            series = [o.curves[name] for o in outcomes if o.trial.row is row and name in o.curves]
            if points := average(series):
                lines.append((row.name, COLOURS[min(i, len(COLOURS) - 1)], points))
        if name != "ada_p" or any(y for *_, points in lines for _, y in points):
            panels.append((name, chart(name, lines, end)))
    return panels


def average(series: Sequence[Sequence[tuple[float, float]]], points: int = POINTS) -> list[tuple[float, float]]:
    """The mean over series of (x, y) in at most so many equal steps of x: (middle of the step, mean)."""
    everything = [p for one in series for p in one]
    if not everything:
        return []
    end = max(x for x, _ in everything)
    steps: dict[int, list[tuple[float, float]]] = {}
    for x, y in everything:
        steps.setdefault(min(int(x / (end or 1) * points), points - 1), []).append((x, y))
    return [(statistics.fmean(x for x, _ in s), statistics.fmean(y for _, y in s)) for _, s in sorted(steps.items())]


def chart(title: str, lines: Sequence[tuple[str, str, list[tuple[float, float]]]], end: float) -> Markup:
    """One small panel as SVG, x from 0 to `end` kimg; its scale leaves out the outermost 1 % of the values."""
    width, height, left, bottom = 250, 130, 38, 16
    ys = sorted(y for *_, points in lines for _, y in points)
    cut = len(ys) // 100
    low, high = ys[cut], ys[-1 - cut]
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])

    def at(x: float, y: float) -> str:
        up = min(max((y - low) / (high - low), -0.05), 1.05)
        return f"{left + x / end * (width - left - 4):.1f},{4 + (1 - up) * (height - bottom - 8):.1f}"

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)} over kimg">']
    for tick in ticks:
        y = at(0, tick).split(",")[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 4}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 4}" y="{y}" dy="3.5" text-anchor="end">{number(tick, _digits(ticks))}</text>')
    parts.append(f'<text x="{left}" y="{height - 3}">0</text>')
    parts.append(f'<text x="{width - 4}" y="{height - 3}" text-anchor="end">{end:g} kimg</text>')
    for name, colour, points in reversed(lines):  # the base on top
        path = " ".join(at(x, y) for x, y in points)
        dot = at(*points[0]).split(",")
        shape = f'<polyline points="{path}"/>' if len(points) > 1 else f'<circle cx="{dot[0]}" cy="{dot[1]}" r="2"/>'
        parts.append(f'<g class="line" style="color:{colour}"><title>{escape(name)}</title>{shape}</g>')
    return Markup("".join(parts) + "</svg>")


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers that cover most of [low, high]."""
    raw = (high - low) / 3
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    return [k * step for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _digits(ticks: Sequence[float]) -> int:
    step = ticks[1] - ticks[0]
    return next(d for d in range(12) if abs(round(step, d) - step) < step * 1e-6)


# ---- settings, machine


def settings_table(a: Ablation) -> dict[str, Any]:
    """The settings in which rows differ: a line a row, with whether it is the base's value."""
    first = a.seeds[0]
    every = [flat(dataclasses.asdict(t.settings), ".") for t in a.trials if t.seed == first]
    keys = [k for k in dict.fromkeys(k for one in every for k in one) if k != "name"]
    keys = [k for k in keys if len({repr(one.get(k)) for one in every}) > 1]
    lines = [[(one.get(k, "–"), one.get(k) == every[0].get(k)) for k in keys] for one in every]
    return {"keys": keys, "lines": lines}


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, str]:
    """Hardware and versions."""
    facts = {"CPU": f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores"}
    if torch.cuda.is_available():
        names = Counter(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        facts["GPU"] = ", ".join(f"{n} × {name}" for name, n in names.items())
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    facts["versions"] = f"t2i {t2i.__version__}{f' ({commit})' if commit else ''}, torch {torch.__version__}, "
    facts["versions"] += f"Python {platform.python_version()}"
    return facts
