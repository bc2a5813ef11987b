"""How far an ablation is: what is still to do before it starts, bars while it runs, a line as each run ends."""

import shlex
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from t2i.ablation import results
from t2i.ablation.commands import steps
from t2i.ablation.jobs import Job
from t2i.ablation.slots import Slot
from t2i.ablation.trials import PICTURES, TRAIN, Ablation, Trial


def preview(a: Ablation, slots: list[Slot]) -> str:
    """What would run, a line a trial, and the commands of the first."""
    width = max(len(t.name) for t in a.chosen)
    lines, count = [], 0
    for t in a.chosen:
        anew = t.row.name in a.redo
        different = [] if anew else results.changed(t)
        missing = steps(a, t) if anew else results.missing(a, t)
        state = f"CHANGED: trained with {', '.join(different[:3])}" if different else \
            "finished" if not missing else ", ".join(step.name for step in missing)  # fmt: skip
        if missing and missing[0].name == TRAIN and not different and (reached := results.kimg(t)):
            state += " (anew)" if anew else f" (from {reached:g} kimg)"
        count += bool(missing)
        lines.append(f"{t.name:<{width}}  {t.settings.train.kimg:g} kimg  {state:<30}  {' '.join(t.row.own)}")
    lines.append(f"\n{count} of {len(a.chosen)} runs to do, {len(slots)} at a time, into {a.folder}.")
    lines[-1] += " The first one's commands:"
    lines += [f"  {step.name}: {shlex.join(step.command)}" for step in steps(a, a.chosen[0])]
    if a.pictures and not a.prompts:
        lines.append(f"  {PICTURES}: of captions of {a.reference}")
    return "\n".join(lines)


class Progress:
    """On a terminal a line for every run at work and one for all; elsewhere a line at the end of each run."""

    def __init__(self, trials: list[Trial], slots: list[Slot]):
        self.trials = trials
        self.kimg = sum(t.settings.train.kimg for t in trials)  # to be reached
        self.first = self.now = sum(_reached(t) for t in trials)
        self.begun, self.looked = time.monotonic(), 0.0
        form = "{desc:<28}{percentage:3.0f}% {bar}{postfix} [{elapsed}<{remaining}]"
        make: Callable[..., tqdm] = lambda **k: tqdm(
            bar_format=form, dynamic_ncols=True, disable=None, leave=False, **k
        )
        self.total = make(total=self.kimg, initial=self.first, desc="all", smoothing=0)
        self.lines = [(slot, make(total=1, position=1 + i)) for i, slot in enumerate(slots)]

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *problem: object) -> None:
        for line in [*(line for _, line in self.lines), self.total]:
            line.close()

    def say(self, text: str) -> None:
        self.total.write(text, file=sys.stdout)
        sys.stdout.flush()

    def left(self) -> str:
        """Time left, from the kimg so far; scores and start-up are in it."""
        made = self.now - self.first
        if made <= 0:
            return "time left unknown"
        return f"{tqdm.format_interval((time.monotonic() - self.begun) / made * (self.kimg - self.now))} left"

    def show(self, active: list[Job]) -> None:
        """Draws the bars anew, once a second at most."""
        if time.monotonic() - self.looked < 1:
            return
        self.looked = time.monotonic()
        reached = {j.trial.name: _position(j.trial) for j in active}
        self.now = sum(reached[t.name] if t.name in reached else _reached(t) for t in self.trials)
        if self.total.disable:
            return
        self.total.n, self.total.total = self.now, self.kimg
        self.total.refresh()
        for slot, line in self.lines:
            job = next((job for job in active if job.slot is slot), None)
            if job is None:
                line.clear()
                continue
            if line.desc != f"{job.trial.name}: ":
                line.reset(total=job.trial.settings.train.kimg)
                line.set_description(job.trial.name, refresh=False)
            line.n = reached[job.trial.name]
            line.set_postfix_str(job.doing, refresh=False)
            line.refresh()


def closing(a: Ablation, job: Job, done: int, of: int, bar: Progress) -> str:
    """The line about a run that is over."""
    found = results.outcome(a, job.trial)
    if job.stopping:
        return f"{job.trial.name}: {found.state}"
    head = f"[{done}/{of}] {job.trial.name}: {found.state}"
    if found.state == "failed":
        bar.kimg -= max(job.trial.settings.train.kimg - found.kimg, 0)  # which nobody will wait for
        return f"{head}: {found.error[-1]}"
    facts = [f"{value:.4g} {key}" for key, value in list(found.scores.items())[:3]]
    if found.seconds_per_kimg:
        facts.insert(0, f"{found.seconds_per_kimg:.1f} s/kimg")
    return f"{head}, {', '.join(facts)}; {bar.left()}"


def _reached(trial: Trial) -> float:
    """kimg by the checkpoints."""
    return min(results.kimg(trial), trial.settings.train.kimg)


def _position(trial: Trial) -> float:
    """kimg of a run at work, by its log."""
    lines = results.metric_lines(trial.folder)
    return min(max(lines[-1]["kimg"] if lines else 0.0, results.kimg(trial)), trial.settings.train.kimg)
