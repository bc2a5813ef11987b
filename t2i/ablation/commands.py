"""The commands of a trial: training, scores, pictures."""

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from t2i.ablation.trials import PICTURES, TRAIN, Ablation, Score, Step, Trial, flat, score_file
from t2i.errors import UserError, closest

ROOT = Path(__file__).parents[2]


def steps(a: Ablation, trial: Trial) -> list[Step]:
    """All commands of a trial, in order."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1"]
    launch += ["--num_processes", str(a.processes), "--mixed_precision", "no", "--dynamo_backend", "no"]
    if a.processes > 1:
        launch += ["--multi_gpu", "--main_process_port", "0"]
    ours = [f"name={trial.name}", f"runs={a.folder}", f"seed={trial.seed}"]
    train = [*launch, str(ROOT / "t2i" / "train.py"), trial.row.config, *trial.row.overrides, *ours]
    every = [Step(TRAIN, train), *(Step(s.name, fill(s, trial)) for s in a.scores)]
    if a.pictures and a.prompts:
        draw = [sys.executable, str(ROOT / "scripts" / "generate.py"), "--checkpoint", str(trial.folder)]
        draw += [word for prompt in a.prompts for word in ("--prompt", prompt)]
        draw += ["--count", str(a.pictures), "--singles", str(trial.folder / PICTURES)]
        every.append(Step(PICTURES, [*draw, "--out", str(trial.folder / f"{PICTURES}.png")]))
    return every


def fill(score: Score, trial: Trial) -> list[str]:
    """The words of a score's command: {run} is the run's folder, {json} the file to write, {data.shards} a setting."""
    settings = flat(dataclasses.asdict(trial.settings), ".")
    known = settings | {"run": trial.folder, "json": score_file(trial, score.name), "row": trial.row.name}

    def value(match: re.Match) -> str:
        if match[1] not in known:
            raise UserError(f"score {score.name}: {match[0]}: {_near(match[1], known)}")
        return str(known[match[1]])

    try:
        words = [re.sub(r"\{([\w.]+)\}", value, word) for word in shlex.split(score.command)]
    except ValueError as error:
        raise UserError(f"score {score.name}: {error}") from None
    if "{json}" not in score.command:
        raise UserError(f"score {score.name}: the command must write its figures to {{json}}")
    if words[0] in ("python", "python3"):
        words[0] = sys.executable
    if shutil.which(words[0]) is None:
        raise UserError(f"score {score.name}: no program {words[0]}")
    if words[0] == sys.executable and words[1].endswith(".py") and not Path(words[1]).is_file():
        raise UserError(f"score {score.name}: no file {words[1]}")
    return words


def _near(name: str, known: Iterable[str]) -> str:
    """As `closest`, for a list too long to print."""
    said = closest(name, known)
    return (
        f"no such placeholder; {{run}}, {{json}}, {{row}} or a setting{said[said.rfind(';') :] if ';' in said else ''}"
    )
