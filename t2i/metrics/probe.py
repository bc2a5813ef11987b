"""Does a picture show the object and the colour of its prompt? Judged by a small classifier of drawn scenes.

The classifier is trained on true attributes of freshly drawn scenes (every pair of colour and object, those held
out of the generators' training too), spoilt a little by blur, noise, shifts and light, so that it also reads
pictures that were not drawn. The one that ships says in its probe.json how often it is right.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.errors import UserError
from t2i.painting.pen import PALETTE
from t2i.rng import Rng
from t2i.worlds import scenes

SIDE = 64
SHIPPED = Path(__file__).parents[1] / "assets" / "scenes-probe"
WEIGHTS, DESCRIPTION = "probe.safetensors", "probe.json"


def features() -> nn.Sequential:
    """[N, 3, 64, 64] → [N, 128, 4, 4]."""
    widths = (3, 24, 48, 96, 128)
    blocks = [
        layer
        for c_in, c_out in pairwise(widths)
        for layer in (nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU())
    ]
    last = (nn.Conv2d(128, 128, 3, 1, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())
    return nn.Sequential(*blocks, *last)


def pool(x: Tensor) -> Tensor:
    """[N, C, H, W] → [N, 2·C]: the mean and the maximum over all places."""
    return torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)


class Probe(nn.Module):
    """Five strided convolutions and two linear heads: which object, which colour."""

    def __init__(self, objects: Sequence[str] = scenes.SUBJECTS, colors: Sequence[str] = tuple(PALETTE)):
        super().__init__()
        self.objects, self.colors = list(objects), list(colors)
        self.features = features()
        self.object = nn.Linear(2 * 128, len(self.objects))
        self.color = nn.Linear(2 * 128, len(self.colors))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images [N, 3, H, W] in [-1, 1] → object logits [N, objects], colour logits [N, colours]."""
        x = pool(self.features(fit(images)))  # [N, 256]
        return self.object(x), self.color(x)

    @torch.no_grad()
    def name(self, images: Tensor, batch: int = 256) -> tuple[list[str], list[str]]:
        """images [N, 3, H, W] in [-1, 1] → the object and the colour seen in each."""
        seen: tuple[list[str], list[str]] = ([], [])
        for part in images.split(batch):
            for found, names, logits in zip(seen, (self.objects, self.colors), self(part.float())):
                found += [names[i] for i in logits.argmax(1).tolist()]
        return seen


def fit(images: Tensor) -> Tensor:
    """[N, C, H, W] → [N, C, 64, 64], the size that the probe looks at."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)


def compute(images: Tensor, objects: Sequence[str], colors: Sequence[str | None], probe: Probe) -> dict[str, Any]:
    """How often pictures show what was asked for.

    images [N, 3, H, W] in [-1, 1]; the object and the colour asked of each, None where none was. Returns shares in
    0..1: {"object", "color", "both", "count", "colored", "objects": {name: the same of its pictures}}. "color"
    counts only pictures of which one was asked (None if there is none); "both" takes the others by their object.
    """
    if not len(images) == len(objects) == len(colors):
        raise ValueError(
            f"{len(images)} images, {len(objects)} objects and {len(colors)} colors; one of each a picture"
        )
    if not len(images):
        raise ValueError("no images to judge")
    found = zip(*probe.name(images))
    rows = [(o, f[0] == o, None if c is None else f[1] == c) for o, c, f in zip(objects, colors, found)]
    names = list(dict.fromkeys(objects))
    return _shares(rows) | {"objects": {name: _shares([r for r in rows if r[0] == name]) for name in names}}


def asked(caption: str, attributes: dict[str, Any]) -> tuple[str, str | None]:
    """The object of a drawn scene, and its colour if the caption gives it one ("a boat under a blue sky" does not)."""
    name, color = attributes["objects"][0]["name"], attributes["objects"][0]["color"]
    nouns = r"(?:passenger |double decker |sail ?)?" + rf"(?:{name}|sofa|boat|bus|jacket|coat)"
    said = color and re.search(rf"\b{color} {nouns}s?\b|\bwearing {color}\b|\bis {color}\b", caption.lower())
    return name, color if said else None


def _shares(rows: list[tuple[str, bool, bool | None]]) -> dict[str, Any]:
    colored = [right for _, _, right in rows if right is not None]
    return {
        "object": sum(right for _, right, _ in rows) / len(rows),
        "color": sum(colored) / len(colored) if colored else None,
        "both": sum(o and c is not False for _, o, c in rows) / len(rows),
        "count": len(rows),
        "colored": len(colored),
    }


def real(count: int, seed: int, **options: Any) -> tuple[Tensor, list[str], list[str | None]]:
    """Drawn scenes as the data set has them at 64 pixels: [count, 3, 64, 64] in [-1, 1], objects, colours.

    options: `held_out` and `only_held_out` of scenes.draw.
    """
    pixels, objects, colors = _drawn(count, seed, **options)
    return floats(pixels), objects, colors


def _drawn(count: int, seed: int, **options: Any) -> tuple[Tensor, list[str], list[str | None]]:
    """As `real`, but pixels [count, 64, 64, 3] uint8."""
    pixels, plans = drawings(count, lambda i: scenes.draw(seed, i, SIDE, **options))
    subjects = [plan["objects"][0] for plan in plans]
    return pixels, [s["name"] for s in subjects], [s["color"] for s in subjects]


def drawings(count: int, draw: Callable[[int], tuple]) -> tuple[Tensor, list[dict[str, Any]]]:
    """Pixels [count, 64, 64, 3] uint8 and plans of drawn pictures. draw: index → (picture, ..., plan)."""
    pixels, plans = np.empty((count, SIDE, SIDE, 3), np.uint8), []
    for i in range(count):
        image, *_, plan = draw(i)
        pixels[i] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
        plans.append(plan)
    return torch.from_numpy(pixels), plans


def floats(pixels: Tensor) -> Tensor:
    """[N, H, W, 3] uint8 → [N, 3, H, W] in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def train(
    count: int = 12000,
    epochs: int = 8,
    seed: int = 0,
    batch: int = 128,
    lr: float = 3e-3,
    tests: int = 2000,
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[Probe, dict[str, float]]:
    """Draws `count` scenes, trains a probe on them, tests it on `tests` scenes it has not seen.

    Returns the probe in eval mode and its accuracies: "object" and "color", and both on spoilt pictures.
    """
    progress(f"drawing {count} scenes")
    pixels, objects, colors = _drawn(count, seed, held_out=())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = Probe()
    rng = Rng(seed, 1)
    first, second = _labels(probe, objects, colors)

    def loss(images: Tensor, rows: Tensor) -> Tensor:
        a, b = probe(images)
        return F.cross_entropy(a, first[rows]) + F.cross_entropy(b, second[rows], ignore_index=-1)

    learn(probe, pixels, loss, epochs, batch, lr, rng, progress)
    images, objects, colors = real(tests, seed + 1, held_out=())
    clean = compute(images, objects, colors, probe)
    spoilt = compute(spoil(images, Rng(seed, 2)), objects, colors, probe)
    accuracy = {k: clean[k] for k in ("object", "color")} | {f"spoilt_{k}": spoilt[k] for k in ("object", "color")}
    return probe, accuracy


def learn(
    probe: nn.Module, pixels: Tensor, loss: Callable[[Tensor, Tensor], Tensor], epochs: int, batch: int, lr: float,
    rng: Rng, progress: Callable[[str], None],
) -> None:  # fmt: skip
    """Trains a classifier on spoilt pictures, pixels [N, H, W, 3] uint8; leaves it in eval mode.

    loss: (pictures [n, 3, H, W], their rows of `pixels` [n]) → scalar.
    """
    optimizer = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=0.05)
    steps = len(pixels) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, epochs * steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in batches(len(pixels), batch, rng):
            value = loss(spoil(floats(pixels[rows]), rng), rows)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item()
        progress(f"epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}")
    probe.eval().requires_grad_(False)


