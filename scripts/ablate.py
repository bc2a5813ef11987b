"""Trains every row of an ablation with every seed, scores the runs and writes one page about them.

    python scripts/ablate.py configs/ablation.yaml --dry-run       what would run
    python scripts/ablate.py configs/ablation.yaml                 runs it, or the rest of it
    python scripts/ablate.py configs/ablation.yaml --jobs 2        two runs at a time
    python scripts/ablate.py configs/ablation.yaml train.kimg=8    one setting more, in every row

runs/<ablation>/report.html and report.csv are written anew after every run. The same command again skips what is
finished, continues what was interrupted and tries again what failed. Ctrl-C lets the runs write a checkpoint first.
Exit status: 0 all is finished, 1 a row failed, 2 a mistake in the command, 130 stopped.
"""

import argparse
import fcntl
import shlex
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from t2i.ablation import plan, report, results
from t2i.ablation.jobs import Job, Slot, share
from t2i.ablation.plan import Ablation, Trial
from t2i.errors import UserError, closest, run_command


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ablation", type=Path, help="YAML of rows, seeds and scores, such as configs/ablation.yaml")
    p.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings for every row, after its own")
    p.add_argument("--dry-run", action="store_true", help="check everything, list the runs and stop")
    p.add_argument("--jobs", type=int, metavar="N", help="runs at a time: on GPUs one each, on a CPU sharing its cores")
    p.add_argument("--devices", metavar="0,1,...", help="the GPUs to use, by number; as many runs at a time")
    p.add_argument("--only", metavar="ROW,...", help="run these rows alone")
    p.add_argument("--seeds", metavar="0,1,...", help="these seeds instead of the file's")
    p.add_argument("--redo", metavar="ROW,...", help="first delete what these rows have trained (or: all)")
    return p


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_intermixed_args(arguments)
    a = plan.load(options.ablation, options.overrides, numbers(options.seeds, "--seeds") if options.seeds else ())
    chosen = rows(options.only, a, "--only") if options.only else {row.name for row in a.rows}
    redo = chosen if options.redo == "all" else rows(options.redo, a, "--redo") & chosen if options.redo else set()
    trials = [t for t in a.trials if t.row.name in chosen and t.seed in a.seeds]
    slots = share(options.jobs, options.devices, a.processes)
    if options.dry_run:
        show_plan(a, trials, redo, slots)
        return
    a.folder.mkdir(parents=True, exist_ok=True)
    with open(a.folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{a.folder}: this ablation is running already; wait, or give the copy a name") from None
        for trial in trials:
            if trial.row.name in redo:
                shutil.rmtree(trial.folder, ignore_errors=True)
        refuse_changed(trials)
        page = report.Page(a, shlex.join(["python", "scripts/ablate.py", *(arguments or sys.argv[1:])]))
        sys.exit(run(a, trials, slots, page))


def numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text}: whole numbers with commas between, such as 0,1,2") from None


def rows(text: str, a: Ablation, option: str) -> set[str]:
    names, known = text.split(","), [row.name for row in a.rows]
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name}: no such row; {closest(name, known)}")
    return set(names)


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


# ---- all of them


