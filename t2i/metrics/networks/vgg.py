"""An ImageNet VGG: the channels of its last layer in each block, averaged over the picture."""

from pathlib import Path
from typing import Any

from t2i.metrics.networks import Network, Setting, Settings

DEFAULT = "vgg19"

SETTINGS = {
    "vgg": Setting("NAME", "vgg16, vgg19 (torchvision's), scenes-vgg or a file of their weights"),
    "preprocessing": Setting(
        "NAME", "that the VGG was trained with: torchvision (default) or caffe", "torchvision", ("caffe", "torchvision")
    ),
}


def missing(settings: Settings) -> str | None:
    if settings["vgg"]:
        return None
    import torch

    from t2i.encoders.vgg import TORCHVISION

    home = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION[DEFAULT]
    how = f"give a weight file with {settings.spell('vgg')}"
    return None if home.is_file() else f"no VGG: {home.name} is not in {home.parent}; {how}"


def load(settings: Settings, device: Any) -> Network:
    """ "vgg" [N, C], of all layers one after the other."""
    from t2i.encoders.vgg import load_vgg
    from t2i.metrics.protocol import hashed
    from t2i.metrics.vgg import features

    preprocessing = settings["preprocessing"] or ""
    vgg = load_vgg(settings["vgg"] or DEFAULT, preprocessing, device)
    return Network(lambda images, _: {"vgg": features(images, vgg)}, f"{hashed(vgg)} {preprocessing}", vgg)
