"""Features of an ImageNet VGG (Simonyan & Zisserman 2014, 1409.1556), differentiable with respect to the picture."""

import importlib.util
import itertools
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from t2i.encoders.frozen import Frozen
from t2i.errors import UserError, closest, one_line
from t2i.files import download
from t2i.rng import Rng

# What the weights were trained on: pictures in [0, 1] → (channels reversed, factor, mean, standard deviation).
PREPROCESSING: dict[str, tuple[bool, float, tuple[float, ...], tuple[float, ...]]] = {
    "torchvision": (False, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (True, 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),  # blue, green, red
}
SHIPPED = Path(__file__).parents[1] / "assets"
TORCHVISION = {"vgg16": "vgg16-397923af.pth", "vgg19": "vgg19-dcbb9e9d.pth"}  # of download.pytorch.org/models


class Vgg(Frozen):
    """`layers`: name → channels of what it gives, one layer a block."""

    blocks: nn.ModuleList
    mean: Tensor  # [1, 3, 1, 1]
    std: Tensor

    def __init__(self, weights: dict[str, Tensor], preprocessing: str = "torchvision", size: int = 0):
        """weights: features.N.weight and features.N.bias, as torchvision names them; other keys are ignored.

        They may end early: what is there is used. A step of 3 from one convolution's N to the next, rather
        than 2, has a pooling in between. size: `features` reduces larger pictures to this side; 0 = never.
        """
        if preprocessing not in PREPROCESSING:
            raise UserError(f"preprocessing={preprocessing!r}: {closest(preprocessing, PREPROCESSING)}")
        numbers = sorted(
            int(key.split(".")[1]) for key in weights if key.startswith("features.") and key.endswith(".weight")
        )
        gaps = {b - a for a, b in itertools.pairwise(numbers)}
        if not numbers or numbers[0] != 0 or not gaps <= {2, 3}:
            raise UserError("VGG weights: need keys features.0.weight, features.2.weight, ... as in torchvision's VGG")
        blocks = nn.ModuleList()
        for last, n in zip([-3, *numbers], numbers):
            if n - last == 3:
                blocks.append(nn.ModuleList())
            weight = weights[f"features.{n}.weight"].float()  # [out, in, 3, 3]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.load_state_dict({"weight": weight, "bias": weights[f"features.{n}.bias"].float()})
            blocks[-1].append(conv)  # type: ignore[operator]
        super().__init__(blocks=blocks)
        self.size = size
        self.reverse, self.factor, mean, std = PREPROCESSING[preprocessing]
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))
        # The last layer of each block: relu1_2, relu2_2, relu3_4, ... of a VGG19.
        self.layers = {f"relu{b}_{len(block)}": block[-1].out_channels for b, block in enumerate(blocks, start=1)}  # type: ignore

    def features(self, image: Tensor, rng: Rng | None = None) -> dict[str, Tensor]:
        """As forward, of pictures reduced to `size`; nothing is drawn.

        UserError for pictures that the poolings would leave nothing of.
        """
        if image.shape[-1] < (smallest := 2 ** (len(self.blocks) - 1)):
            raise UserError(
                f"encoders.vgg: halves pictures until nothing is left of {image.shape[-1]} pixels; give the losses "
                f"that look through it (lpips, img_img_vgg) weight from {smallest} pixels on"
            )
        if self.size and image.shape[-1] > self.size:
            image = F.interpolate(image, (self.size, self.size), mode="bilinear", antialias=True)
        return self(image)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """image [B, 3, H, W] in [-1, 1] → {"relu1_2": [B, 64, H, W], "relu2_2": [B, 128, H/2, W/2], ...}."""
        x = (image + 1) / 2
        x = x.flip(1) if self.reverse else x
        x = (x * self.factor - self.mean) / self.std
        out: dict[str, Tensor] = {}
        for (name, _), block in zip(self.layers.items(), self.blocks):
            x = F.max_pool2d(x, 2) if out else x
            for conv in block:  # type: ignore[attr-defined]
                x = F.relu(conv(x))
            out[name] = x
        return out

    def pooled(self, image: Tensor) -> dict[str, Tensor]:
        """The same averaged over the picture: name → [B, C]."""
        return {name: x.mean((2, 3)) for name, x in self(image).items()}


def load(
    settings: Any, device: torch.device | str = "cpu", layout: torch.memory_format = torch.contiguous_format
) -> Vgg:
    """The VGG that settings.vgg names, of settings.vgg_preprocessing and vgg_size."""
    return load_vgg(settings.vgg, settings.vgg_preprocessing, device, layout, settings.vgg_size)


def load_vgg(
    name: str = "vgg19",
    preprocessing: str = "torchvision",
    device: torch.device | str = "cpu",
    layout: torch.memory_format = torch.contiguous_format,
    size: int = 0,
) -> Vgg:
    """`name`: vgg16 or vgg19 (torchvision's ImageNet weights, from torch's cache or fetched), scenes-vgg (a small one
    that ships, trained on the scenes by scripts/train_vgg.py), or a weight file.

    preprocessing: "torchvision", or "caffe" for weights that read blue-green-red 0 to 255 less the means.
    size: see `Vgg`.
    Raises UserError with one line where there are no such weights.
    """
    file = Path(name)
    if name in TORCHVISION:
        file = Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION[name]
        download(f"vgg={name}", f"https://download.pytorch.org/models/{file.name}", file)
    elif (SHIPPED / f"{name}.safetensors").is_file():
        file = SHIPPED / f"{name}.safetensors"
    elif not file.is_file():
        known = ", ".join([*TORCHVISION, *sorted(p.stem for p in SHIPPED.glob("*-vgg.safetensors"))])
        raise UserError(f"vgg={name}: no such weight file ({file.absolute()}); known names: {known}")
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
        return Vgg(weights, preprocessing, size).to(device).to(memory_format=layout)  # type: ignore[call-overload]
    except UserError:
        raise
    except Exception as error:  # unpickling raises whatever a damaged file leads it to
        raise UserError(f"vgg={name}: cannot be read: {one_line(error)}") from None


LPIPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # the layers of a VGG16


def lpips_distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> Tensor:
    """LPIPS (Zhang et al. 2018, 1801.03924, eq. 1), version 0.1, of what a VGG16 gives for two pictures → [B].

    The weights of its channels are the lpips package's. Raises UserError for the layers of another network.
    """
    if tuple(one) != LPIPS:
        raise UserError(f"loss.lpips: needs a VGG16 (encoders.vgg=vgg16 or its weight file), not {', '.join(one)}")
    distances = []
    for head, layer in zip(_lpips_heads(one[LPIPS[0]].device), LPIPS):
        a, b = (F.normalize(x.float(), dim=1, eps=1e-10) for x in (one[layer], two[layer]))  # [B, C, h, w]
        distances.append(((a - b).square() * head).sum(1).mean((1, 2)))
    return torch.stack(distances).sum(0)


@cache
def _lpips_heads(device: torch.device) -> list[Tensor]:
    """[C, 1, 1] a layer."""
    spec = importlib.util.find_spec("lpips")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
    weights = torch.load(file, map_location=device, weights_only=True)
    return [weights[f"lin{n}.model.1.weight"][0] for n in range(len(LPIPS))]
