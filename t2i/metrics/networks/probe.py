"""The attribute probe of drawn scenes: which object, in which colour."""

from collections.abc import Sequence
from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

SETTINGS: dict[str, Setting] = {}


def missing(settings: Settings) -> str | None:
    return None if settings.scenes else "the attribute probe knows only scenes"


def load(settings: Settings, device: Any) -> Network:
    """Class numbers [N]: "object", behind all others where there is none, and "color", there -1."""
    from t2i.metrics.protocol import hashed
    from t2i.probes import scenes

    judge = scenes.load().to(device)

    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        objects, colors, _ = judge(images)
        seen = objects[:, 0].argmax(1)
        return {"object": seen, "color": colors[:, 0].argmax(1).where(seen < len(judge.objects), -1)}

    return Network(see, hashed(judge), judge)
