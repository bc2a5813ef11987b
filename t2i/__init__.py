"""Text-to-image GANs: `from t2i import load; images = load("runs/x")("a green train", count=4)`."""

from pathlib import Path
from typing import TYPE_CHECKING

from t2i.version import __version__

if TYPE_CHECKING:
    from t2i.model import Model

__all__ = ["__version__", "load"]


def load(path: "str | Path | None" = None, device: str = "cpu") -> "Model":
    """A trained model, ready to be called with prompts: see t2i.model.load_model and Model."""
    from t2i.model import load_model  # here, so that `import t2i` does not wait for torch

    return load_model(path, device)
