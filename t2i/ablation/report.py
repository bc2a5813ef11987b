"""The page and the tables of an ablation: one HTML file that needs nothing else and no script, and two CSV files.

Numbers first: what a row costs, its scores as mean ± spread over the seeds, and whether it differs from the first row,
the base, by more than that spread. Then failures, pictures, curves, settings and how it all was made.
"""

import time
from pathlib import Path

import jinja2

import t2i
from t2i.ablation.chart import curves, dots
from t2i.ablation.pictures import real_pictures, side_by_side
from t2i.ablation.results import Outcome, outcome
from t2i.ablation.summary import judged_columns, number, summarise, verdict
from t2i.ablation.tables import rows_csv, runs_csv, settings_table
from t2i.ablation.trials import Ablation
from t2i.files import write_text
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
            dots=dots(columns, summaries),
            curves=curves(self.a, outcomes),
            settings=settings_table(self.a),
            yaml=self.a.path.read_text(encoding="utf-8"),
            number=number,
        )
        write_text(self.html, page)
        write_text(self.a.folder / "report.csv", rows_csv(summaries, columns))
        write_text(self.a.folder / "runs.csv", runs_csv(outcomes, columns))
        return outcomes