def spoil(images: Tensor, rng: Rng) -> Tensor:
    """[N, 3, H, W] in [-1, 1] → the same shifted, scaled, blurred, relit and noisy, each picture by its own amounts."""
    n = len(images)
    u = rng.rand(n, 6)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 0.88 + 0.24 * u[:, 0]
    theta[:, :, 2] = 0.2 * u[:, 1:3] - 0.1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, 1)
    images = torch.lerp(images, blurred, u[:, 3, None, None, None])
    gain, shift = 0.85 + 0.3 * u[:, 4, None, None, None], 0.16 * rng.rand(n, 3, 1, 1) - 0.08
    noise = rng.randn(n, *images.shape[1:]) * (0.12 * u[:, 5, None, None, None])
    return (images * gain + shift + noise).clamp(-1, 1)


def _labels(probe: Probe, objects: Sequence[str], colors: Sequence[str | None]) -> tuple[Tensor, Tensor]:
    """Class numbers [N] of objects and of colours, -1 where there is no colour to tell."""
    first = torch.tensor([probe.objects.index(name) for name in objects])
    return first, torch.tensor([-1 if name is None else probe.colors.index(name) for name in colors])


def batches(count: int, batch: int, rng: Rng) -> Iterator[Tensor]:
    """The rows of each whole batch of one shuffled pass."""
    order = rng.rand(count).argsort()
    return (order[i : i + batch] for i in range(0, count - batch + 1, batch))


def save(probe: Any, folder: str | Path, facts: dict[str, Any]) -> None:
    """Writes probe.safetensors (float16) and probe.json (its classes, and `facts` on how it was made and does)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in probe.state_dict().items() if v.is_floating_point()}
    (folder / WEIGHTS).write_bytes(safetensors.torch.save(state))
    description = {"format": 1, "objects": probe.objects, "colors": probe.colors} | facts
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load(folder: str | Path = SHIPPED, kind: Any = Probe, option: str = "--train") -> Any:
    """The probe of a folder that `save` wrote, in eval mode; without a folder, the one that ships.

    kind: its class; option: how scripts/probe.py makes one.
    """
    folder = Path(folder)
    remedy = f"make it again: python scripts/probe.py {option}"
    try:
        description = json.loads((folder / DESCRIPTION).read_text())
        probe = kind(description["objects"], description["colors"])
        state = {k: v.float() for k, v in safetensors.torch.load_file(folder / WEIGHTS).items()}
        missing = probe.load_state_dict(state, strict=False)
    except FileNotFoundError as error:
        raise UserError(f"probe {folder}: {error.filename} is not there; {remedy}") from None
    except (OSError, ValueError, KeyError, SafetensorError, RuntimeError) as error:
        raise UserError(f"probe {folder}: cannot be read ({' '.join(str(error).split())[:120]}); {remedy}") from None
    if [k for k in missing.missing_keys if not k.endswith("num_batches_tracked")] or missing.unexpected_keys:
        raise UserError(f"probe {folder}: {WEIGHTS} does not fit {DESCRIPTION}; {remedy}")
    return probe.eval().requires_grad_(False)
