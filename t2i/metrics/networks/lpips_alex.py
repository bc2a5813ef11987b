"""LPIPS on AlexNet, for lpips_diversity."""

from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

SETTINGS = {"lpips_alex": Setting("FILE", "torchvision's AlexNet, for lpips_diversity")}


def missing(settings: Settings) -> str | None:
    from t2i.metrics import lpips_distance

    return lpips_distance.missing("alex", settings["lpips_alex"], settings.spell("lpips_alex"))


def load(settings: Settings, device: Any) -> Network:
    """It sees no features: metrics ask itself for the distance of two sets of pictures, [N]."""
    from t2i.metrics import lpips_distance
    from t2i.metrics.protocol import hashed

    distance = lpips_distance.load("alex", settings["lpips_alex"], device, settings.spell("lpips_alex"))
    return Network(lambda images, _: {}, hashed(distance), distance)
