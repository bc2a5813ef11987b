"""No network at all: small patches of every scale of a picture, at places drawn by its number."""

from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

SETTINGS: dict[str, Setting] = {}


def missing(settings: Settings) -> str | None:
    return None


def load(settings: Settings, device: Any) -> Network:
    """ "patches" [N, levels, 128, 3, 49] of the first 16,384 pictures."""
    from t2i.metrics import swd

    see = lambda images, numbers: {"patches": swd.patches(images, list(numbers))}
    return Network(see, f"seed {settings.seed}", most=swd.PICTURES)
