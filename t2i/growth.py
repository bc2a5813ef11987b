"""What may stand in the stages of a configuration, each entry beside those before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """A stage of growth, or of a curriculum."""

    kimg: float = 0.0  # thousands of pictures seen when it begins
    fade_kimg: float = 0.0  # while so many more are seen, the new layers fade in
    resolution: int = 0  # of the pictures from then on; 0 = as before
    reset_optimizers: bool = False  # forget what Adam has averaged
    set: dict[str, Any] = field(default_factory=dict)  # settings from then on: {train.batch: 64, optim.g.lr: 5e-5}


# What may be another number in another stage: all that no network or file depends on.
MAY_CHANGE = (
    "optim.", "loss.", "ada.", "diffaugment.", "text.noise", "train.batch", "train.accumulate", "train.d_steps",
    "train.ema_kimg", "train.ema_ramp", "train.d_blur",
)  # fmt: skip


def problems(entries: Sequence[Entry], resolution: int, grows: Mapping[str, bool]) -> list[str]:
    """What is wrong with the stages of a configuration, each as 'field=value: remedy'.

    entries: its `stages`. resolution: of the finished pictures. grows: which networks can start smaller.
    """
    bad, before = [], None
    grown = entries[0].resolution if entries else 0
    for n, entry in enumerate(entries):
        where = f"stages[{n}]"
        if before and entry.kimg <= before.kimg + before.fade_kimg:
            bad.append(f"{where}.kimg={entry.kimg}: must come after the stage before and its fade")
        r = entry.resolution
        if r and (r & (r - 1) or not 4 <= r <= resolution):
            bad.append(f"{where}.resolution={r}: a power of two from 4 to model.resolution={resolution}")
        if not (0 <= entry.kimg < float("inf") and 0 <= entry.fade_kimg < float("inf")):
            bad.append(f"{where}: kimg and fade_kimg are 0 or more")
        if entry.fade_kimg and (not n or not r or r != 2 * grown):
            bad.append(f"{where}.fade_kimg={entry.fade_kimg}: fades from half its resolution, that of the stage before")
        if r and n and r < grown:
            bad.append(f"{where}.resolution={r}: pictures grow; the stage before has {grown}")
        for key in entry.set:
            if not key.startswith(MAY_CHANGE):
                bad.append(f"{where}.set.{key}: only {', '.join(MAY_CHANGE)} change in a stage")
        grown, before = r or grown, entry
    if any(e.resolution for e in entries):
        if not entries[0].resolution:
            bad.append("stages[0].resolution=0: growth begins here; say at which resolution")
        if entries[0].kimg > 0:
            bad.append(f"stages[0].kimg={entries[0].kimg}: growth begins at 0; say there at which resolution")
        if grown != resolution:
            bad.append(f"stages[-1].resolution={grown}: growth must end at model.resolution={resolution}")
        bad += [f"{name}: does not grow; leave resolution out of stages" for name, able in grows.items() if not able]
    return bad
