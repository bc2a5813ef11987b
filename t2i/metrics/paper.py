"""A comparison of scores as what goes into a paper: a table in Markdown, LaTeX or CSV, or a figure.

A row a system, a column a score that has a better side; an arrow says which. 95 % intervals stand as ±, or in brackets
where they are not as wide on either side. Bold is a value whose interval lies apart from all others' on the better
side; without intervals nothing is bold. The footnotes are the protocol. CSV has every score, a line each.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from t2i import files
from t2i.errors import UserError
from t2i.metrics import compare, figures
from t2i.metrics.compare import Comparison, better
from t2i.metrics.figures import ARROWS
from t2i.metrics.protocol import fingerprint

CSV = (
    "name", "score", "value", "low", "high", "better", "best", "subject", "kimg", "samples", "resolution",
    "truncation", "reference", "reference_count", "fingerprint",
)  # fmt: skip


def write(c: Comparison, path: Path, axes: Sequence[str] | None = None) -> None:
    """Writes what the file's ending says. axes: the scores (x, y) of a curve, of figures; None: a panel a score.
    UserError for another ending, or a file that cannot be written."""
    check(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in FORMATS:
            files.write_text(path, FORMATS[path.suffix](c) + "\n")
        else:
            with files.replacing(path) as temporary:
                figures.draw(c, temporary, path.suffix[1:], axes)
    except OSError as error:
        raise UserError(f"--out {path}: {error.strerror}; choose another file") from None


def check(path: Path) -> None:
    if path.suffix not in (*FORMATS, *figures.FORMATS):
        endings = ", ".join((*FORMATS, *figures.FORMATS))
        raise UserError(f"--out {path}: its ending must say what it is to be: {endings}")


def markdown(c: Comparison) -> str:
    """A pipe table, as GitHub reads it."""
    clean = lambda text: "".join(f"\\{char}" if char in "\\|*_`[]<>" else char for char in text)
    columns = paper_scores(c)
    head = ["", *(f"{clean(s)} {ARROWS[better(s)]}" for s in columns)]
    rows = [head, ["---", *("---:" for _ in columns)]]
    for number, name in enumerate(c.names):
        cells = [_cell(c, number, s, "±") for s in columns]
        bold = [f"**{cell}**" if c.best(s) == number else cell for s, cell in zip(columns, cells)]
        rows.append([clean(name), *bold])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", *(f"{clean(note)}  " for note in notes(c))])


LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$", "|": r"$|$", "×": r"$\times$",
    "±": r"$\pm$", "ψ": r"$\psi$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "…": r"\ldots{}", "−": r"$-$", '"': "''",
}  # fmt: skip


def latex(c: Comparison) -> str:
    """A plain tabular with its notes: no package, unless a name has letters beyond Latin's."""
    clean = lambda text: "".join(LATEX.get(char, char) for char in text)
    columns = paper_scores(c)
    head = ["", *(clean(f"{s} {ARROWS[better(s)]}") for s in columns)]
    lines = [r"\begin{tabular}{l" + "r" * len(columns) + "}", r"\hline", " & ".join(head) + r" \\", r"\hline"]
    for number, name in enumerate(c.names):
        cells = [clean(_cell(c, number, s, "±")) for s in columns]
        bold = [r"\textbf{%s}" % cell if c.best(s) == number else cell for s, cell in zip(columns, cells)]  # noqa: UP031
        lines.append(" & ".join([clean(name), *bold]) + r" \\")
    lines += [r"\hline", r"\end{tabular}", "", r"{\footnotesize\raggedright"]
    lines += [clean(note) + r"\par" for note in notes(c)] + ["}"]
    whole = "\n".join(lines)
    foreign = any(ord(char) > 0x17F for char in whole)
    return (
        "% has letters beyond Latin: compile with XeLaTeX or LuaLaTeX\n" if foreign else "% needs no package\n"
    ) + whole


def table_csv(c: Comparison) -> str:
    """A line a system and score, numbers in full."""
    out = io.StringIO()
    rows = csv.DictWriter(out, CSV, lineterminator="\n")
    rows.writeheader()
    for number, (name, result) in enumerate(zip(c.names, c.results)):
        subject, protocol = result["subject"], result["protocol"]
        for score in (s for s in c.scores if s in result["scores"]):
            low, high = c.interval(number, score) or ("", "")
            known = {k: protocol.get(k) for k in CSV if k in protocol}
            rows.writerow(known | {
                "name": name, "score": score, "value": result["scores"][score], "low": low, "high": high,
                "better": better(score), "best": "yes" if c.best(score) == number else "",
                "subject": subject.get("model") or subject.get("pictures"), "kimg": subject.get("kimg"),
                "fingerprint": fingerprint(protocol),
            })  # fmt: skip
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {
    ".txt": compare.text, ".md": markdown, ".tex": latex, ".csv": table_csv,
}  # fmt: skip


def paper_scores(c: Comparison) -> list[str]:
    """Those that have a better side: what is told beside a score stays in CSV and on the terminal."""
    return [s for s in c.scores if better(s)]


def notes(c: Comparison) -> list[str]:
    """What a reader must know of the numbers: what was scored, against what, by what."""
    lines = [f"Not comparable in {field}: {', '.join(map(str, v))}." for field, v in c.differences.items()]
    described = [_protocol(r) for r in c.results]
    subjects = [f"{name}: {compare.subject_line(r)}" for name, r in zip(c.names, c.results)]
    if len(set(described)) == 1:
        lines += [f"{'; '.join(subjects)}. All: {described[0]}."]
    else:
        lines += [f"{subject}, {told}." for subject, told in zip(subjects, described)]
    prints = [fingerprint(r["protocol"]) for r in c.results]
    one = len(set(prints)) == 1
    lines.append(f"Protocol {prints[0]}." if one else f"Protocols {', '.join(prints)}.")
    held = any(c.interval(n, s) for n in range(len(c.results)) for s in paper_scores(c))
    bold = "bold: no other's interval reaches it" if any(c.best(s) is not None for s in paper_scores(c)) else ""
    if held:
        lines.append("; ".join(part for part in ("± and brackets: 95 % intervals", bold) if part) + ".")
    return lines


def _protocol(result: dict[str, Any]) -> str:
    p = result["protocol"]
    parts = [f"seed {p['seed']}"] if p.get("seed") is not None else []
    if p.get("truncation") is not None:
        parts.append(f"ψ {p['truncation']:g}")
    if p.get("reference"):
        count = f"{p['reference_count']} pictures" if isinstance(p["reference_count"], int) else "statistics"
        parts.append(f"reference {p['reference']} ({p.get('reference_split')}), {count}, {p.get('resize')}")
    if p.get("captions"):
        parts.append(f"captions {p['captions']}")
    parts += [f"{name} {title}" for name, title in result.get("judges", {}).items()]
    return ", ".join(parts)


def _cell(c: Comparison, number: int, score: str, sign: str) -> str:
    value = c.values(score)[number]
    return "" if value is None else rounded(value, c.interval(number, score), sign)


def rounded(value: float, interval: tuple[float, float] | None, sign: str = "±") -> str:
    """A value to two digits of its uncertainty: "7.31 ± 0.25", "0.98 [0.95, 0.99]"; to four digits without one."""
    if interval is None:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    low, high = interval
    half = max((high - low) / 2, 0.0)
    digits = 4 if half == 0 else min(max(1 - math.floor(math.log10(half)), 0), 8)
    if abs((high - value) - (value - low)) <= 0.1 * half:
        return f"{value:.{digits}f} {sign} {half:.{digits}f}"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
