"""A trial at work: its commands one after the other, and how they are stopped."""

import os
import shlex
import signal
import subprocess
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from t2i.ablation import results
from t2i.ablation.slots import Slot
from t2i.ablation.trials import PICTURES, TRAIN, Score, Step, Trial, score_file
from t2i.errors import UserError

GRACE = 20  # seconds that a command's children may outlive it
TAIL = 12  # lines of a failed command that are kept


@dataclass
class Job:
    """A trial whose commands run one after the other; `advance` is called until it says that it is over."""

    trial: Trial
    steps: deque[Step]
    slot: Slot
    scores: dict[str, Score]
    stopping: int = 0
    process: subprocess.Popen | None = None
    started: float = 0.0
    ended: float | None = None  # since when the command is gone, though not yet its children
    output: bytes = field(default=b"", repr=False)

    @property
    def doing(self) -> str:
        return self.steps[0].name if self.steps else ""

    def advance(self) -> bool:
        """Starts the next command or looks after the present one; True when there is none left."""
        if self.process is None:
            if self.stopping or not self.steps:
                return True
            self.start()
            return False
        if self.over():
            self.finish()
        return False

    def start(self) -> None:
        assert self.steps
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.slot.devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.slot.devices
        if self.slot.cores is not None:
            environment |= {"OMP_NUM_THREADS": str(len(self.slot.cores)), "ACCELERATE_USE_CPU": "true"}
        score_file(self.trial, "").parent.mkdir(parents=True, exist_ok=True)
        self.output, self.ended, self.started = b"", None, time.monotonic()
        with open(self.log, "ab") as log:
            log.write(f"\n$ {shlex.join(self.steps[0].command)}\n".encode())
        # A session of its own: Ctrl-C in the terminal reaches only this command, which then tells the run to stop.
        self.process = subprocess.Popen(
            self.steps[0].command,
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        if self.slot.cores is not None:  # long before it has started its first thread
            os.sched_setaffinity(self.process.pid, self.slot.cores)
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def log(self) -> Path:
        return self.trial.folder / "ablation.log"

    def over(self) -> bool:
        """Keeps what the command printed. It is over when it and all its children have closed their output:
        `accelerate launch` dies of the SIGTERM on which the training, its child, begins to write a checkpoint."""
        assert self.process
        assert self.process.stdout
        closed = False
        with open(self.log, "ab") as log:
            while (data := self.process.stdout.read(1 << 16)) is not None:
                log.write(data)
                self.output = (self.output + data)[-(1 << 16) :]
                if not data:
                    closed = True
                    break
        if self.process.poll() is None:
            return False
        if not closed and not self.stopping:
            self.ended = self.ended or time.monotonic()
            if time.monotonic() - self.ended > GRACE:
                self.send(signal.SIGKILL)
        return closed

    def finish(self) -> None:
        assert self.process
        step, status = self.steps.popleft(), self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self.process = None
        error = [] if status == 0 else last_lines(self.output) or [f"exit status {status}"]
        if step.name == TRAIN:
            if not error and not results.trained(self.trial):
                error = [f"training ended at {results.kimg(self.trial):g} of {self.trial.settings.train.kimg:g} kimg"]
        elif not error and step.name != PICTURES:
            try:
                results.read_scores(self.trial, self.scores[step.name])
            except UserError as problem:
                error = [str(problem)]
        if self.stopping:
            return  # neither done nor failed
        results.note(self.trial, step, time.monotonic() - self.started, error)
        if error and step.name == TRAIN:
            self.steps.clear()

    def stop(self, level: int) -> None:
        """1: may write a checkpoint; 2: at once."""
        if level > self.stopping:
            self.stopping = level
            self.send(signal.SIGTERM if level == 1 else signal.SIGKILL)

    def send(self, number: int) -> None:
        if self.process is None:
            return
        # Several processes have a launcher that passes SIGTERM on; of two, the training would not survive the second.
        alone = number == signal.SIGTERM and "--multi_gpu" in self.steps[0].command
        with suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(self.process.pid, number)


def last_lines(output: bytes) -> list[str]:
    """The end of what a command printed, without its progress bars."""
    lines = [line.rstrip() for line in output.decode(errors="replace").replace("\r", "\n").split("\n")]
    return [line for line in lines if line and "%|" not in line and not line.endswith("it/s]")][-TAIL:]
