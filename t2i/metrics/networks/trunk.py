"""An image network that was trained on photographs, and its pooled features: an EfficientNet of the extra
t2i[pretrained], or any image model of timm or of Hugging Face, such as DINOv2 (Stein et al. 2023, 2306.04675)."""

from collections.abc import Sequence
from typing import Any

from t2i.errors import UserError, one_line
from t2i.metrics.networks import Network, Setting, Settings

DEFAULT = "efficientnet-lite2"  # the smaller ones are what generators are trained against
SIZES = {"packaged": 160, "other": 224}

SETTINGS = {
    "trunk": Setting("NAME", f"of fd, kd, …: {DEFAULT} (default), -lite1, -lite0, timm:NAME[/FILE], hf:NAME_OR_FOLDER"),
    "trunk_size": Setting("PIXELS", "the side that it sees pictures at: 160 of an EfficientNet-Lite, 224 of others"),
}


def named(settings: Settings) -> tuple[str, int]:
    """Which network, and the side that it sees pictures at. UserError where that is no number."""
    from t2i.encoders.trunk import PACKAGED

    name = settings["trunk"] or DEFAULT
    size = settings["trunk_size"] or str(SIZES["packaged" if name in PACKAGED else "other"])
    if not str(size).isdecimal() or int(size) < 32:
        raise UserError(f"{settings.spell('trunk_size')} {size}: a side in pixels, 32 or more")
    return name, int(size)


def missing(settings: Settings) -> str | None:
    from t2i.encoders import trunk

    return trunk.missing(settings["trunk"] or DEFAULT)


def load(settings: Settings, device: Any) -> Network:
    """ "trunk" [N, C]: the network's own pooled features."""
    import torch

    from t2i.metrics.protocol import hashed

    name, size = named(settings)
    network = of_name(name, size, device)

    @torch.no_grad()
    def see(images: Any, _: Sequence[int]) -> dict[str, Any]:
        return {"trunk": network.features(images.float()).float()}

    try:
        seen = see(torch.zeros(1, 3, size, size, device=device), [0])["trunk"]
    except (AssertionError, RuntimeError, ValueError) as error:  # however a model refuses a size
        raise UserError(
            f"{settings.spell('trunk')} {name}: takes no pictures of {size}×{size} ({one_line(error)}); give the side "
            f"it was trained at, {settings.spell('trunk_size')}"
        ) from None
    if seen.ndim != 2 or not seen.isfinite().all():
        raise UserError(f"{settings.spell('trunk')} {name}: gives {tuple(seen.shape)}, not finite features [N, C]")

    def used_in_training(model: Any) -> bool:
        """By its name in any setting of the configuration, such as a discriminator's trunk."""
        return name in repr(model.config)

    kind = name.partition("/")[0] if not name.startswith("hf:") else type(network.network).__name__  # wherever it lies
    fingerprint = f"{kind} {hashed(network)} {size} pixels"
    return Network(see, fingerprint, network, title=f"{name} at {size} pixels", used_in_training=used_in_training)


def of_name(name: str, size: int, device: Any) -> Any:
    """The Frozen network of a name."""
    if name.startswith("hf:"):
        from t2i.encoders.pretrained.vision import load_vision

        return load_vision(name, size, device)
    from t2i.encoders.trunk import load_trunk

    return load_trunk(name, device, size=size)
