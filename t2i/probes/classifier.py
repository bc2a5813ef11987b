"""What the probes have in common: pictures as they look at them, drawn, spoilt and small; and their folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from t2i.errors import UserError, one_line
from t2i.rng import Rng

SIDE = 64  # pixels of the pictures that they look at
WEIGHTS, DESCRIPTION = "probe.safetensors", "probe.json"


def fit(images: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, 64, 64], the size that the probe looks at."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def floats(pixels: Tensor) -> Tensor:
    """[N, H, W, 3] uint8 → [N, 3, H, W] in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def drawings(count: int, draw: Callable[[int], tuple], side: int) -> tuple[Tensor, list[dict[str, Any]]]:
    """Pictures [count, 3, side, side] in [-1, 1] and plans. draw: index → (picture, ..., plan)."""
    pixels, plans = np.empty((count, side, side, 3), np.uint8), []
    for i in range(count):
        image, *_, plan = draw(i)
        pixels[i] = small(image, side)
        plans.append(plan)
    return floats(torch.from_numpy(pixels)), plans


def small(image: Image.Image, side: int) -> np.ndarray:
    """As the data set has it at `side` pixels: [side, side] or [side, side, 3] uint8."""
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def spoil(images: Tensor, rng: Rng) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → the same moved and worsened, each picture by its own amounts."""
    u = rng.rand(len(images), 6)
    return worsen(moved(images, u[:, :3]), u[:, 3:], rng)


def moved(images: Tensor, u: Tensor) -> Tensor:
    """[N, C, H, W] scaled and shifted, by u [N, 3] in 0..1."""
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 0.88 + 0.24 * u[:, 0]
    theta[:, :, 2] = 0.2 * u[:, 1:3] - 0.1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def worsen(images: Tensor, u: Tensor, rng: Rng) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → the same blurred, relit and noisy, by u [N, 3] in 0..1."""
    n = len(images)
    blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
    images = torch.lerp(images, blurred, u[:, 0, None, None, None])
    gain, shift = 0.85 + 0.3 * u[:, 1, None, None, None], 0.16 * rng.rand(n, 3, 1, 1) - 0.08
    noise = rng.randn(n, *images.shape[1:]) * (0.12 * u[:, 2, None, None, None])
    return (images * gain + shift + noise).clamp(-1, 1)


def halve(images: Tensor) -> Tensor:
    """[N, 3, 64, 64] → the same at 32 pixels, as a model of that size shows it to a probe."""
    return F.interpolate(images, (SIDE // 2, SIDE // 2), mode="bilinear", antialias=True)


def save(probe: Any, folder: str | Path, facts: dict[str, Any]) -> None:
    """Writes probe.safetensors (float16) and probe.json (its classes, and `facts` on how it was made and does)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in probe.state_dict().items() if v.is_floating_point()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(state))
    description = {"format": 2, "objects": probe.objects, "colors": probe.colors, "apart": probe.apart} | facts
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load(folder: str | Path, kind: Any, world: str) -> Any:
    """The classifier of a folder that `save` wrote, in eval mode. kind: its class; world: that it judges."""
    folder = Path(folder)
    remedy = f"make it again: python scripts/probe.py --world {world} --train"
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        probe = kind(description["objects"], description["colors"], description["apart"])
        state = {k: v.float() for k, v in safetensors.torch.load_file(folder / WEIGHTS).items()}
        missing = probe.load_state_dict(state, strict=False)
    except FileNotFoundError as error:
        raise UserError(f"probe {folder}: {error.filename} is not there; {remedy}") from None
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise UserError(f"probe {folder}: cannot be read ({one_line(error)}); {remedy}") from None
    if [k for k in missing.missing_keys if not k.endswith("num_batches_tracked")] or missing.unexpected_keys:
        raise UserError(f"probe {folder}: {WEIGHTS} does not fit {DESCRIPTION}; {remedy}")
    return probe.eval().requires_grad_(False)
