"""An ablation's YAML → rows and seeds, read and checked before anything runs."""

import dataclasses
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

from t2i import config
from t2i.ablation.commands import fill
from t2i.ablation.trials import Ablation, Row, Score, Trial
from t2i.config import Config
from t2i.errors import UserError, closest, one_line

NAME = re.compile(r"\w[\w.+-]*")
OURS = ("name", "runs", "seed", "resume")  # what the ablation itself sets in every run
FIELDS = ("name", "config", "overrides", "seeds", "rows", "prompts", "pictures", "reference", "scores", "processes")


def load(
    path: str | Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (),
    only: Collection[str] = (),
    redo: Collection[str] = (),
) -> Ablation:
    """Reads an ablation; `overrides` come last in every row, `seeds` replace the file's.

    only: the rows to run (none: all of them); redo: those of them to run anew ("all": each).
    Raises UserError that names every row, score and field that is wrong.
    """
    path = Path(path)
    given, problems = _read(path), list[str]()
    a = _outline(path, given, overrides, seeds, problems)
    a.only = _among(only, a, "--only") or {row.name for row in a.rows}
    a.redo = set(a.only) if list(redo) == ["all"] else _among(redo, a, "--redo") & a.only
    settings = {row.name: found for row in a.rows if (found := _check(row, problems))}
    _refuse(path, problems)
    first = settings[a.rows[0].name]
    a.reference, a.prompts = a.reference or first.data.shards, a.prompts or first.log.prompts
    if a.pictures and "pipe:" in a.reference:  # a report is looked at, and should not run anything for it
        problems.append(f"reference={a.reference}: a report runs no command; name shards, or set pictures: 0")
    for seed in [*a.seeds, *seeds_run(a)]:
        for row in a.rows:
            made = dataclasses.replace(settings[row.name], name=f"{row.name}-{seed}", runs=str(a.folder), seed=seed)
            a.trials.append(Trial(row, seed, a.folder / made.name, made))
    for score in a.scores:
        try:
            fill(score, a.trials[0])
        except UserError as error:
            problems.append(str(error))
    _refuse(path, problems)
    return a


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise UserError(f"{path}: " + "; ".join(problems))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(
            f"ablation {path}: no such file; {closest(str(path), map(str, Path('configs').glob('*.yaml')))}"
        )
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _OnceOnly)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"ablation {path}: {one_line(error)}") from None
    if not isinstance(given, dict) or not isinstance(given.get("rows"), dict) or not given["rows"]:
        raise UserError(f"ablation {path}: needs rows, a mapping from a row's name to its overrides")
    return given


def _outline(
    path: Path, given: dict[str, Any], overrides: Sequence[str], seeds: Sequence[int], problems: list[str]
) -> Ablation:
    """The ablation as its YAML has it, without trials: rows are not yet configurations."""
    problems += [f"{key}: no such setting; {closest(str(key), FIELDS)}" for key in given if key not in FIELDS]
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
    return Ablation(
        name, path, rows, list(dict.fromkeys(chosen)), scores, list(prompts),
        numbers["pictures"], str(given.get("reference") or ""), numbers["processes"],
    )  # fmt: skip


def _among(names: Collection[str], a: Ablation, option: str) -> set[str]:
    """The names, each of which must be a row's."""
    known = [row.name for row in a.rows]
    for name in names:
        if name not in known:
            raise UserError(f"{option} {name}: no such row; {closest(name, known)}")
    return set(names)


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


def _check(row: Row, problems: list[str]) -> Config | None:
    """The row's settings, or a problem."""
    try:
        for item in row.overrides:
            if item.split("=")[0] in OURS:
                raise UserError(f"{item}: the ablation sets {item.split('=')[0]} itself; leave it out")
        if not row.config:
            raise UserError("no config; name a YAML for all rows (config: configs/x.yaml) or for this one")
        settings = config.load(row.config, row.overrides)
        from t2i import build  # here, so that mistakes in names and options need not wait for torch

        build.objectives(settings)
        if settings.train.minutes:
            raise UserError(
                f"train.minutes={settings.train.minutes:g}: rows are compared at equal kimg; set train.kimg and "
                "train.minutes=0"
            )
    except UserError as error:
        problems.append(f"row {row.name}: {error}")
        return None
    return settings
