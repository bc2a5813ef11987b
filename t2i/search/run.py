"""The search itself: one budget of evaluations, spent on one prompt or shared by several."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t2i import parallel
from t2i.errors import UserError
from t2i.model import CRITIC, Model, load_discriminator
from t2i.search import algorithms, objectives
from t2i.search.hunt import Hunt, Result, Shared
from t2i.search.objectives import Objective
from t2i.search.record import Record
from t2i.search.settings import SCENES, Settings


def prepare(model: Model, prompts: int, settings: Settings, objective: Objective | None = None) -> Shared:
    """Encoders, discriminator and objectives; UserError where something needed is not there."""
    notes: list[str] = []
    critic, missing = load_discriminator(model), f"{model.path} holds no {CRITIC} (checkpoints of a training do)"
    if critic is None:
        notes.append(f"no D score: {missing}")
    kind = algorithms.find(settings.algorithm)
    given, scorer = settings.objective, settings.scorer or model.config.encoders.clip
    if not given:
        seen = ["clip+contrast"] if scorer else []
        seen += ["d_text+d_contrast"] if critic is not None else []
        if not seen and objective is None:
            raise UserError(
                f"{model.path}: has neither a CLIP (encoders.clip) nor a {CRITIC} to search by; "
                "name a CLIP with --scorer"
            )
        given = "+".join(seen)
        if kind.objectives == 2:
            given = ("clip," if scorer else "d_text,") + ("d" if critic is not None else "typical")
        if not scorer and objective is None:
            notes.append("no CLIP: only the discriminator is optimised (encoders.clip is empty; --scorer names one)")
        if kind.objectives == 2 and critic is None:
            notes.append("the second objective is `typical`: likeness to plain samples, in place of the discriminator")
    parts = objectives.parse(given) if objective is None else [{"objective": 1.0}]
    if len(parts) != kind.objectives:
        raise UserError(
            f"--objective {given}: {settings.algorithm} takes {kind.objectives}; "
            + ("join them to a sum, as clip+0.1*d" if kind.objectives == 1 else "separate two by a comma, as clip,d")
        )
    if len(parts) > 1:
        notes.append("score: the mean of the objectives, each in standard deviations of plain samples")
    terms = {name for part in parts for name in part}
    if terms & {"d", "d_text", "d_contrast"} and critic is None:
        raise UserError(f"--objective {given}: {missing}; use clip, contrast or typical")
    reads = terms & {"clip", "contrast", "typical"}
    if reads and not scorer:
        raise UserError(
            f"--objective {given}: {model.path} was trained without a CLIP (encoders.clip is empty); "
            "name one with --scorer, or use d, d_text and d_contrast"
        )
    clips = objectives.encoders(scorer, model.device, "--scorer") if reads else []
    held = settings.held_out or (SCENES[1] if scorer == SCENES[0] else "")
    shared_names = set(held.split(",")) & set(scorer.split(","))
    if held and shared_names and clips:
        raise UserError(f"--held-out {held}: is optimised too; name another CLIP, or leave it out")
    if not held:
        notes.append("no held-out scorer: --held-out names a second CLIP, to see what only the optimised one believes")
    watching = objectives.encoders(held, model.device, "--held-out") if held else []
    return Shared(prompts, parts, clips, watching, critic, objective, notes)


def search(
    model: Model,
    prompts: Sequence[str],
    settings: Settings | None = None,
    folder: str | Path | None = None,
    objective: Objective | None = None,
    head: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Callable[[Hunt, int, int], None] = lambda hunt, spent, total: None,
) -> list[Result]:
    """Searches for pictures of prompts: one result each.

    objective: any function from pictures [n, 3, H, W] in [-1, 1] to scores [n], in place of settings.objective.
    folder: keeps record.jsonl there; the same call goes on from what one already holds. head: more for its first line.
    """
    settings = settings or Settings()
    prompts = list(prompts)
    for prompt in prompts:
        if not prompt.strip():
            raise UserError(f"prompt {prompt!r}: empty; write what the picture should show")
    if not prompts or len(set(prompts)) < len(prompts):
        raise UserError("prompts: give at least one, and each once")
    shared = prepare(model, len(prompts), settings, objective)
    for note in shared.notes:
        say(note)
    path = Path(folder) / "record.jsonl" if folder else None
    first = parallel.rank() == 0
    record = Record(path, asdict(settings) | {"prompts": prompts} | (head or {}), first)
    parallel.total(torch.zeros(1, device=model.device))  # nobody writes before everybody has read
    try:
        if record.known:
            say(f"{path}: goes on after {record.count} candidates")
        hunts = [Hunt(model, prompt, i, settings, shared, record) for i, prompt in enumerate(prompts)]
        estimate(hunts, settings, say)
        spend(hunts, settings, watch)
        return [hunt.result() for hunt in hunts]
    finally:
        record.close()


def spend(hunts: list[Hunt], settings: Settings, watch: Callable[[Hunt, int, int], None]) -> None:
    """The budget of all prompts, by successive halving (1502.07943).

    In each of log₂(prompts) + 1 rounds those still searched share alike in what the round may spend; then the half
    that gained least stops. What a prompt leaves that reaches its target or a plateau goes to the others.
    """
    total = settings.budget * len(hunts)
    deadline = time.monotonic() + 60 * settings.minutes if settings.minutes else math.inf
    active, rounds = list(hunts), math.ceil(math.log2(len(hunts))) + 1
    for left in range(rounds, 0, -1):
        share = (total - sum(h.spent for h in hunts)) // left // max(len(active), 1)
        gains = {}
        for hunt in active:
            start, before = hunt.spent, hunt.best["search"]
            while hunt.spent - start + hunt.cost <= share or hunt.generation == 0:
                if hunt.generation and parallel.any_of(time.monotonic() > deadline, hunt.model.device):
                    hunt.stopped = "time is up"
                    break
                hunt.step()
                watch(hunt, sum(h.spent for h in hunts), total)
                if hunt.stopped:
                    break
            before = before if math.isfinite(before) else hunt.history[0]["best"]
            gains[hunt.number] = hunt.best["search"] - before
        active = sorted((h for h in active if not h.stopped), key=lambda h: -gains[h.number])
        if left > 1:
            for hunt in active[(len(active) + 1) // 2 :]:
                hunt.stopped = "others gained more"
            active = active[: (len(active) + 1) // 2]


def estimate(hunts: list[Hunt], settings: Settings, say: Callable[[str], None]) -> None:
    """Says before the start what the search will cost."""
    hunt, total = hunts[0], settings.budget * len(hunts)
    points = hunt.plain_space.project(np.ones((settings.batch, hunt.plain_space.dim)))
    hunt.evaluate_plain(points)
    start = time.perf_counter()
    hunt.evaluate_plain(points)
    rate = settings.batch * parallel.world() / (time.perf_counter() - start)
    pictures = total * (2 if settings.baseline and not hunt.same else 1)
    megabytes = pictures * (hunt.space.dim * 16 / 3 + 160) / 1e6
    minutes = f", at most {settings.minutes:g} min" if settings.minutes else ""
    known = sum(len(rows) for rows in hunt.record.known.values())
    say(
        f"{total} evaluations"
        + (" and as many plain samples" if pictures > total else "")
        + f" at about {rate:.0f}/s: {duration(max(pictures - known, 0) / rate)}{minutes}; record {megabytes:.1f} MB"
    )


def duration(seconds: float) -> str:
    seconds = round(seconds)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
