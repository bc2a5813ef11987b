"""An ablation: rows of overrides × seeds, each a training run of its own, and what the runs' folders tell of them.

Nothing here starts a process (scripts/ablate.py does) or writes a page (t2i/report.py does).
"""

import dataclasses
import json
import math
import os
import re
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from t2i import config, losses
from t2i.config import Config
from t2i.errors import UserError, closest
from t2i.sampling import DESCRIPTION, backbone, newest_checkpoint

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"\w[\w.+-]*")
OURS = ("name", "runs", "seed", "resume")  # what the ablation itself sets in every run
TRAIN, PICTURES = "training", "pictures"  # steps of a trial; between them, one a score


@dataclass(frozen=True)
class Row:
    """What is compared: a configuration and what is changed in it."""

    name: str
    config: str
    overrides: tuple[str, ...]  # the ablation's, then the row's own, then those of the command line
    own: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """A command that writes a JSON of numbers about a finished run. Nested objects become one: {a: {b: 1}} is a/b."""

    name: str
    command: str
    higher: tuple[str, ...] = ()  # keys of which more is better
    lower: tuple[str, ...] = ()  # keys of which less is better; with neither, all numbers are shown, unjudged

    @property
    def keys(self) -> tuple[str, ...]:
        return self.higher + self.lower


@dataclass
class Step:
    """One command of a trial."""

    name: str
    command: list[str]


@dataclass
class Trial:
    """A row with a seed: one training run."""

    row: Row
    seed: int
    folder: Path
    settings: Config

    @property
    def name(self) -> str:
        return self.folder.name


@dataclass
class Ablation:
    """An ablation's YAML, checked."""

    name: str
    path: Path
    rows: list[Row]
    seeds: list[int]
    scores: list[Score]
    prompts: list[str]
    pictures: int  # latents a prompt in the side-by-side; 0 = none
    reference: str  # shards of the real pictures there
    processes: int  # training processes (devices) of a run
    trials: list[Trial] = field(default_factory=list)  # rows × seeds, all rows of the first seed first

    @property
    def folder(self) -> Path:
        return Path("runs") / self.name


# ---- the YAML


FIELDS = ("name", "config", "overrides", "seeds", "rows", "prompts", "pictures", "reference", "scores", "processes")


def load(path: str | Path, overrides: Sequence[str] = (), seeds: Sequence[int] = ()) -> Ablation:
    """Reads an ablation; `overrides` come last in every row, `seeds` replace the file's.

    Raises UserError that names every row, score and field that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"ablation {path}: no such file; {closest(str(path), map(str, Path('configs').glob('*.yaml')))}"
        )
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _OnceOnly)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"ablation {path}: {' '.join(str(error).split())}") from None
    if not isinstance(given, dict) or not isinstance(given.get("rows"), dict) or not given["rows"]:
        raise UserError(f"ablation {path}: needs rows, a mapping from a row's name to its overrides")
    problems = [f"{key}: no such setting; {closest(str(key), FIELDS)}" for key in given if key not in FIELDS]
    base, common = str(given.get("config", "")), _strings(given.get("overrides"), "overrides", problems)
    rows = [_row(name, value, base, common, tuple(overrides), problems) for name, value in given["rows"].items()]
    scores = [_score(name, value, problems) for name, value in (given.get("scores") or {}).items()]
    chosen = list(seeds) or given.get("seeds", [0])
    if not isinstance(chosen, list) or not chosen or not all(type(s) is int and s >= 0 for s in chosen):
        problems.append(f"seeds={chosen}: a list of whole numbers, 0 or more")
        chosen = [0]
    numbers = {}
    for key, value, least in (("pictures", 2, 0), ("processes", 1, 1)):
        numbers[key] = given.get(key, value)
        if type(numbers[key]) is not int or numbers[key] < least:
            problems.append(f"{key}={numbers[key]}: a whole number, {least} or more")
    name = str(given.get("name", path.stem))
    if not NAME.fullmatch(name):
        problems.append(f"name={name}: letters, digits and . _ + - only: it names a folder")
    prompts = _strings(given.get("prompts"), "prompts", problems)
    a = Ablation(
        name, path, rows, list(dict.fromkeys(chosen)), scores, list(prompts),
        numbers["pictures"], str(given.get("reference") or ""), numbers["processes"],
    )  # fmt: skip
    settings = {row.name: found for row in rows if (found := _check(row, a.processes, problems))}
    if problems:
        raise UserError(f"{path}: " + "; ".join(problems))
    first = settings[rows[0].name]
    a.reference, a.prompts = a.reference or first.data.shards, a.prompts or first.log.prompts
    for seed in a.seeds:
        for row in rows:
            made = dataclasses.replace(
                settings[row.name], name=f"{row.name}-{seed}", runs=str(a.folder), seed=seed
            )  # fmt: skip
            a.trials.append(Trial(row, seed, a.folder / f"{row.name}-{seed}", made))
    for score in scores:
        try:
            fill(score, a.trials[0])
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{path}: " + "; ".join(problems))
    return a


class _OnceOnly(yaml.SafeLoader):
    """YAML in which a name that stands twice is a mistake and not the end of the first."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value!r} stands twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _strings(value: Any, what: str, problems: list[str]) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        problems.append(f"{what}: a list of texts, such as [train.kimg=4, train.batch=8]")
        return ()
    return tuple(value)


