"""What the folders of an ablation's runs tell: what is done, what is missing, what has changed, what came out."""

import dataclasses
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from t2i import config
from t2i.ablation.commands import steps
from t2i.ablation.trials import PICTURES, Ablation, Score, Step, Trial, flat, score_file
from t2i.config import Config
from t2i.errors import UserError, closest
from t2i.files import write_json
from t2i.model import DESCRIPTION, newest_checkpoint


def differences(old: Config, new: Config) -> list[str]:
    """'train.kimg=4, now 8' for every setting that differs, those that only say where a run lies aside."""
    a, b = (flat(dataclasses.asdict(c), ".") for c in (old, new))
    keys = [k for k in {**a, **b} if k not in ("name", "runs", "resume") and a.get(k) != b.get(k)]
    return [f"{k}={a.get(k, 'unset')}, now {b.get(k, 'unset')}" for k in keys]


def read_stored(file: Path) -> Config:
    """The configuration of a run's folder, as to_yaml wrote it. UserError where it is anything else."""
    try:
        text = file.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("refers to itself")  # such references can stand for more than any memory holds
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(" ".join(str(error).split())) from None
    return config.from_dict(values)


def changed(trial: Trial) -> list[str]:
    """What differs from the configuration that the trial's checkpoint was trained with; empty: it may go on."""
    file = trial.folder / "config.yaml"
    if not newest_checkpoint(trial.folder) or not file.is_file():
        return []
    try:
        return differences(read_stored(file), trial.settings)
    except UserError as error:
        return [f"{file} cannot be read: {error}"]


def kimg(trial: Trial) -> float:
    """How far the newest checkpoint is; 0 where there is none."""
    folder = newest_checkpoint(trial.folder)
    if not folder:
        return 0.0
    try:
        return float(json.loads((folder / DESCRIPTION).read_text())["kimg"])
    except (OSError, ValueError, KeyError):
        return 0.0


def trained(trial: Trial) -> bool:
    return kimg(trial) >= trial.settings.train.kimg


def notes(trial: Trial) -> dict[str, dict[str, Any]]:
    """What was noted of the trial's steps: name → ok, command, seconds, error, kimg."""
    try:
        return json.loads((trial.folder / "ablation.json").read_text())
    except (OSError, ValueError):
        return {}


def note(trial: Trial, step: Step, seconds: float, error: list[str]) -> None:
    """Keeps the outcome of a step; `error`: its last lines where it failed."""
    known = notes(trial) | {
        step.name: {
            "ok": not error, "seconds": round(seconds, 1), "error": error, "kimg": kimg(trial), "command": step.command,
        }
    }  # fmt: skip
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_json(trial.folder / "ablation.json", known)


def missing(a: Ablation, trial: Trial) -> list[Step]:
    """The steps still to do. A score is done again when its command has changed or the run was trained further."""
    every = steps(a, trial)
    if not trained(trial):
        return every
    known, now = notes(trial), kimg(trial)

    def done(step: Step) -> bool:
        old = known.get(step.name, {})
        return bool(old.get("ok")) and old.get("command") == step.command and old.get("kimg") == now

    return [step for step in every[1:] if not done(step)]


def read_scores(trial: Trial, score: Score) -> dict[str, float]:
    """The figures that a score's command wrote. Raises UserError where the file or a figure asked for is missing."""
    file = score_file(trial, score.name)
    try:
        found = flat(json.loads(file.read_text()), "/")
    except OSError:
        raise UserError(f"score {score.name}: the command wrote no {file}") from None
    except (ValueError, AttributeError):
        raise UserError(f"score {score.name}: {file} is not a JSON object") from None
    numbers = {k: float(v) for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    for key in score.keys:
        if key not in found:
            raise UserError(f"score {score.name}: no {key} in {file}; {closest(key, found)}")
    return {k: v for k, v in numbers.items() if (k in score.keys or not score.keys) and math.isfinite(v)}


@dataclass
class Outcome:
    """What is known of a trial."""

    trial: Trial
    state: str  # finished, failed, not run, other settings, or how far it is
    error: list[str]  # last lines of the step that failed
    kimg: float
    seconds_per_kimg: float | None
    memory_gb: float | None
    scores: dict[str, float]  # "probe seen/both" → value
    curves: dict[str, list[tuple[float, float]]]  # "D/r1" → (kimg, mean since the last) in order
    pictures: list[list[Path]]  # a row a prompt, a column a latent


def outcome(a: Ablation, trial: Trial, state: str = "") -> Outcome:
    """Reads a trial's folder. `state`: what it is doing, where it is neither finished nor failed."""
    if changed(trial):
        return Outcome(trial, "other settings", [], kimg(trial), None, None, {}, {}, [])
    known, lines = notes(trial), metric_lines(trial.folder)
    failed = [entry for entry in known.values() if entry.get("error")]
    reached = kimg(trial)
    if not state:
        undone = f"stopped at {reached:g} kimg" if reached else "not run"
        state = "failed" if failed else "finished" if not missing(a, trial) else undone
    scores: dict[str, float] = {}
    for score in a.scores:
        if known.get(score.name, {}).get("ok"):
            try:
                scores |= {f"{score.name} {k}": v for k, v in read_scores(trial, score).items()}
            except UserError:
                continue
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if ("/" in key or key == "ada_p") and isinstance(value, int | float) and math.isfinite(value):
                curves.setdefault(key, []).append((line["kimg"], value))
    drawn: list[list[Path]] = []
    if known.get(PICTURES, {}).get("ok"):
        for i in range(len(a.prompts)):
            drawn.append(
                [p for k in range(a.pictures) for p in (trial.folder / PICTURES).glob(f"{i:04d}-*-seed{k}.png")]
            )
    return Outcome(
        trial, state, failed[-1]["error"] if state == "failed" else [], reached,
        seconds_per_kimg(lines), max((x["memory_gb"] for x in lines if "memory_gb" in x), default=None),
        scores, curves, drawn,
    )  # fmt: skip


def metric_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that is being written is left out."""
    lines = []
    try:
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                continue
    except OSError:
        pass
    return [line for line in lines if isinstance(line, dict) and "kimg" in line]


def seconds_per_kimg(lines: list[dict[str, Any]]) -> float | None:
    """The median, without the first line, in which the run warms up, where there are others."""
    values = [line["seconds_per_kimg"] for line in lines if "seconds_per_kimg" in line]
    return statistics.median(values[1:] or values) if values else None
