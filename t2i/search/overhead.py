"""What the algorithms themselves cost a generation, without any picture."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from t2i.search import algorithms
from t2i.search.algorithm import Evaluations, Task
from t2i.search.record import Record, pack


def overhead(names: Sequence[str], population: int, dim: int, generations: int = 6) -> None:
    """Prints ms of processor time a generation, and the share that asking and telling are of what its evaluations
    take a generator of 1,000 pictures a second."""
    print(f"population {population}, {dim} coordinates; medians of {generations} generations")
    print(f"{'':<12}{'ask + tell, ms':>16}{'of its pictures':>17}{'record, ms':>12}")
    for name in names:
        own, shares, kept = measure(name, population, dim, generations)
        print(f"{name:<12}{1e3 * own:>16.1f}{shares:>17.1%}{1e3 * kept:>12.1f}")


def measure(name: str, population: int, dim: int, generations: int) -> tuple[float, float, float]:
    """Medians over generations: seconds of ask and tell, their share of the pictures', seconds of the record."""
    kind, clock = algorithms.find(name), time.process_time
    algorithm = kind(Task(dim, population, population * 1000, 1, kind.objectives))
    rng, rows_of_times = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder:
        record = Record(Path(folder) / "record.jsonl", {})
        for generation in range(generations):
            cost, start = algorithm.cost, clock()
            points = algorithm.ask()
            asked = clock()
            values = rng.standard_normal((len(points), kind.objectives)) + points[:, :1]
            evaluations = Evaluations(points, values[:, 0], values, np.ones_like(points), points[:, :2])
            scored = clock()
            algorithm.tell(evaluations)
            learnt = clock()
            about = {"prompt": 0, "generation": generation, "by": "search"}
            rows = [about | {"score": float(s), "point": pack(p)} for p, s in zip(points, values[:, 0])]
            record.close_generation(0, generation, rows, {})
            own = asked - start + learnt - scored
            rows_of_times.append((own, own / (cost / 1000), clock() - learnt))
        record.close()
    own, share, kept = np.median(rows_of_times, axis=0).tolist()
    return own, share, kept
