"""Whole training steps of several runs, a step of each in turn."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from t2i.benchmark.networks import build_run
from t2i.benchmark.parts import CAPTIONS
from t2i.benchmark.timing import clock
from t2i.config import Config
from t2i.interfaces import Batch
from t2i.run import Run
from t2i.step import train_step

COLUMNS = {"run": "", "batch": "", "ms a step": ".1f", "s a kimg": ".1f", "ratio": ".3f"}


def compare(settings: Sequence[Config], repeat: int, device: torch.device) -> list[dict[str, Any]]:
    """What a training step of each run costs, on random pictures, as a ratio to that of the first. The mean over all
    steps of a cycle of lazy losses, of which each is the median of `repeat`."""
    runs = [build_run(s, device) for s in settings]
    batches = [random_batches(run) for run in runs]
    cycle = math.lcm(*(t.every for run in runs for t in run.terms()))
    taken: list[list[list[float]]] = [[[] for _ in range(cycle)] for _ in runs]
    with tqdm(total=repeat * cycle + 1, unit="step", disable=None, leave=False) as bar:
        for step in range(-1, repeat * cycle):  # the first warms up
            for run, rounds, times in zip(runs, batches, taken):
                run.step = max(step, 0)
                start = clock(device)
                train_step(rounds, run)
                if step >= 0:
                    times[step % cycle].append(clock(device) - start)
            bar.update()
    rows: list[dict[str, Any]] = []
    for run, times in zip(runs, taken):
        seconds, size = sum(statistics.median(t) for t in times) / cycle, run.shown
        rows.append({
            "run": run.config.name, "batch": size, "ms a step": 1e3 * seconds, "s a kimg": 1e3 * seconds / size,
        })  # fmt: skip
    return [row | {"ratio": row["s a kimg"] / rows[0]["s a kimg"]} for row in rows]


def random_batches(run: Run) -> list[Batch]:
    """One a round of accumulation."""
    train = run.config.train
    rows = train.batch // train.accumulate
    image = torch.rand(rows, 3, *[run.config.model.resolution] * 2) * 2 - 1
    one, two = ([f"{CAPTIONS[n]} {i}" for i in range(rows)] for n in (0, 1))
    return [Batch(image, one, torch.arange(rows), two).to(run.device) for _ in range(train.accumulate * train.d_steps)]
