"""The networks that are measured: of a run as training builds it, or a pair alone. Benchmarks build none elsewhere."""

from dataclasses import replace
from typing import Any

import torch

from t2i import build, launch
from t2i.config import Config
from t2i.interfaces import Generated, Latent, Text
from t2i.rng import Rng
from t2i.run import Run


def build_run(settings: Config, device: torch.device, precision: str | None = None) -> Run:
    """A run at step 0, of one process. precision: in place of the configuration's."""
    if device.type == "cuda":  # as when training
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if precision:
        settings = replace(settings, train=replace(settings.train, precision=precision))
    return build.build(settings, device, launch.precision(settings.train.precision, device))


def build_pair(settings: Config, channels: int, device: torch.device, layout: torch.memory_format) -> tuple[Any, Any]:
    """Generator and discriminator for sentences of so many channels, without encoders."""
    torch.manual_seed(0)
    G = build.generator(settings, channels, 0).to(device, memory_format=layout)
    D = build.discriminator(settings, channels, 0).to(device, memory_format=layout)
    return G, D


def fakes(G: Any, text: Text, rng: Rng) -> tuple[Latent, Generated]:
    """New latents and their pictures, as a training step draws them but without style mixing."""
    latent = Latent(rng.randn(len(text), G.latent_dim))
    return latent, G(latent, text, noise=rng)
