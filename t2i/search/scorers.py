"""Whoever scores the pictures of a search: the CLIPs, the discriminator, a function of the caller's own."""

from dataclasses import dataclass
from typing import Any

import torch

from t2i.encoders.clip import Clip, load_clip
from t2i.encoders.pretrained.named import named_by
from t2i.errors import UserError
from t2i.model import CRITIC, Model, load_discriminator
from t2i.search import algorithms
from t2i.search.language import TERMS, parse_objective
from t2i.search.objectives import Objective
from t2i.search.settings import Settings

SCENES = ("scenes-clip", "scenes-clip-score")  # the encoder that scenes were trained with, and the one held out


@dataclass
class Scorers:
    """What the prompts of one search have in common."""

    parts: list[dict[str, float]]  # {term: weight}, one an objective
    clips: list[Clip]
    held_out: list[Clip]
    critic: Any  # the discriminator, None where the model folder has none
    objective: Objective | None  # in place of `parts`
    notes: list[str]  # what a person should know


def load_scorers(model: Model, settings: Settings, objective: Objective | None = None) -> Scorers:
    """UserError where something that is needed is not there."""
    critic, missing = load_discriminator(model), f"{model.path} holds no {CRITIC} (checkpoints of a training do)"
    kind, scorer = algorithms.find(settings.algorithm), settings.scorer or own_clip(model)
    notes = [] if critic is not None else [f"no D score: {missing}"]
    if objective is not None:
        given, parts = "", [{"objective": 1.0}]
        if kind.objectives > 1:
            raise UserError(f"objective: {settings.algorithm} takes {kind.objectives}, not a function of your own")
    else:
        given = settings.objective or default_objective(model, kind.objectives, scorer, critic, notes)
        parts = parse_objective(given)
    if len(parts) > 1:
        notes.append("score: the mean of the objectives, each in standard deviations of plain samples")
    needed = {TERMS[name].judge for part in parts for name in part if name in TERMS}
    terms = {judge: ", ".join(n for n, t in TERMS.items() if t.judge == judge) for judge in ("CLIP", "discriminator")}
    if "discriminator" in needed and critic is None:
        raise UserError(f"--objective {given}: {missing}; use {terms['CLIP']}")
    if "CLIP" in needed and not scorer:
        raise UserError(
            f"--objective {given}: {model.path} was trained without a CLIP (encoders.clip is empty); "
            f"name one with --scorer, or use {terms['discriminator']}"
        )
    clips = load_clips(scorer, model.device, "--scorer") if "CLIP" in needed else []
    held_out = settings.held_out or (SCENES[1] if scorer == SCENES[0] else "")
    if held_out and clips and set(held_out.split(",")) & set(scorer.split(",")):
        raise UserError(f"--held-out {held_out}: is optimised too; name another CLIP, or leave it out")
    if not held_out:
        notes.append("no held-out scorer: --held-out names a second CLIP, to see what only the optimised one believes")
    watching = load_clips(held_out, model.device, "--held-out") if held_out else []
    return Scorers(parts, clips, watching, critic, objective, notes)


def own_clip(model: Model) -> str:
    """The CLIP that the model was trained with; "" where with none."""
    name = model.config.encoders.clip
    try:
        return name and named_by(name, model.path)
    except UserError as error:
        raise UserError(f"{error}; or name a CLIP with --scorer") from None


def default_objective(model: Model, count: int, scorer: str, critic: Any, notes: list[str]) -> str:
    """By what the model has networks for: `count` objectives."""
    if not scorer and critic is None:
        raise UserError(
            f"{model.path}: has neither a CLIP (encoders.clip) nor a {CRITIC} to search by; name a CLIP with --scorer"
        )
    if not scorer:
        notes.append("no CLIP: only the discriminator is optimised (encoders.clip is empty; --scorer names one)")
    if count == 2:
        if critic is None:
            notes.append("the second objective is `typical`: likeness to plain samples, in place of the discriminator")
        return ("clip," if scorer else "d_text,") + ("d" if critic is not None else "typical")
    return "+".join(["clip+contrast"] * bool(scorer) + ["d_text+d_contrast"] * (critic is not None))


def load_clips(names: str, device: torch.device, option: str) -> list[Clip]:
    """The CLIPs of a comma-separated list; UserError with the option that names others."""
    try:
        return [load_clip(name, device) for name in names.split(",")]
    except UserError as error:
        raise UserError(f"{option} {names}: {error}; or name another CLIP with {option}") from None
