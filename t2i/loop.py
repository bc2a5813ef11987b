"""The loop of a training: batches, steps, log, scores, snapshots, checkpoints."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from t2i import build, checkpoint, conditioning, config, evaluation, parallel
from t2i.config import Config
from t2i.data.loader import Loader
from t2i.errors import UserError, closest
from t2i.files import lock, write_text
from t2i.launch import Launch
from t2i.log import Log, describe
from t2i.run import Run
from t2i.step import train_step


def train(settings: Config, place: Launch, again: str) -> None:
    """Trains until its kimg or minutes are over; leaves with a checkpoint on SIGTERM and Ctrl-C.

    again: the command that continues it, which is said when it stops.
    """
    folder = Path(settings.runs) / settings.name
    data = read(settings, place)  # what is missing should not wait for networks
    with claim(folder) if place.rank == 0 else nullcontext():
        run = build.build(settings, place.device, place.precision, place.rank, place.world)
        resume(run, folder)
        stopped = steps(run, place, folder, data)
    if place.rank == 0:
        state = "stopped" if stopped else "finished"
        how = f"; to continue: {again}" if stopped else ""
        print(f"{state} at {run.kimg:g} kimg: {folder}{how}", flush=True)


def read(settings: Config, place: Launch) -> Loader:
    """The run's pictures from the first one on, in the batches of one process and round."""
    data = settings.data
    return Loader(
        data.shards,
        rows(settings, place),
        seed=settings.seed,
        rank=place.rank,
        world=place.world,
        workers=data.workers,
        mirror=data.mirror,
        word_dropout=data.word_dropout,
        paraphrase=data.paraphrase,
        max_broken=data.max_broken,
        cache=data.cache,
        cache_gb=data.cache_gb,
        resolution=settings.model.resolution,
    )


def rows(settings: Config, place: Launch) -> int:
    """Pictures that one process takes in one round."""
    return settings.train.batch // settings.train.accumulate // place.world


def resume(run: Run, folder: Path) -> None:
    """Continues the newest checkpoint in the run's folder, if it may and there is one."""
    settings, found = run.settings, checkpoint.folders(folder)
    if settings.resume not in ("auto", "never"):
        raise UserError(f"resume={settings.resume}: {closest(settings.resume, ('auto', 'never'))}")
    if found and settings.resume == "never":
        raise UserError(f"resume=never but {folder} has checkpoints; choose another name= or use resume=auto")
    if found:
        checkpoint.resume(run, folder)


def steps(run: Run, place: Launch, folder: Path, data: Loader) -> bool:
    """The steps that are left; True if it was asked to stop before the end. data: of any start and batch."""
    settings, two = run.settings, any(t.loss.captions > 1 for t in run.terms())
    judge = evaluation.prepare(run, folder)
    log, loader, broken = None, None, 0
    stop = stop_signal()
    deadline = time.monotonic() + (60 * settings.train.minutes or math.inf)
    goal, leaving = 1000 * settings.train.kimg, False
    try:
        while run.images < goal and not leaving:
            if run.advance() or loader is None:
                broken += loader.broken_count if loader else 0
                loader = data.continued(run.images, rows(run.config, place), two)
                conditioning.check(run, loader)
                batches = iter(loader)
                if place.rank == 0 and log is None:
                    write_text(folder / "config.yaml", config.to_yaml(settings))
                    log = Log(folder, run, settings.log.prompts or loader.first_captions(settings.log.grid))
                    log.say(describe(run, loader.count, folder))
            rounds = []
            for _ in range(run.config.train.accumulate * run.config.train.d_steps):
                batch = next(batches)
                if log:
                    for line in batch.broken:
                        log.say(f"skipped a broken sample: {line}")
                rounds.append(batch.to(run.device))
            terms = train_step(rounds, run)
            leaving = parallel.any_of(stop.is_set() or time.monotonic() > deadline, run.device)
            over = run.images >= goal or leaving
            if log:
                log.step(run, terms, broken + loader.broken_count)
            if judge and (passed(settings.eval.every, run) or run.images >= goal):
                scores, seconds = judge(run)
                if log and scores:
                    log.scores(run, scores, seconds)
            if log:
                if over or passed(settings.log.snapshot_kimg, run):
                    log.snapshot(run)
                if over or passed(settings.log.checkpoint_kimg, run):
                    checkpoint.save(run, folder)
    except UserError as error:
        last = checkpoint.folders(folder)
        kept = f"; last good checkpoint: {last[-1]}" if last else "; no checkpoint was written yet"
        raise UserError(f"{error}{kept}") from None
    finally:
        if log:
            log.write(run, broken + loader.broken_count if loader else broken)
            log.close()
    return run.images < goal


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """The run's folder for this training alone."""
    taken = f"{folder}: another process is training there; wait, or choose another name="
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(folder / ".lock", taken))
        except OSError as error:
            raise UserError(f"{folder}: {error.strerror}; choose another folder with runs=") from None
        yield


def passed(kimg: float, run: Run) -> bool:
    """True on the step that passes a multiple of so many kimg; 0 means never."""
    if kimg <= 0:
        return False
    return int(run.kimg / kimg) > int((run.images - run.shown) / 1000 / kimg)


def stop_signal() -> threading.Event:
    """Set by the first SIGTERM or Ctrl-C; a second one ends the process at once."""
    event = threading.Event()

    def note(number, frame):
        event.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return event
