"""Frozen networks by name: a file here has `load(settings, device, layout)`, which gives a Frozen with `features`.

Adding one is adding a file; losses then ask for it by the file's name. text.py reads captions in place of pictures.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from t2i.encoders.frozen import Frozen
from t2i.errors import UserError, closest


def known() -> list[str]:
    return sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py") if p.stem != "frozen")


def load(
    name: str,
    settings: Any,
    device: torch.device | str = "cpu",
    layout: torch.memory_format = torch.contiguous_format,
) -> Frozen:
    """The named network, on the device.

    settings: config.Encoders, where each finds what it needs. layout: of its convolutions' weights.
    UserError with one line for an unknown name, and where its weights are missing.
    """
    if name not in known():
        raise UserError(f"encoder {name!r}: no such frozen network; {closest(name, known())}")
    return import_module(f"{__name__}.{name}").load(settings, device, layout)
