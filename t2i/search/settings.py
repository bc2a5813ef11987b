"""What is searched, with what, and when it ends: one dataclass, whose fields are also the options of the commands.

Imports nothing heavy. Defaults that depend on other settings are `OPEN`, and `resolve` fills them in.
"""

import math
from dataclasses import dataclass, replace

from t2i.errors import UserError, closest
from t2i.options import OPEN
from t2i.prompts import Sampling
from t2i.search import algorithms
from t2i.search.language import TERMS, parse_objective, parse_space

PRESETS = {  # population, generations
    "quick": (50, 20),
    "100x1000": (100, 1000),
    "200x500": (200, 500),
    "500x200": (500, 200),
    "1000x100": (1000, 100),
}
PLATEAU = 0.01  # of the whole gain: the plateau at which one of several prompts stops


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When a prompt is done, and how much is shown of it: may be other values when a search goes on."""

    top_k: int = 4  # distinct pictures a prompt
    target: float | None = None  # stop a prompt at this score
    minutes: float | None = None  # stop then; the same command goes on
    # stop a prompt whose last quarter brought less than this share of its gain; 0 never (0.01 with several prompts)
    plateau: float = OPEN

    def __post_init__(self):
        for name in ("target", "minutes", "plateau"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UserError(f"{name}={value}: must be a number")
        if self.top_k < 1:
            raise UserError(f"top_k={self.top_k}: must be 1 or more")
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f"minutes={self.minutes}: must be more than 0")
        if self.plateau is not None and not 0 <= self.plateau < 1:
            raise UserError(f"plateau={self.plateau}: a share of the gain, from 0 (never stop) to below 1")


@dataclass(frozen=True, kw_only=True)
class Settings(Sampling, Stopping):
    """All that a search can be told. UserError where values make no sense."""

    algorithm: str = "sep_cma"  # one of the algorithms below
    preset: str = OPEN  # population x generations by name: one of the presets below (quick)
    population: int = OPEN  # candidates a generation (50)
    generations: int = OPEN  # generations a prompt (20)
    # evaluations a prompt, shared among prompts, in place of --generations; a step with a gradient counts as three
    budget: int = OPEN
    space: str = "z"  # z or w, with +truncation and +noise to search those too
    # a sum, as clip+0.1*d, of the terms below; two with a comma for nsga2 (clip+contrast+d_text+d_contrast, or those
    # that the model has networks for; of nsga2 clip,d)
    objective: str = ""
    scorer: str = ""  # CLIPs that are optimised, separated by commas (the one the model was trained with)
    held_out: str = ""  # CLIPs that only look (for scenes: scenes-clip-score)
    views: int = 4  # augmented views a picture that CLIP's score is the mean of
    baseline: bool = True  # draw as many plain samples beside, to say what the search bought

    def __post_init__(self):
        Sampling.__post_init__(self)
        Stopping.__post_init__(self)
        for name in ("population", "generations", "budget", "views"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value}: must be 1 or more")
        algorithms.check(self.algorithm)
        population, budget = sizes(self)
        if population > budget:
            raise UserError(
                f"population={population}: more than the budget of {budget} evaluations; "
                "use a smaller population or a bigger budget"
            )
        parse_space(self.space)
        parts = parse_objective(self.objective) if self.objective else None
        kind = algorithms.find(self.algorithm)  # last, for it may take a second to import
        if population < kind.min_population:
            raise UserError(f"population={population}: {self.algorithm} needs {kind.min_population} or more")
        if parts is not None and len(parts) != kind.objectives:
            remedy = {1: "join them to a sum, as clip+0.1*d", 2: "separate two by a comma, as clip,d"}[kind.objectives]
            raise UserError(f"--objective {self.objective}: {self.algorithm} takes {kind.objectives}; {remedy}")


def sizes(settings: Settings) -> tuple[int, int]:
    """(candidates a generation, evaluations a prompt): of a preset, or of two of population, generations and budget."""
    population, generations, budget = settings.population, settings.generations, settings.budget
    preset = settings.preset or "quick"
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: {closest(preset, PRESETS)}")
    if settings.preset and (population, generations, budget) != (None, None, None):
        raise UserError(f"--preset {preset}: leave it out, or --population, --generations and --budget")
    if population is None and generations is not None and budget is not None:
        population = budget // generations
    if population is None:
        population = PRESETS[preset][0]
    product = population * (PRESETS[preset][1] if generations is None else generations)
    if generations is not None and budget is not None and budget != product:
        raise UserError(f"--budget {budget}: is not population x generations = {product}; give two of the three")
    return population, product if budget is None else budget


def resolve(settings: Settings, prompts: int = 1, accelerator: bool = False) -> Settings:
    """The same with every `OPEN` default filled in, as the record keeps it: preset and generations in population and
    budget, the batch by the device, the plateau by the number of prompts."""
    population, budget = sizes(settings)
    batch = settings.batch if settings.batch is not None else 64 if accelerator else 16
    plateau = settings.plateau if settings.plateau is not None else PLATEAU * (prompts > 1)
    return replace(
        settings, preset=OPEN, generations=OPEN, population=population, budget=budget, batch=batch, plateau=plateau
    )


def choices() -> str:
    """What may be chosen from, for a command's help."""
    terms = {name: f"{term.judge}: {term.says}" for name, term in TERMS.items()}
    presets = {name: "{} candidates, {} generations".format(*shape) for name, shape in PRESETS.items()}
    tables = {"algorithms": algorithms.summaries(), "terms of an objective": terms, "presets": presets}
    return "\n\n".join(
        f"{title}:\n" + "\n".join(f"  {name:<14}{about}" for name, about in table.items())
        for title, table in tables.items()
    )
