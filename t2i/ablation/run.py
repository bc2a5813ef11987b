"""All trials of an ablation: what is missing runs, the page is written anew after each, Ctrl-C stops it well."""

import shutil
import signal
import time
from collections import deque

from tqdm import tqdm

from t2i.ablation import results
from t2i.ablation.jobs import Job
from t2i.ablation.progress import Progress, closing
from t2i.ablation.report import Page
from t2i.ablation.slots import Slot
from t2i.ablation.trials import Ablation, Trial
from t2i.errors import UserError
from t2i.files import lock


def run(a: Ablation, slots: list[Slot], command: str) -> int:
    """Runs what is missing of the chosen trials, `command` being what the page says that the user typed.

    Returns the exit status: 0 all is finished, 1 a row failed, 130 stopped. Raises UserError where the ablation is
    running already, or where rows were trained with other settings.
    """
    a.folder.mkdir(parents=True, exist_ok=True)
    taken = f"{a.folder}: this ablation is running already; wait, or give the copy a name"
    with lock(a.folder / ".lock", taken):
        for trial in a.chosen:
            if trial.row.name in a.redo:
                shutil.rmtree(trial.folder, ignore_errors=True)
        refuse_changed(a.chosen)
        return _run(a, slots, Page(a, command))


def refuse_changed(trials: list[Trial]) -> None:
    """Runs of another configuration are neither skipped as finished nor continued."""
    old = {t.row.name: found for t in reversed(trials) if (found := results.changed(t))}
    if old:
        said = [f"row {name} was trained with {', '.join(found[:3])}" for name, found in reversed(old.items())]
        more = f" and {len(said) - 3} more rows" if len(said) > 3 else ""
        raise UserError(
            f"{'; '.join(said[:3])}{more}; give a changed row another name, or train it again with "
            f"--redo {','.join(reversed(old))}"
        )


def _run(a: Ablation, slots: list[Slot], page: Page) -> int:
    trials = a.chosen
    waiting = deque((t, steps) for t in trials if (steps := results.missing(a, t)))
    skipped = done = len(trials) - len(waiting)
    active: list[Job] = []
    free, signals, begun = list(slots), Signals(), time.monotonic()
    bar = Progress(trials, slots)
    bar.say(f"{a.folder}: {len(trials)} runs of {len(a.rows)} rows × {len(a.seeds)} seeds"
            + (f", {skipped} finished before" if skipped else ""))  # fmt: skip
    page.write({t.name: "waiting" for t, _ in waiting})
    with signals, bar:
        try:
            while active or (waiting and not signals.count):
                while waiting and free and not signals.count:
                    trial, missing = waiting.popleft()
                    active.append(Job(trial, deque(missing), free.pop(0), {s.name: s for s in a.scores}))
                for job in list(active):
                    if signals.count:
                        job.stop(signals.count)
                    if job.advance():
                        active.remove(job)
                        free.append(job.slot)
                        done += not job.stopping
                        bar.say(closing(a, job, done, len(trials), bar))
                        states = {j.trial.name: f"running: {j.doing}" for j in active}
                        page.write(states | {t.name: "waiting" for t, _ in waiting})
                bar.show(active)
                time.sleep(0.2)
        finally:
            for job in active:  # only where something above went wrong
                job.stop(1)
    outcomes = page.write({})
    failed = sorted({o.trial.row.name for o in outcomes if o.state == "failed" and o.trial in trials})
    print(f"{page.html} after {tqdm.format_interval(time.monotonic() - begun)}", flush=True)
    if signals.count:
        print("stopped; the same command goes on from here", flush=True)
        return 130
    if failed:
        print(f"failed: {', '.join(failed)}; the report shows why, and the same command tries again", flush=True)
    return 1 if failed else 0


class Signals:
    """Counts Ctrl-C, SIGTERM and SIGHUP: the first lets runs end well, the second ends them."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self.note) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        return self

    def __exit__(self, *problem: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: object) -> None:
        self.count += 1
