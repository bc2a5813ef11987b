"""Curves over training as small SVG panels: one for each loss, a line a row."""

import math
import statistics
from collections.abc import Sequence

from markupsafe import Markup, escape

from t2i.ablation.plan import Ablation
from t2i.ablation.results import Outcome

# Of rows, in order, legible on white and on black; where they end, the last for all.
COLOURS = (
    "currentColor", "#4e79a7", "#f28e2b", "#e15759", "#3fa7a0", "#59a14f", "#c9a227", "#b07aa1", "#e377a2", "#9c755f",
    "#6a6ee0", "#94a324", "#0f9bd7", "#8c8c8c",
)  # fmt: skip
POINTS = 80  # of a curve


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


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """With a true minus, and without -0; in powers of ten where it would be too long."""
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.{f'{digits}f' if abs(value) < 1e6 else '3e'}}".replace("e+0", "e")
    if float(text) == 0:
        text = ("±" if sign else "") + text.lstrip("+-")
    return text.replace("-", "−")
