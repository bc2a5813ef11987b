"""A tiny random StyleGAN2 and quick settings, for the tests of the search."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from t2i import build, config
from t2i.model import save_model
from t2i.search.settings import Settings

PROMPT = "a green train"
TINY = [
    "encoders.text=scenes-clip", "encoders.clip=scenes-clip", "model.resolution=16",
    "generator.channel_base=128", "generator.channel_max=16", "generator.latent_dim=12", "generator.style_dim=16",
    "discriminator.channel_base=128", "discriminator.channel_max=16",
]  # fmt: skip
QUICK = Settings(population=8, budget=32, views=1, batch=5, top_k=3)


def make(folder: Path, *more: str, critic: bool = True) -> Path:
    """A model folder in which w, noise and truncation show."""
    settings = config.load(None, [*TINY, *more])
    torch.manual_seed(0)
    generator, judge = build.generator(settings, 128, 0), build.discriminator(settings, 128, 0)
    generator.mapping.w_avg.normal_()
    state = {k: v + 0.3 if k.endswith("noise_strength") else v for k, v in generator.state_dict().items()}
    save_model(folder, state, settings, 128, 1.0, discriminator_state=judge.state_dict() if critic else None)
    return folder


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3))


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)
