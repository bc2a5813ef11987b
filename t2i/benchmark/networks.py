"""The networks that are measured: of a run as training builds it, or a pair alone. Benchmarks build none elsewhere."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from t2i import train
from t2i.config import Config
from t2i.interfaces import Text
from t2i.model import backbone
from t2i.rng import Rng
from t2i.step import Run


def build_run(settings: Config, device: torch.device, precision: str | None = None) -> Run:
    """A run at step 0, of one process. precision: in place of the configuration's."""
    if device.type == "cuda":  # as when training
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    if precision:
        settings = replace(settings, train=replace(settings.train, precision=precision))
    alone: Any = SimpleNamespace(device=device, process_index=0, num_processes=1)
    return train.build(settings, alone)


def build_pair(settings: Config, channels: int, device: torch.device, layout: torch.memory_format) -> tuple[Any, Any]:
    """Generator and discriminator for sentences of so many channels, without encoders."""
    torch.manual_seed(0)
    nets = backbone(settings.model.name)
    G = nets.Generator(settings.model, channels).to(device, memory_format=layout)
    D = nets.Discriminator(settings.model, channels).to(device, memory_format=layout)
    return G, D


def fakes(G: Any, text: Text, rng: Rng) -> Tensor:
    """[B, 3, H, W] pictures of new latents."""
    return G(rng.randn(len(text), G.latent_dim), text)
