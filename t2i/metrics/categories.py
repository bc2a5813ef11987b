"""What a model can do, by category, as GenEval (2310.11513) and T2I-CompBench (2307.06350) ask: one object, two
objects, counting, colours, position, colour binding. On drawn worlds, which know the truth and have judges of it.

Each world says which categories it has, by which rule their prompts are made, and which it lacks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from t2i.errors import UserError
from t2i.metrics import intervals
from t2i.probes import classifier
from t2i.probes.measure import DRAWN_SEEDS, Asked, find
from t2i.probes.sight import Seen
from t2i.rng import Rng
from t2i.worlds import Question


@dataclass(frozen=True)
class Row:
    """A category's figures: shares of right pictures in 0..1."""

    count: int
    share: float
    low: float  # ends of its 95 % interval, Wilson's
    high: float
    others: float  # of the same pictures, each asked what other prompts of the category ask: what guessing gives
    noise: float  # of noise
    drawn: float  # of pictures drawn as the prompts say


def judge(asked: Asked) -> None:
    """Generates pictures of `count` prompts of each category, prints a row a category, writes the figures to a file."""
    find(asked.world)
    asks = import_module(f"t2i.worlds.{asked.world}")
    if not hasattr(asks, "questions"):
        raise UserError(f"--categories: the world {asked.world} asks no questions, as those of t2i/worlds/binding.py")
    _, eyes, model = asked.opened()
    side = model.resolution
    print(f"model: {model.path} ({model.kimg:g} kimg), {side}×{side}", flush=True)
    made: dict[tuple[str, ...], list[list[Seen]]] = {}  # categories may share prompts, and then pictures
    rows: dict[str, Row] = {}
    for category in asks.CATEGORIES:
        for which in ("seen", "held_out"):
            questions, name = asks.questions(category, which, asked.count, asked.seed), f"{category}, {which}"
            texts = tuple(question.prompt for question in questions)
            if texts and texts not in made:
                made[texts] = eyes.look(asked.generate(model, texts, name))
            if texts:
                rows |= table_rows(name, questions, made[texts], asks, eyes, side, asked.seed)
    print(table(rows))
    print("\n".join(f"{name}: {rule}" for name, rule in asks.CATEGORIES.items()))
    print("\n".join(f"{name}: not in this world, {why}" for name, why in asks.LACKS.items()))
    asked.write(model, {f"{name}/{key}": value for name, row in rows.items() for key, value in vars(row).items()})


def table_rows(
    name: str, asked: Sequence[Question], seen: list[list[Seen]], world: Any, eyes: Any, side: int, seed: int
) -> dict[str, Row]:
    """The row of a category, and where it counts one of every count."""
    drawn = eyes.look(truth(world, asked, side, DRAWN_SEEDS + seed))
    noise = eyes.look(2 * Rng(DRAWN_SEEDS + seed, 3).rand(len(asked), 3, side, side) - 1)
    counts = sorted({question.count for question in asked if question.count})
    parts = {name: list(range(len(asked)))}
    parts |= {f"{name}: {n}": [i for i, question in enumerate(asked) if question.count == n] for n in counts}
    out = {}
    for label, rows in parts.items():
        shares = [torch.tensor([right(of[i], asked[i]) for i in rows]).double() for of in (seen, noise, drawn)]
        others = [right(seen[i], asked[j]) for i in range(len(asked)) for j in rows if i != j]
        low, high = intervals.of_mean(shares[0])
        mean, of_noise, of_drawn = (float(share.mean()) for share in shares)
        out[label] = Row(len(rows), mean, low, high, sum(others) / max(len(others), 1), of_noise, of_drawn)
    return out


def right(seen: Sequence[Seen], question: Question) -> bool:
    """Whether all that is asked was seen: every object, and where they are asked its colour, its count, its place."""
    found = {thing.object: thing for thing in seen}
    for color, name in question.things:
        thing = found.get(name)
        if thing is None or color not in (None, thing.color) or question.count not in (None, thing.count):
            return False
    if not question.side:
        return True
    first, *second = (found[name].x for _, name in question.things)
    return (first < (second[0] if second else 0.5)) == (question.side == "left")


def truth(world: Any, asked: Sequence[Question], side: int, seed: int) -> Tensor:
    """Pictures drawn as the questions' plans say: [N, 3, side, side] in [-1, 1]."""
    draw = lambda i: (world.render(asked[i].plan, seed, i, side), asked[i].plan)
    return classifier.drawings(len(asked), draw, side)[0]


def table(rows: dict[str, Row]) -> str:
    """For the terminal. Floors: the same pictures asked what other prompts ask, and noise; ceiling: drawn pictures."""
    lines = [f"{'':<28}{'n':>6}{'right':>9}{'95 %':>17}{'others':>9}{'noise':>9}{'drawn':>9}"]
    for name, row in rows.items():
        between = f"{row.low:.1%} … {row.high:.1%}"
        figures = "".join(f"{share:>9.1%}" for share in (row.others, row.noise, row.drawn))
        lines.append(f"{name.replace('held_out', 'held-out'):<28}{row.count:>6}{row.share:>9.1%}{between:>17}{figures}")
    return "\n".join(lines)
