"""Numbers that may change while training: a number, or [[kimg, value], ...] with straight lines between the points."""

from itertools import pairwise
from typing import Any

Schedule = Any  # a number, or a list of [kimg, value]; omegaconf knows no union of the two


def at(schedule: Schedule, kimg: float) -> float:
    """The value after `kimg` thousand pictures: before the first point the first value, after the last the last."""
    if isinstance(schedule, int | float):
        return float(schedule)
    if kimg <= schedule[0][0]:
        return float(schedule[0][1])
    for (start, before), (end, after) in pairwise(schedule):
        if kimg < end:
            return before + (after - before) * (kimg - start) / (end - start)
    return float(schedule[-1][1])


def values(schedule: Schedule) -> list[float]:
    """All values that it passes through lie between these."""
    return [schedule] if isinstance(schedule, int | float) else [value for _, value in schedule]


def problem(schedule: Schedule) -> str:
    """What is wrong with the form of a schedule, in one clause; '' where nothing is."""
    number = lambda x: isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < float("inf")
    if number(schedule):
        return ""
    points = schedule if isinstance(schedule, list) else []
    if not points or not all(isinstance(p, list) and len(p) == 2 and all(map(number, p)) for p in points):
        return "a number, or [[kimg, value], ...] for one that changes while training"
    if any(a[0] >= b[0] for a, b in pairwise(points)):
        return "the kimg of a schedule must rise from point to point"
    return ""
