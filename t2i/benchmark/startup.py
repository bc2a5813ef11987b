"""How long commands take to answer: processor seconds of --help, of a first picture, and of mistakes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2i.errors import UserError

ROOT = Path(__file__).parents[2]
COLUMNS = {"command": "", "CPU s": ".2f", "exit": ""}


@dataclass(frozen=True)
class Command:
    """What is typed behind `python`, and the exit status it should have."""

    words: tuple[str, ...]
    status: int = 0
    more: tuple[str, ...] = ()  # said to it but not shown: where to write

    @property
    def shown(self) -> str:
        return " ".join(self.words)


def commands() -> list[Command]:
    """--help of every command, a picture of the model that ships, and mistakes."""
    programs = [*sorted(f"scripts/{p.name}" for p in (ROOT / "scripts").glob("*.py")), "t2i/train.py"]
    mistakes = [
        ("scripts/generate.py", "--search", "nope", "--prompt", "x"),
        ("t2i/train.py", "trian.batch=8"),
        ("t2i/train.py", "data.shards=nowhere"),
    ]
    picture = Command(
        ("scripts/generate.py", "--prompt", "x"), 0, ("--checkpoint", "scenes-stylegan2", "--out", "x.png")
    )
    return [Command((p, "--help")) for p in programs] + [picture] + [Command(words, 2) for words in mistakes]


def startup(chosen: Sequence[Command], repeat: int = 3) -> list[dict[str, Any]]:
    """A row a command: user and system seconds of its processes, the least of `repeat` runs, in an empty folder.

    Raises UserError where a command leaves with another exit status than it should.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for command in tqdm(chosen, unit="command", disable=None, leave=False):
            rows.append({
                "command": command.shown, "CPU s": min(cpu_seconds(command, folder) for _ in range(repeat)),
                "exit": command.status,
            })  # fmt: skip
    return rows


def cpu_seconds(command: Command, folder: str) -> float:
    """Of one run, with all the processes that it waited for."""
    program, *rest = command.words
    inherited = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *([inherited] if inherited else [])])}
    with tempfile.TemporaryFile(dir=folder) as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / program), *rest, *command.more],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != command.status:
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines() or ["no output"]
            raise UserError(f"{command.shown}: exit status {process.returncode}, not {command.status}: {said[-1]}")
    return used.ru_utime + used.ru_stime
