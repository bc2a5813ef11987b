"""What algorithms are compared on: cells of algorithm x setting, each on the same prompts and seeds. Nothing heavy.

t2i/search/compare.py runs them.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2i.errors import UserError, closest
from t2i.search import algorithms
from t2i.search.settings import PRESETS, Settings, Stopping

SHAPES = tuple(name for name in PRESETS if name != "quick")
BASE = "best_of_n"  # what the others are compared with
# Fields of Settings that a comparison sets itself; the others are its options, and the same in every cell.
VARIED = {"algorithm", "preset", "population", "generations", "seed", "baseline", *(f.name for f in fields(Stopping))}
DEFAULTS: dict[str, Any] = {"budget": 2000, "space": "w"}  # other than the search's


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which algorithms, on what. UserError where values make no sense."""

    algorithms: str = ""  # separated by commas (all)
    settings: str = ",".join(SHAPES)  # presets, made smaller to the budget
    prompts: int = 5  # captions of held-out pairs
    file: Path | None = None  # captions of your own, one a line, instead; then without the probe
    seeds: int = 3  # of each algorithm, setting and caption
    minutes: float = math.inf  # start no run after these

    def __post_init__(self):
        for name in ("prompts", "seeds"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} {getattr(self, name)}: must be 1 or more")
        for name in self.names:
            algorithms.check(name)
        for name in self.settings.split(","):
            if name not in SHAPES:
                raise UserError(f"--settings {name}: {closest(name, SHAPES)}")

    @property
    def names(self) -> list[str]:
        """Of the algorithms."""
        return self.algorithms.split(",") if self.algorithms else algorithms.known()


@dataclass(frozen=True)
class Cell:
    """An algorithm at a setting, over all seeds."""

    setting: str  # of SHAPES
    settings: Settings


def shared_settings(given: dict[str, Any]) -> dict[str, Any]:
    """What all cells have in common: every field of Settings that is not varied, as given or by default."""
    defaults = {f.name: f.default for f in fields(Settings) if f.name not in VARIED}
    return defaults | DEFAULTS | given


def build_cells(comparison: Comparison, shared: dict[str, Any]) -> list[Cell]:
    """The base first, for the others are told in its standard deviations."""
    budget = shared["budget"]
    if budget < 1:
        raise UserError(f"--budget {budget}: must be 1 or more")
    settings, others = comparison.settings.split(","), [name for name in comparison.names if name != BASE]
    pairs = [(BASE, SHAPES[0])] + [(name, setting) for name in others for setting in settings]
    cells = []
    for name, setting in pairs:
        population, generations = shape(setting, budget)
        cost = budget if name == BASE else population * generations
        kind = algorithms.find(name)
        own = {"algorithm": name, "budget": cost, "population": max(min(population, cost), kind.min_population)}
        if kind.objectives > 1:
            own["objective"] = ""
        cells.append(Cell(setting, Settings(**shared | own | {"baseline": False})))
    return cells


def shape(setting: str, budget: int) -> tuple[int, int]:
    """A preset's population and generations, both made smaller alike until their product is the budget."""
    population, generations = PRESETS[setting]
    population = max(round(population * math.sqrt(budget / (population * generations))), 1)
    return population, max(budget // population, 1)
