"""LPIPS on VGG16, for ppl."""

from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

SETTINGS = {"lpips_vgg": Setting("FILE", "torchvision's VGG16, for ppl")}


def missing(settings: Settings) -> str | None:
    from t2i.metrics import lpips_distance

    return lpips_distance.missing("vgg", settings["lpips_vgg"], settings.spell("lpips_vgg"))


def load(settings: Settings, device: Any) -> Network:
    """It sees no features: metrics ask itself for the distance of two sets of pictures, [N]."""
    from t2i.metrics import lpips_distance
    from t2i.metrics.protocol import hashed

    distance = lpips_distance.load("vgg", settings["lpips_vgg"], device, settings.spell("lpips_vgg"))
    return Network(lambda images, _: {}, hashed(distance), distance)
