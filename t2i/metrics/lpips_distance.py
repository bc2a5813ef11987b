"""LPIPS (Zhang et al. 2018, 1801.03924): the distance of two pictures as people see it, on either of two backbones."""

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import nn

from t2i.errors import UserError, one_line
from t2i.files import download

BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}  # of download.pytorch.org/models


def home(net: str) -> Path:
    """Where torch keeps the backbone's weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]


def missing(net: str, file: str | None, option: str) -> str | None:
    """Why network "alex" or "vgg" cannot be had; None where it can. option: how the user says the file."""
    if importlib.util.find_spec("lpips") is None:
        return "the lpips package is not installed"
    usual = home(net)
    found = Path(file or usual).is_file()
    return None if found else f"no {usual.name} at {file or usual.parent}; give the file with {option}"


def load(
    net: str, file: str | Path | None = None, device: torch.device | str = "cpu", option: str = "weights"
) -> nn.Module:
    """The lpips package's network "alex" or "vgg" (version 0.1, its own linear heads) on ImageNet weights.

    file: torchvision's weights of AlexNet or VGG16; None takes torch's cache, or fetches. UserError where there are
    none, with their name and place; option: how the user says the file.
    """
    path = Path(file) if file else home(net)
    if file and not path.is_file():
        raise UserError(f"{option} {file}: no such file; it is torchvision's {BACKBONES[net]}, usually {home(net)}")
    if not file:
        download(f"lpips {net}", f"https://download.pytorch.org/models/{path.name}", path)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # lpips calls torchvision in a way that is deprecated
            import lpips

            network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        # slice2.3.weight of lpips is features.3.weight of torchvision.
        state = {key: weights[f"features.{key.split('.', 1)[1]}"] for key in network.net.state_dict()}
        network.net.load_state_dict(state)
    except Exception as error:  # unpickling raises whatever a damaged file leads it to
        raise UserError(
            f"lpips {net}: {path} cannot be read as {BACKBONES[net]} ({one_line(error)}); fetch it again"
        ) from None
    return network.to(device).eval().requires_grad_(False)
