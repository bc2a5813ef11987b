"""The page's charts, drawn by matplotlib as small SVG panels: each row's scores, and curves over training."""

import io
import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from t2i.ablation.results import Outcome
from t2i.ablation.summary import COLOURS, Column, Summary
from t2i.ablation.trials import Ablation

POINTS = 80  # of a curve
# What the page has two of, by night and by day, and matplotlib cannot name: stand-ins that the SVG has replaced.
THEME = {"#010203": "currentColor", "#040506": "var(--soft)", "#070809": "var(--line)"}
INK, SOFT, LINE = THEME
SVG = "http://www.w3.org/2000/svg"
ROW = "row:"  # before the name of a row, in the SVG that matplotlib writes
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "t2i", "font.family": "sans-serif", "font.size": 7.5,
    "text.color": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "axes.edgecolor": LINE, "grid.color": LINE,
    "axes.grid": True, "grid.linewidth": 0.8, "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 1.0,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.spines.bottom": False,
}  # fmt: skip


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
            panels.append((name, panel(name, lines, end)))
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


def panel(title: str, lines: Sequence[tuple[str, str, list[tuple[float, float]]]], end: float) -> Markup:
    """Curves (name, colour, points), x from 0 to `end` kimg; the scale leaves out the outermost 1 % of the values."""
    ys = sorted(y for *_, points in lines for _, y in points)
    cut = len(ys) // 100
    marks = ticks(ys[cut], ys[-1 - cut])
    with drawn(f"{title} over kimg", 2.6, 1.35) as (axes, out):
        for name, colour, points in reversed(lines):  # the base on top
            marker = "" if len(points) > 1 else "o"
            axes.plot(*zip(*points), marker=marker, markersize=2, color=_ink(colour), gid=ROW + name)
        axes.set(xlim=(0, end), ylim=(marks[0], marks[-1]), xticks=[0, end], xticklabels=["0", f"{end:g} kimg"])
        axes.set_yticks(marks)
        axes.grid(axis="x", visible=False)
        left, right = axes.get_xticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
    return out[0]


def dots(columns: Sequence[Column], rows: Sequence[Summary]) -> list[tuple[str, Markup]]:
    """A panel for each score: rows down, a dot a seed, an upright line at the base's mean."""
    panels = []
    for k, column in enumerate(columns):
        cells = [(row, cell) for row in rows if (cell := row.cells[k])]
        if not cells:
            continue
        marks = ticks(column.low, column.high)
        with drawn(f"{column.name} of every row", 2.6, 0.35 + 0.17 * len(cells)) as (axes, out):
            if base := rows[0].cells[k]:
                axes.axvline(base.mean, color=SOFT, linewidth=0.8)
            for y, (row, cell) in enumerate(cells):
                places, name = [y] * len(cell.values), row.row.name
                axes.plot(cell.values, places, "o", markersize=3, color=_ink(row.colour), gid=ROW + name)
            axes.set(ylim=(len(cells) - 0.5, -0.5), xlim=(marks[0], marks[-1]), xticks=marks)
            axes.set_yticks(range(len(cells)), [row.row.name for row, _ in cells])
            axes.grid(axis="x", visible=False)
        arrow = {1: " ↑", -1: " ↓", 0: ""}[column.better]
        panels.append((column.name + arrow, out[0]))
    return panels


def ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that cover [low, high]."""
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    return list(map(float, MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)))


@contextmanager
def drawn(label: str, width: float, height: float) -> Iterator[tuple[Axes, list[Markup]]]:
    """Axes to draw on, of so many inches; afterwards the list holds the SVG. `label`: what it shows, in words."""
    out: list[Markup] = []
    with mpl.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        axes = figure.subplots()
        yield axes, out
        file = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    out.append(inline(file.getvalue(), label))


def inline(svg: str, label: str) -> Markup:
    """matplotlib's SVG as a part of the page: in its colours, as wide as its place, without names that another part
    may have, each line telling its row."""
    for colour, meaning in THEME.items():
        svg = svg.replace(colour, meaning)
    used = set(re.findall(r"#([\w-]+)", svg))
    root = ElementTree.fromstring(svg)
    for size in ("width", "height"):
        del root.attrib[size]
    root.attrib |= {"role": "img", "aria-label": label}
    for element in root.iter():
        name = element.get("id", "")
        if name.startswith(ROW):
            element.set("class", "line")
            title = ElementTree.Element(f"{{{SVG}}}title")
            title.text, element.text = name.removeprefix(ROW), None
            element.insert(0, title)
        if name and name not in used:
            del element.attrib["id"]
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _ink(colour: str) -> str:
    return INK if colour == "currentColor" else colour