def _row(
    name: Any, value: Any, base: str, common: tuple[str, ...], last: tuple[str, ...], problems: list[str]
) -> Row:  # fmt: skip
    where = f"row {name}"
    if not NAME.fullmatch(str(name)):
        problems.append(f"{where}: letters, digits and . _ + - only: it names a folder")
    if isinstance(value, dict):
        for key in value:
            if key not in ("config", "overrides"):
                problems.append(f"{where}: {key}: no such setting; {closest(str(key), ('config', 'overrides'))}")
        base, value = str(value.get("config", base)), value.get("overrides")
    own = _strings(value, where, problems)
    return Row(str(name), base, (*common, *own, *last), own)


def _score(name: Any, value: Any, problems: list[str]) -> Score:
    where = f"score {name}"
    if isinstance(value, str):
        value = {"command": value}
    if not isinstance(value, dict) or not isinstance(value.get("command"), str) or not value["command"].strip():
        problems.append(f"{where}: a command, such as python scripts/probe.py --checkpoint {{run}} --json {{json}}")
        return Score(str(name), "true")
    if not NAME.fullmatch(str(name)):
        problems.append(f"{where}: letters, digits and . _ + - only: it names a file")
    for key in value:
        if key not in ("command", "higher", "lower"):
            problems.append(f"{where}: {key}: no such setting; {closest(str(key), ('command', 'higher', 'lower'))}")
    higher, lower = (_strings(value.get(key), f"{where}: {key}", problems) for key in ("higher", "lower"))
    return Score(str(name), value["command"], higher, lower)


def _check(row: Row, devices: int, problems: list[str]) -> Config | None:
    """The row's settings, or a problem."""
    try:
        for item in row.overrides:
            if item.split("=")[0] in OURS:
                raise UserError(f"{item}: the ablation sets {item.split('=')[0]} itself; leave it out")
        if not row.config:
            raise UserError("no config; name a YAML for all rows (config: configs/x.yaml) or for this one")
        settings = config.load(row.config, row.overrides, devices)
        for table in (losses.GENERATOR, losses.DISCRIMINATOR):
            losses.choose(table, settings.loss)
        backbone(settings.model.name)
        if settings.train.minutes:
            raise UserError(
                f"train.minutes={settings.train.minutes:g}: rows are compared at equal kimg; set train.kimg and "
                "train.minutes=0"
            )
    except UserError as error:
        problems.append(f"row {row.name}: {error}")
        return None
    return settings


# ---- the commands of a trial


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


def score_file(trial: Trial, name: str) -> Path:
    return trial.folder / "scores" / f"{name}.json"


# ---- what a run's folder tells


def flat(values: dict[str, Any], separator: str) -> dict[str, Any]:
    """{a: {b: 1}} → {"a/b": 1}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= {f"{key}{separator}{k}": v for k, v in flat(value, separator).items()}
        else:
            out[str(key)] = value
    return out


def differences(old: Config, new: Config) -> list[str]:
    """'train.kimg=4, now 8' for every setting that differs, those that only say where a run lies aside."""
    a, b = (flat(dataclasses.asdict(c), ".") for c in (old, new))
    keys = [k for k in {**a, **b} if k not in ("name", "runs", "resume") and a.get(k) != b.get(k)]
    return [f"{k}={a.get(k, 'unset')}, now {b.get(k, 'unset')}" for k in keys]


def changed(trial: Trial) -> list[str]:
    """What differs from the configuration that the trial's checkpoint was trained with; empty: it may go on."""
    file = trial.folder / "config.yaml"
    if not newest_checkpoint(trial.folder) or not file.is_file():
        return []
    try:
        return differences(config.load(file), trial.settings)
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
    partial = trial.folder / "ablation.json.partial"
    partial.write_text(json.dumps(known, indent=2) + "\n")
    os.replace(partial, trial.folder / "ablation.json")


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
    state: str  # finished, failed, not run, or how far it is
    error: list[str]  # last lines of the step that failed
    kimg: float
    seconds_per_kimg: float | None
    memory_gb: float | None
    scores: dict[str, float]  # "probe seen/both" → value
    curves: dict[str, list[tuple[float, float]]]  # "D/r1" → (kimg, mean since the last) in order
    pictures: list[list[Path]]  # a row a prompt, a column a latent


def outcome(a: Ablation, trial: Trial, state: str = "") -> Outcome:
    """Reads a trial's folder. `state`: what it is doing, where it is neither finished nor failed."""
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
