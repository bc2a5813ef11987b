"""What may be chosen of a fitted network, and its checks: a field is an option of the command (t2i.options).

Without torch: a mistake is told before that is imported.
"""

from dataclasses import dataclass, field
from typing import Any

from t2i.errors import UserError, closest
from t2i.options import OPEN, at_least, flag


@dataclass
class ClipOptions:
    """A small CLIP. UserError where a value is wrong, named as the command's option."""

    steps: int = 2000  # of training
    batch: int = 128  # pictures a step, each told from all others; with --image 512
    lr: float = 1e-3  # highest learning rate
    seed: int = 0  # of weights, batches and crops
    arch: str = "vit"  # image tower: vit or resnet
    resolution: int = 64  # side of the pictures it sees; with --image 160
    width: int | None = None  # channels of the image tower (96, of a resnet's first stage 16)
    layers: int | None = None  # blocks of the image tower (3, of each of a resnet's four stages 1)
    patch: int = 8  # side of a vit's patches
    # all-minilm-l6-v2 (with --image) or hf:NAME_OR_FOLDER of a pretrained text tower; else a small one is trained
    text: str | None = None
    text_width: int = 128  # channels of the text tower
    text_layers: int = 2  # its blocks
    embed_dim: int = 128  # length of the common vectors; with --image 256
    context: int = 32  # tokens read of a caption, start and end among them; with --image 40
    min_count: int = 1  # rarer tokens are taken for unknown
    word_drop: float = 0.05  # share of the words hidden while learning
    min_crop: float = 0.8  # smallest side of a random crop, a share; of --tune 0.7

    def __post_init__(self) -> None:
        at_least(
            self, steps=1, batch=2, resolution=1, width=2, layers=1, patch=1, text_width=1, text_layers=1, embed_dim=1,
            context=3, min_count=1,
        )  # fmt: skip
        if self.arch not in ("vit", "resnet"):
            raise UserError(f"--arch {self.arch}: {closest(self.arch, ('vit', 'resnet'))}")
        _share_of_crop(self.min_crop)
        self.model()

    def model(self, vocab_size: int = 0) -> dict[str, Any]:
        """The model in open_clip's own terms; of a pretrained text tower, without where that is found. vocab_size: of a
        text tower that is trained from the start."""
        vision: dict[str, Any] = {"image_size": self.resolution}
        if self.arch == "vit":
            width = self.width or 96
            vision |= {"patch_size": self.patch, "width": width, "layers": self.layers or 3}
            vision["head_width"] = min(32, width)
            if self.resolution % self.patch:
                raise UserError(f"--patch {self.patch}: must divide --resolution {self.resolution}")
        else:
            width = self.width or 16
            vision |= {"width": width, "layers": [self.layers or 1] * 4, "head_width": 64}
            if self.resolution % 32:
                raise UserError(f"--resolution {self.resolution}: must be a multiple of 32 for a resnet")
        if width % 2 or (self.arch == "vit" and width % vision["head_width"]):
            raise UserError(f"--width {width}: must be even, for a vit a multiple of {vision.get('head_width')}")
        heads = max(1, self.text_width // 32)
        if self.text_width % heads:
            raise UserError(f"--text-width {self.text_width}: must be a multiple of {heads} (its heads)")
        text: dict[str, Any] = {"context_length": self.context}
        if self.text:
            text |= {"hf_proj_type": "linear"}  # and where it is found, which torch is needed for
        else:
            text |= {"vocab_size": vocab_size, "width": self.text_width, "heads": heads, "layers": self.text_layers}
        return {"embed_dim": self.embed_dim, "vision_cfg": vision, "text_cfg": text}


@dataclass
class TowerOptions:
    """A CLIP of two pretrained towers. UserError where a value is wrong, named as the command's option."""

    image: str = OPEN  # pretrained image tower: efficientnet-lite0 (lite1, lite2), timm:NAME or timm:NAME/WEIGHT_FILE
    text: str = "all-minilm-l6-v2"  # or hf:NAME_OR_FOLDER
    epochs: int = 30  # of the projections, which learn from what both towers said once
    tune: int = 0  # epochs in which the image tower's last blocks learn, too
    batch: int = 512  # pictures a step of the projections
    lr: float = 1e-3  # their highest learning rate
    seed: int = 0  # of weights, batches and crops
    resolution: int = 160  # side of the pictures the image tower sees
    embed_dim: int = 256  # length of the common vectors
    context: int = 40  # tokens read of a caption, start and end among them
    image_dropout: float = 0.4  # share of the image tower's features that a step hides
    text_dropout: float = 0.2  # likewise of the text tower's
    min_crop: float = 0.7  # smallest side of a random crop of the tuning, a share

    def __post_init__(self) -> None:
        at_least(self, epochs=1, tune=0, batch=2, resolution=1, embed_dim=1, context=3)
        _share_of_crop(self.min_crop)
        for name in ("image_dropout", "text_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{flag(name)} {getattr(self, name)}: a share of 0 or more, below 1")

    def model(self, architecture: str) -> dict[str, Any]:
        """The model in open_clip's own terms, without where the text tower is found. architecture: timm's name of the
        image tower."""
        vision = {"image_size": self.resolution, "timm_model_name": architecture, "timm_model_pretrained": False}
        vision |= {"timm_pool": "", "timm_proj": "linear", "timm_proj_bias": True}
        text = {"context_length": self.context, "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
        return {"embed_dim": self.embed_dim, "vision_cfg": vision, "text_cfg": text}


def _share_of_crop(value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"--min-crop {value}: a share above 0, at most 1")


@dataclass
class VggOptions:
    """A small VGG."""

    steps: int = 1500  # of training
    batch: int = 64  # pictures a step
    lr: float = 2e-3  # highest learning rate
    seed: int = 0  # of weights and batches
    widths: list[int] = field(default_factory=lambda: [8, 16, 32, 64])  # channels of each block of two convolutions
    words: int = 200  # so many of the most frequent words are told

    def __post_init__(self) -> None:
        at_least(self, steps=1, batch=1, widths=1, words=1)
