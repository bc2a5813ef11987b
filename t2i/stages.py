"""Growth and curricula: which stage a run is in, as a pure function of its configuration and the pictures seen."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from t2i.config import Config, staged
from t2i.interfaces import Stage


@dataclass(frozen=True)
class Planned:
    """A part of the training with settings of its own."""

    start: int  # pictures seen when it begins
    fade: int  # pictures until its layers have faded in
    resolution: int
    reset: bool  # optimisers begin anew
    config: Config  # the whole configuration, as it is in this part


def plan(config: Config) -> list[Planned]:
    """All parts in order; one for a run without stages. The first begins at 0."""
    parts, resolution = [], config.model.resolution
    if not config.stages or config.stages[0].kimg > 0:
        parts.append(Planned(0, 0, resolution, False, config))
    for n, entry in enumerate(config.stages):
        resolution = entry.resolution or resolution
        start, fade = round(1000 * entry.kimg), round(1000 * entry.fade_kimg)
        parts.append(Planned(start, fade, resolution, entry.reset_optimizers, staged(config, n)))
    return parts


def resolutions(config: Config) -> tuple[int, ...]:
    """Those at which growth may stand, rising; () for a run that does not grow."""
    found = tuple(sorted({entry.resolution for entry in config.stages} - {0}))
    return () if found == (config.model.resolution,) else found


def number(parts: list[Planned], images: int) -> int:
    """Which part the next step belongs to, when so many pictures have been seen."""
    return max(n for n, part in enumerate(parts) if part.start <= images)


def stage(part: Planned, images: int) -> Stage:
    """Where growth stands within a part."""
    seen = images - part.start
    return Stage(part.resolution, seen / part.fade if seen < part.fade else 1.0)


def reduced(image: Tensor, stage: Stage) -> Tensor:
    """Pictures [B, 3, H, W] as a stage shows them: averaged down to [B, 3, r, r], and while layers fade in mixed with
    what the stage before showed, enlarged (1710.10196, section 2)."""
    if image.shape[-1] > stage.resolution:
        image = F.avg_pool2d(image, image.shape[-1] // stage.resolution)
    if stage.alpha < 1:
        before = F.interpolate(F.avg_pool2d(image, 2), scale_factor=2.0, mode="nearest")
        image = before.lerp(image, stage.alpha)
    return image