def run(a: Ablation, trials: list[Trial], slots: list[Slot], page: report.Page) -> int:
    """Runs what is missing, writes the page and returns the exit status."""
    every = sum(t.settings.train.kimg for t in trials)
    start_kimg = sum(min(results.kimg(t), t.settings.train.kimg) for t in trials)
    todo = deque((t, todo) for t in trials if (todo := results.missing(a, t)))
    skipped = len(trials) - len(todo)
    active: list[Job] = []
    free, levels, begun = list(slots), Signals(), time.monotonic()
    bar = Progress(every, start_kimg, slots)
    bar.say(f"{a.folder}: {len(trials)} runs of {len(a.rows)} rows × {len(a.seeds)} seeds"
            + (f", {skipped} finished before" if skipped else ""))  # fmt: skip
    done = skipped
    page.write({t.name: "waiting" for t, _ in todo})
    with levels, bar:
        try:
            while active or (todo and not levels.count):
                while todo and free and not levels.count:
                    trial, missing = todo.popleft()
                    active.append(Job(trial, deque(missing), free.pop(0), {s.name: s for s in a.scores}))
                for job in list(active):
                    if levels.count:
                        job.stop(levels.count)
                    if job.advance():
                        active.remove(job)
                        free.append(job.slot)
                        done += not job.stopping
                        bar.say(closing(a, job, done, len(trials), bar))
                        states = {j.trial.name: f"running: {j.doing}" for j in active}
                        page.write(states | {t.name: "waiting" for t, _ in todo})
                bar.show(trials, active)
                time.sleep(0.2)
        finally:
            for job in active:  # only where something above went wrong
                job.stop(1)
    outcomes = page.write({})
    failed = sorted({o.trial.row.name for o in outcomes if o.state == "failed" and o.trial in trials})
    print(f"{page.html} after {tqdm.format_interval(time.monotonic() - begun)}", flush=True)
    if levels.count:
        print("stopped; the same command goes on from here", flush=True)
        return 130
    if failed:
        print(f"failed: {', '.join(failed)}; the report shows why, and the same command tries again", flush=True)
    return 1 if failed else 0


def closing(a: Ablation, job: Job, done: int, of: int, bar: "Progress") -> str:
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


class Progress:
    """On a terminal a line for every run at work and one for all; elsewhere a line at the end of each run."""

    def __init__(self, kimg: float, done: float, slots: list[Slot]):
        self.first, self.kimg, self.begun, self.looked = done, kimg, time.monotonic(), 0.0
        form = "{desc:<28}{percentage:3.0f}% {bar}{postfix} [{elapsed}<{remaining}]"
        make: Callable[..., tqdm] = lambda **k: tqdm(
            bar_format=form, dynamic_ncols=True, disable=None, leave=False, **k
        )
        self.total = make(total=kimg, initial=done, desc="all", smoothing=0)
        self.lines = [(slot, make(total=1, position=1 + i)) for i, slot in enumerate(slots)]
        self.now = done

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

    def show(self, trials: list[Trial], active: list[Job]) -> None:
        if time.monotonic() - self.looked < 1:
            return
        self.looked = time.monotonic()
        reached = {j.trial.name: position(j.trial) for j in active}
        self.now = sum(reached.get(t.name, min(results.kimg(t), t.settings.train.kimg)) for t in trials)
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


def position(trial: Trial) -> float:
    """kimg of a run at work, by its log."""
    lines = results.metric_lines(trial.folder)
    return min(max(lines[-1]["kimg"] if lines else 0.0, results.kimg(trial)), trial.settings.train.kimg)


def show_plan(a: Ablation, trials: list[Trial], redo: set[str], slots: list[Slot]) -> None:
    """What --dry-run prints."""
    width = max(len(t.name) for t in trials)
    count = 0
    for t in trials:
        different = [] if t.row.name in redo else results.changed(t)
        missing = plan.steps(a, t) if t.row.name in redo else results.missing(a, t)
        state = f"CHANGED: trained with {', '.join(different[:3])}" if different else \
            "finished" if not missing else ", ".join(step.name for step in missing)  # fmt: skip
        if missing and missing[0].name == plan.TRAIN and not different and (reached := results.kimg(t)):
            state += f" (from {reached:g} kimg)" if t.row.name not in redo else " (anew)"
        count += bool(missing)
        print(f"{t.name:<{width}}  {t.settings.train.kimg:g} kimg  {state:<30}  {' '.join(t.row.own)}")
    print(f"\n{count} of {len(trials)} runs to do, {len(slots)} at a time, into {a.folder}. The first one's commands:")
    for step in plan.steps(a, trials[0]):
        print(f"  {step.name}: {shlex.join(step.command)}")
    if a.pictures and not a.prompts:
        print(f"  {plan.PICTURES}: of captions of {a.reference}")


if __name__ == "__main__":
    run_command(main)
