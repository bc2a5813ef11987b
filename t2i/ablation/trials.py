"""What an ablation is made of: rows of overrides × seeds, each pair a trial, and the scores of each."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.config import Config

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
    only: set[str] = field(default_factory=set)  # rows to run
    redo: set[str] = field(default_factory=set)  # of those, rows whose runs are deleted first
    # All rows of the first seed come first; those of seeds that ran before stay in the list, and on the page.
    trials: list[Trial] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path("runs") / self.name

    @property
    def chosen(self) -> list[Trial]:
        """The trials to run."""
        return [t for t in self.trials if t.row.name in self.only and t.seed in self.seeds]


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
