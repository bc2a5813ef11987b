"""Scores as figures: a panel a score with 95 % intervals, or one score over another along a truncation ψ."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.errors import UserError
from t2i.metrics.compare import Comparison, better

FORMATS = (".png", ".pdf", ".svg")
ACROSS = 3  # panels in a row
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "svg.hashsalt": "t2i", "pdf.fonttype": 42,
}  # fmt: skip
ARROWS = {"lower": "↓", "higher": "↑", "": ""}


def draw(c: Comparison, path: Path, kind: str, axes: Sequence[str] | None = None) -> None:
    """Writes a png, pdf or svg of the same bytes for the same scores. axes: scores (x, y) of a curve."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        curve(figure, c, *axes) if axes else panels(figure, c)
        dated = {"pdf": "CreationDate", "svg": "Date"}.get(kind)
        figure.savefig(path, format=kind, dpi=200, metadata={dated: None} if dated else None)


def panels(figure: Any, c: Comparison) -> None:
    """A panel for each score that has a better side, a line a system; the filled mark is the best where the intervals
    allow to say so."""
    scores = [s for s in c.scores if better(s)]
    if not scores:
        raise UserError("--out: none of these scores has a better side; nothing can be drawn")
    rows = math.ceil(len(scores) / ACROSS)
    across = min(len(scores), ACROSS)
    figure.set_size_inches(1.2 + 2.1 * across, (0.75 + 0.22 * len(c.names)) * rows)
    grid = figure.subplots(rows, across, squeeze=False, sharey=True)
    for panel in grid.flat[len(scores) :]:
        panel.set_axis_off()
    for panel, score in zip(grid.flat, scores):
        for number, value in enumerate(c.values(score)):
            if value is None:
                continue
            if held := c.interval(number, score):
                panel.plot(held, [number, number], color="#555555", linewidth=1.2)
            filled = "#1f5fa8" if c.best(score) == number else "white"
            panel.plot([value], [number], "o", markersize=4.5, markerfacecolor=filled, markeredgecolor="#1f5fa8")
        panel.set_title(f"{score} {ARROWS[better(score)]}", fontsize=8)
        panel.set_yticks(range(len(c.names)), [textwrap.shorten(n, 40, placeholder="…") for n in c.names])
        panel.set_ylim(len(c.names) - 0.5, -0.5)
        panel.locator_params(axis="x", nbins=4)


def curve(figure: Any, c: Comparison, x: str, y: str) -> None:
    """y over x, a line a model through its points in the order of ψ, each with its ψ and its intervals (as 2205.11487,
    figure 4)."""
    figure.set_size_inches(4.2, 3.2)
    panel = figure.subplots()
    lines: dict[str, list[tuple[float, int]]] = {}
    for number, result in enumerate(c.results):
        if x in result["scores"] and y in result["scores"]:
            subject = result["subject"]
            label = subject.get("model") or subject.get("pictures")
            label += f" ({subject['kimg']:g} kimg)" if subject.get("kimg") is not None else ""
            psi = result["protocol"].get("truncation")
            lines.setdefault(label, []).append((math.nan if psi is None else psi, number))
    if not lines:
        raise UserError(f"--axes {x},{y}: none of these files has both scores")
    for label, points in lines.items():
        points.sort()
        across, up = ([c.values(s)[n] for _, n in points] for s in (x, y))
        (line,) = panel.plot(across, up, "o-", markersize=4, linewidth=1.2, label=label)
        for (psi, number), a, b in zip(points, across, up):
            if held := c.interval(number, x):
                panel.plot(held, [b, b], color=line.get_color(), linewidth=0.8, alpha=0.6)
            if held := c.interval(number, y):
                panel.plot([a, a], held, color=line.get_color(), linewidth=0.8, alpha=0.6)
            if not math.isnan(psi):
                panel.annotate(f"{psi:g}", (a, b), textcoords="offset points", xytext=(4, 4), fontsize=7)
    panel.set_xlabel(f"{x} {ARROWS[better(x)]}")
    panel.set_ylabel(f"{y} {ARROWS[better(y)]}")
    if any(not math.isnan(psi) for points in lines.values() for psi, _ in points):
        panel.set_title("numbers are the truncation ψ", fontsize=7, loc="left")
    if len(lines) > 1:
        panel.legend(frameon=False, fontsize=7)
