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
from t2i.model import Model
from t2i.search.objectives import Objective
from t2i.search.prompt_search import PromptSearch
from t2i.search.record import Record
from t2i.search.result import Result, collect
from t2i.search.scorers import load_scorers
from t2i.search.settings import Settings, resolve

Watch = Callable[[PromptSearch, int, int], None]  # after a generation: its search, evaluations spent, and of how many


def search(
    model: Model,
    prompts: Sequence[str],
    settings: Settings | None = None,
    folder: str | Path | None = None,
    objective: Objective | None = None,
    head: dict[str, Any] | None = None,
    say: Callable[[str], None] = lambda line: None,
    watch: Watch = lambda search, spent, total: None,
) -> list[Result]:
    """Searches for pictures of prompts: one result each.

    objective: any function from pictures [n, 3, H, W] in [-1, 1] to scores [n], in place of settings.objective.
    folder: keeps record.jsonl there; the same call goes on from what one already holds. head: more for its first line.
    """
    prompts = list(prompts)
    for prompt in prompts:
        if not prompt.strip():
            raise UserError(f"prompt {prompt!r}: empty; write what the picture should show")
    if not prompts or len(set(prompts)) < len(prompts):
        raise UserError("prompts: give at least one, and each once")
    settings = resolve(settings or Settings(), len(prompts), model.device.type != "cpu")
    scorers = load_scorers(model, settings, objective)
    for note in scorers.notes:
        say(note)
    path = Path(folder) / "record.jsonl" if folder else None
    first = parallel.rank() == 0
    record = Record(path, asdict(settings) | {"prompts": prompts} | (head or {}), first)
    parallel.total(torch.zeros(1, device=model.device))  # nobody writes before everybody has read
    try:
        if record.known:
            say(f"{path}: goes on after {record.count} candidates")
        searches = [PromptSearch(model, prompt, i, settings, scorers, record) for i, prompt in enumerate(prompts)]
        announce_cost(searches, settings, say)
        successive_halving(searches, settings, watch)
        return [collect(search) for search in searches]
    finally:
        record.close()


def successive_halving(searches: list[PromptSearch], settings: Settings, watch: Watch) -> None:
    """Spends the budget of all prompts (1502.07943).

    In each of log₂(prompts) + 1 rounds those still searched share alike in what the round may spend; then the half
    that gained least stops. What a prompt leaves that reaches its target or a plateau goes to the others.
    """
    total = settings.budget * len(searches)
    deadline = time.monotonic() + 60 * settings.minutes if settings.minutes else math.inf
    active, rounds = list(searches), math.ceil(math.log2(len(searches))) + 1
    for left in range(rounds, 0, -1):
        share = (total - sum(s.spent for s in searches)) // left // max(len(active), 1)
        gains = {}
        for search in active:
            start, before = search.spent, search.searched.best
            while search.spent - start + search.algorithm.cost <= share or search.generation == 0:
                if search.generation and parallel.any_of(time.monotonic() > deadline, search.model.device):
                    search.stopped = "time is up"
                    break
                search.step()
                watch(search, sum(s.spent for s in searches), total)
                if search.stopped:
                    break
            before = before if math.isfinite(before) else search.history[0]["best"]
            gains[search.number] = search.searched.best - before
        active = sorted((s for s in active if not s.stopped), key=lambda s: -gains[s.number])
        if left > 1:
            for search in active[(len(active) + 1) // 2 :]:
                search.stopped = "others gained more"
            active = active[: (len(active) + 1) // 2]


def announce_cost(searches: list[PromptSearch], settings: Settings, say: Callable[[str], None]) -> None:
    """Says before the start what the search will cost."""
    search, total = searches[0], settings.budget * len(searches)
    evaluate = search.baseline.evaluate
    points = evaluate.space.project(np.ones((settings.batch, evaluate.space.dim)))
    evaluate(points)
    start = time.perf_counter()
    evaluate(points)
    rate = settings.batch * parallel.world() / (time.perf_counter() - start)
    pictures = total * (2 if settings.baseline and not search.is_baseline else 1)
    megabytes = pictures * (search.searched.space.dim * 16 / 3 + 160) / 1e6
    minutes = f", at most {settings.minutes:g} min" if settings.minutes else ""
    known = sum(len(rows) for rows in search.record.known.values())
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
