"""The parts of training: phases of generator and discriminator, frozen encoders, the loader."""

import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from t2i.benchmark.networks import build_run, fakes
from t2i.benchmark.timing import Convolutions, seconds
from t2i.config import Config
from t2i.data.loader import Loader
from t2i.encoders.clip import load_clip
from t2i.encoders.text import load_text_encoder
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.log import memory_gb
from t2i.losses import adversarial, latents, penalties
from t2i.rng import Rng
from t2i.views import Views

CAPTIONS = ["a green train is coming down the tracks", "two zebras standing in a field"]
COLUMNS = {"phase": "", "precision": "", "ms": ".1f", "of conv": ".2f", "pictures/s": ".1f", "GB": ".2f"}


def parts(
    settings: Config, precisions: Iterable[str], batch: int, repeat: int, device: torch.device, shards: str | None
) -> list[dict[str, Any]]:
    """A row a phase; of networks for each precision, of the loader only where there are shards."""
    rows = [row for precision in precisions for row in phases(settings, precision, batch, repeat, device)]
    rows += encoders(settings, batch, repeat, device)
    return rows + (loader(shards) if shards else [])


def phases(settings: Config, precision: str, batch: int, repeat: int, device: torch.device) -> list[dict[str, Any]]:
    """Forward and training phases of generator and discriminator. `of conv`: the time over that of the phase's
    convolutions alone."""
    run = build_run(settings, device, precision)
    G, D, rng = run.G, run.D, Rng(0, device=device)
    captions = [CAPTIONS[i % 2] for i in range(batch)]
    text = run.text_encoder(captions)
    image = rng.randn(batch, 3, settings.model.resolution, settings.model.resolution)
    sample = Batch(image, captions, torch.arange(batch, device=device))

    with torch.no_grad():
        given = fakes(G, text, rng)  # for phases that draw nothing

    def g_forward() -> None:
        with torch.no_grad(), run.autocast():
            fakes(G, text, rng)

    def g_step() -> None:
        D.requires_grad_(False)
        with run.autocast():
            loss = adversarial.generator(Views(run, sample, text, *fakes(G, text, rng), rng))
        loss.backward()
        D.requires_grad_(True)
        G.zero_grad()

    def d_step() -> None:
        with run.autocast():
            with torch.no_grad():
                fake = fakes(G, text, rng)
            loss = adversarial.discriminator(Views(run, sample, text, *fake, rng))
        loss.backward()
        D.zero_grad()

    def r1() -> None:
        with run.autocast():
            loss = penalties.r1(Views(run, sample, text, *given, rng, {"real pictures"}))
        loss.backward()
        D.zero_grad()

    def path_length() -> None:
        with run.autocast():
            loss = latents.path_length(Views(run, sample, text, *given, rng))
        loss.backward()
        G.zero_grad()

    rows = []
    names = {"G forward": g_forward, "G step": g_step, "D step": d_step, "R1": r1, "path length": path_length}
    for name, phase in names.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        taken = seconds(phase, repeat, device)
        convolutions = Convolutions()
        with convolutions:
            phase()
        convolutions.make(device)
        bare = seconds(convolutions.replay, repeat, device)
        rows.append({
            "phase": name, "precision": precision, "ms": 1e3 * taken, "conv ms": 1e3 * bare, "of conv": taken / bare,
            "pictures/s": batch / taken, "GB": memory_gb(device),
        })  # fmt: skip
    return rows


def encoders(settings: Config, batch: int, repeat: int, device: torch.device) -> list[dict[str, Any]]:
    """The frozen text encoder, and CLIP's image tower with the backward pass to the picture."""
    text_encoder = load_text_encoder(settings.encoders.text, device)
    clip = load_clip(settings.encoders.clip, device, cut_size=0.9)
    side = settings.model.resolution
    image = torch.randn(batch, 3, side, side, device=device).requires_grad_()
    captions = [f"{CAPTIONS[i % 2]} {i // 2}" for i in range(batch)]
    calls = {
        "text encoder": lambda: text_encoder(captions),
        "CLIP image, forward+backward": lambda: clip.features(image, Rng(0, device=device)).sum().backward(),
    }
    rows = []
    for name, call in calls.items():
        taken = seconds(call, repeat, device)
        rows.append({"phase": name, "ms": 1e3 * taken, "pictures/s": batch / taken})
    return rows


def loader(shards: str, most: int = 4096, batch: int = 64) -> list[dict[str, Any]]:
    """Pictures a second of the loader in this process, against decoding the same JPEGs in a bare loop."""
    tars = sorted(Path(shards).glob("*.tar"))
    if not tars:
        raise UserError(f"--shards {shards}: a local folder of shards is needed to decode without the loader")
    jpegs: list[Tensor] = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and len(jpegs) < most:
                    jpegs.append(torch.frombuffer(bytearray(tar.extractfile(member).read()), dtype=torch.uint8))  # type: ignore[union-attr]
    start = time.perf_counter()
    for data in jpegs:
        decode_jpeg(data, ImageReadMode.RGB)
    bare = len(jpegs) / (time.perf_counter() - start)
    batches = iter(Loader(shards, batch, workers=0))
    next(batches)
    start = time.perf_counter()
    rounds = max(len(jpegs) // batch, 1)
    for _ in range(rounds):
        next(batches)
    ours = rounds * batch / (time.perf_counter() - start)
    return [
        {"phase": "bare JPEG decoding", "pictures/s": bare},
        {"phase": f"loader ({bare / ours:.2f}x of bare)", "pictures/s": ours, "of bare": bare / ours},
    ]
