"""What is searched, with what, and when it ends."""

import math
from dataclasses import dataclass

from t2i.errors import UserError
from t2i.search import algorithms, spaces

PRESETS = {  # population, generations
    "quick": (50, 20),
    "100x1000": (100, 1000),
    "200x500": (200, 500),
    "500x200": (500, 200),
    "1000x100": (1000, 100),
}
SCENES = ("scenes-clip", "scenes-clip-score")  # the encoder that scenes were trained with, and the one held out


@dataclass(frozen=True)
class Settings:
    """What is searched, with what, and when it ends. UserError where values make no sense."""

    algorithm: str = "sep_cma"
    population: int = 50
    budget: int = 1000  # evaluations a prompt, on average over prompts; a gradient step counts as three
    space: str = "z"
    objective: str = ""  # see objectives.parse; "" is clip+contrast+d_text+d_contrast, for nsga2 clip,d
    scorer: str = ""  # CLIPs of `clip`; "" is the one that the model was trained with
    held_out: str = ""  # CLIPs that only look; "" is the second one of scenes, if the first is optimised
    views: int = 4  # of a picture, that its CLIP score is the mean of
    seed: int = 0
    truncation: float = 1.0
    noise: str = "const"
    batch: int = 16  # pictures a pass
    top_k: int = 4
    target: float | None = None  # score at which a prompt is done
    minutes: float | None = None
    plateau: float | None = None  # stop when the last quarter brought less than this share of the gain; 0 never
    baseline: bool = True

    def __post_init__(self):
        kind = algorithms.find(self.algorithm)
        for name in ("population", "budget", "views", "batch", "top_k"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be 1 or more")
        if self.population < kind.smallest:
            raise UserError(f"population={self.population}: {self.algorithm} needs {kind.smallest} or more")
        if self.population > self.budget:
            raise UserError(
                f"population={self.population}: more than the budget of {self.budget} evaluations; "
                f"use a population of {max(self.budget // 20, kind.smallest)} or a bigger budget"
            )
        for name in ("target", "minutes", "plateau", "truncation"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise UserError(f"{name}={value}: must be a number")
        if self.minutes is not None and self.minutes <= 0:
            raise UserError(f"minutes={self.minutes}: must be more than 0")
        if self.plateau is not None and not 0 <= self.plateau < 1:
            raise UserError(f"plateau={self.plateau}: a share of the gain, from 0 (never stop) to below 1")
        if self.noise not in ("const", "random"):
            raise UserError(f"noise={self.noise}: const or random")
        spaces.parse(self.space)
