"""An ablation's YAML → trials: rows of overrides × seeds, each a training run of its own, and the commands of each."""

import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from t2i import config, losses
from t2i.config import Config
from t2i.errors import UserError, closest
from t2i.model import backbone

ROOT = Path(__file__).parents[2]
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
    seeds: list[int]  # to run
    scores: list[Score]
    prompts: list[str]
    pictures: int  # latents a prompt in the side-by-side; 0 = none
    reference: str  # shards of the real pictures there
    processes: int  # training processes (devices) of a run
    trials: list[Trial] = field(
        default_factory=list
    )  # all rows of the first seed first; also those of seeds that ran before

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
    for seed in [*a.seeds, *seeds_run(a)]:
        for row in rows:
            made = dataclasses.replace(settings[row.name], name=f"{row.name}-{seed}", runs=str(a.folder), seed=seed)
            a.trials.append(Trial(row, seed, a.folder / made.name, made))
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


def seeds_run(a: Ablation) -> list[int]:
    """Other seeds than asked for that rows were trained with before: they stay on the page."""
    names = "|".join(re.escape(row.name) for row in a.rows)
    found = (re.fullmatch(rf"(?:{names})-(\d+)", file.parent.name) for file in a.folder.glob("*/config.yaml"))
    return sorted({int(match[1]) for match in found if match} - set(a.seeds))


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


def flat(values: dict[str, Any], separator: str) -> dict[str, Any]:
    """{a: {b: 1}} → {"a/b": 1}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            out |= {f"{key}{separator}{k}": v for k, v in flat(value, separator).items()}
        else:
            out[str(key)] = value
    return out
