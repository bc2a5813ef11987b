"""Names of encoders → frozen networks. Everything text.py and clip.py need of one, whichever library it is from.

Libraries are imported by the file that reads their models, once one is asked for: importing open_clip takes longer
than drawing a picture. Nothing that belongs to a model is executed: weights are read as tensors alone, and code that
a model brings along is refused.
"""

import functools
from pathlib import Path

import torch

from t2i.encoders.pretrained.network import PACKAGED, SHIPPED, Pretrained, not_installed, package_folder
from t2i.errors import UserError

ASSETS = Path(__file__).parents[2] / "assets"


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
    elif name in PACKAGED:
        from t2i.encoders.pretrained import hugging_face

        found = hugging_face.read(name, packaged(name))
    else:
        from t2i.encoders.pretrained import folder

        found = folder.read(name, ASSETS / name if name in SHIPPED else Path(name))
    found.network.to(device).eval().requires_grad_(False)
    return found


def source(name: str) -> str:
    """Where transformers finds a text model, all-minilm-l6-v2 or hf:NAME_OR_FOLDER: a folder or the hub's name."""
    return packaged(name) if name in PACKAGED else name.removeprefix("hf:")


def packaged(name: str) -> str:
    """The folder of a model that a package brings. UserError where it is not installed."""
    folder = package_folder(PACKAGED[name])
    if folder is None:
        raise UserError(f"encoder {name!r}: {not_installed(PACKAGED[name])}")
    return str(folder / "model")
