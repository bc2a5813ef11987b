"""Names of encoders → frozen networks. Everything text.py and clip.py need of one, whichever library it is from.

Libraries are imported by the file that reads their models, once one is asked for: importing open_clip takes longer
than drawing a picture. Nothing that belongs to a model is executed: weights are read as tensors alone, and code that
a model brings along is refused.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

ASSETS = Path(__file__).parents[2] / "assets"
SHIPPED = ("scenes-clip", "scenes-clip-score")
CONFIG = "open_clip_config.json"
FORMS = "a shipped name, a folder made by train_clip.py, open_clip:ARCH/TAG_OR_FILE or hf:NAME_OR_FOLDER"


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


def load(name: str, device: torch.device | str = "cpu") -> Pretrained:
    """The named encoder (the forms of `FORMS`), read once for a device however often it is asked for.

    Raises UserError with one line: the unknown part and its closest names, or the file that is missing and the
    command that fetches it.
    """
    return _load(name, str(torch.device(device)))


@functools.cache
def _load(name: str, device: str) -> Pretrained:
    kind, _, rest = name.partition(":")
    if kind == "open_clip" and rest:
        from t2i.encoders.pretrained import open_clip_models

        found = open_clip_models.read(name, rest)
    elif kind == "hf" and rest:
        from t2i.encoders.pretrained import hugging_face

        found = hugging_face.read(name, rest)
    else:
        from t2i.encoders.pretrained import folder

        found = folder.read(name, ASSETS / name if name in SHIPPED else Path(name))
    found.network.to(device).eval().requires_grad_(False)
    return found


def one_line(error: Exception) -> str:
    """An error of another library as one line that is not too long."""
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which is never run: take a model that transformers has itself"
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"
