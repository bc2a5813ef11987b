"""Times the parts of training and prints one table.

    python scripts/benchmark.py                          StyleGAN2 at 64×64, channels halved, batch 8, one thread
    python scripts/benchmark.py --config configs/scenes.yaml --threads 2 --shards shards/scenes-train-64
    python scripts/benchmark.py --compare configs/base.yaml configs/modified1.yaml configs/modified2.yaml

`of conv` is the time of a phase over that of its convolutions alone (the same ones, forward and backward, on random
numbers): how far it is from the cost that nobody avoids. Compare ratios of one run, not milliseconds of two.

--compare times whole training steps, a step of each run in turn, over all steps of a cycle of lazy losses. On a CPU it
counts processor time, so that other programs do not.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

import t2i
from t2i import config as configuration
from t2i.config import Config
from t2i.errors import UserError, run_command
from t2i.interfaces import Batch
from t2i.log import memory_gb
from t2i.losses import adversarial, regularization
from t2i.machine import cpu_name
from t2i.rng import Rng
from t2i.step import train_step
from t2i.views import Views

CAPTIONS = ["a green train is coming down the tracks", "two zebras standing in a field"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, help="time this run's networks instead of the standard ones")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; repeatable")
    add("--compare", nargs="+", type=Path, metavar="CONFIG", help="time whole steps of these runs against the first's")
    add("--batch", type=int, help="default 8, or with --compare that of each run")
    add("--threads", type=int, default=1, help="CPU threads (default %(default)s)")
    add("--precision", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16", "fp16"])
    add("--repeat", type=int, default=3, help="the median of so many runs (default %(default)s)")
    add("--shards", help="also time the loader on these shards")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    if a.compare:
        report(a, compare(a))
        return
    a.batch = a.batch or 8
    torch.set_num_threads(a.threads)
    standard = ["generator.channel_base=16384", "discriminator.channel_base=16384", "generator.mapping_layers=8", "generator.text=mapping",
                "discriminator.text=projection"]  # the published network that the figures are compared with  # fmt: skip
    settings = configuration.load(a.config, [*([] if a.config else standard), *a.set])
    device = torch.device(a.device)
    rows: list[dict[str, Any]] = []
    for precision in a.precision:
        rows += [{"precision": precision, **row} for row in networks(settings, a, device, precision)]
    rows += encoders(settings, a, device)
    if a.shards:
        rows += loader(a)
    machine = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": a.threads,
        "torch": torch.__version__,
        "t2i": t2i.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "batch": a.batch,
        "resolution": settings.model.resolution,
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items()))
    print(f"{'phase':<28}{'precision':>10}{'ms':>10}{'of conv':>9}{'pictures/s':>12}{'GB':>7}")
    for row in rows:
        columns = {"ms": (10, 1), "of_conv": (9, 2), "pictures_per_second": (12, 1), "gb": (7, 2)}
        numbers = "".join(f"{f'{row[k]:.{d}f}' if k in row else '':>{w}}" for k, (w, d) in columns.items())
        print(f"{row['phase']:<28}{row.get('precision', ''):>10}{numbers}")
    if a.json:
        a.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


def report(a: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Prints what `compare` found."""
    kind = torch.cuda.get_device_name(a.device) if a.device.startswith("cuda") else cpu_name()
    print(f"device {kind}, threads {a.threads}, torch {torch.__version__}, date {time.strftime('%Y-%m-%d')}")
    print(f"{'run':<28}{'batch':>7}{'ms a step':>11}{'s a kimg':>10}{'ratio':>8}")
    for r in rows:
        print(f"{r['run']:<28}{r['batch']:>7}{r['ms']:>11.1f}{r['seconds_per_kimg']:>10.1f}{r['ratio']:>8.3f}")
    if a.json:
        a.json.write_text(json.dumps(rows, indent=2) + "\n")


def compare(a: argparse.Namespace) -> list[dict[str, Any]]:
    """What a training step of each run costs, on random pictures, as a ratio to that of the first."""
    from t2i import train

    if a.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    clock = time.process_time if a.device == "cpu" else time.perf_counter
    changes = [*([f"train.batch={a.batch}"] if a.batch else []), *a.set]
    runs, batches = [], []
    for path in a.compare:
        settings = configuration.load(path, changes)
        runs.append(train.build(settings, train.start(settings)))
        rounds, rows = settings.train.accumulate, settings.train.batch // settings.train.accumulate
        image = torch.rand(rows, 3, *[settings.model.resolution] * 2) * 2 - 1
        one, two = ([f"{CAPTIONS[n]} {i}" for i in range(rows)] for n in (0, 1))
        batches.append([Batch(image, one, torch.arange(rows), two).to(runs[-1].device) for _ in range(rounds)])
    torch.set_num_threads(a.threads)
    cycle = math.lcm(*(t.every for run in runs for t in [*run.d_losses, *run.g_losses]))
    taken: list[list[list[float]]] = [[[] for _ in range(cycle)] for _ in runs]
    with tqdm(total=a.repeat * cycle + 1, unit="step", disable=None, leave=False) as bar:
        for step in range(-1, a.repeat * cycle):  # the first warms up
            for run, batch, times in zip(runs, batches, taken):
                run.step = max(step, 0)
                start = clock()
                train_step(batch, run)
                if a.device.startswith("cuda"):
                    torch.cuda.synchronize()
                if step >= 0:
                    times[step % cycle].append(clock() - start)
            bar.update()
    found: list[dict[str, Any]] = []
    for run, times in zip(runs, taken):
        seconds = sum(statistics.median(t) for t in times) / cycle / (a.threads if a.device == "cpu" else 1)
        batch_size = run.config.train.batch
        found.append({
            "run": run.config.name, "batch": batch_size, "ms": 1e3 * seconds,
            "seconds_per_kimg": 1e3 * seconds / batch_size,
        })  # fmt: skip
    first = found[0]["seconds_per_kimg"]
    return [row | {"ratio": row["seconds_per_kimg"] / first} for row in found]


def seconds(function: Callable[[], Any], repeat: int, device: torch.device) -> float:
    """Median time of a call after one to warm up."""
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


class Convolutions(TorchDispatchMode):
    """Notes the dense convolutions, forward and backward, that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            groups = args[8] if name == "convolution" else args[9]
            if groups == 1:
                self.calls.append((func, tuple(describe(x) for x in args)))
        return func(*args, **(kwargs or {}))

    def replay(self) -> None:
        for func, args in self.made:
            func(*args)

    def make(self, device: torch.device) -> None:
        """Random tensors like those seen, so that `replay` times nothing but the convolutions."""
        self.made = [(f, [x.make(device) if isinstance(x, Like) else x for x in args]) for f, args in self.calls]


class Like(SimpleNamespace):
    """Shape, strides and type of a tensor."""

    def make(self, device: torch.device) -> Tensor:
        return torch.randn(self.shape, device=device).to(self.dtype).to(memory_format=self.layout)


def describe(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return Like(shape=x.shape, dtype=x.dtype, layout=torch.channels_last if last else torch.contiguous_format)


def networks(settings: Config, a: argparse.Namespace, device: torch.device, precision: str) -> list[dict[str, Any]]:
    """Forward and training phases of generator and discriminator."""
    from t2i.encoders.text import load_text_encoder
    from t2i.model import backbone

    nets, batch, resolution = backbone(settings.model.name), a.batch, settings.model.resolution
    text_encoder = load_text_encoder(settings.encoders.text, device)
    text = text_encoder([CAPTIONS[i % 2] for i in range(batch)])
    layout = torch.channels_last if settings.train.channels_last else torch.contiguous_format
    torch.manual_seed(0)
    G = nets.Generator(settings.model, text_encoder.dim, text_encoder.word_dim).to(device, memory_format=layout)
    D = nets.Discriminator(settings.model, text_encoder.dim).to(device, memory_format=layout)
    rng = Rng(0, device=device)
    z = rng.randn(batch, G.latent_dim)
    image = rng.randn(batch, 3, resolution, resolution)
    run = SimpleNamespace(G=G, D=D, config=settings, ada_p=0.0, images=0, path_mean=torch.zeros((), device=device))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.bfloat16)
    autocast = torch.autocast(device.type, dtype, enabled=precision != "fp32")

    def views(fake: Tensor, **more: Any) -> Views:
        captions = [CAPTIONS[i % 2] for i in range(batch)]
        return Views(run, Batch(image, captions, torch.arange(batch)), text, fake, rng, **more)  # type: ignore[arg-type]

    def g_forward() -> None:
        with torch.no_grad(), autocast:
            G(z, text)

    def g_step() -> None:
        D.requires_grad_(False)
        with autocast:
            loss = adversarial.generator(views(G(z, text)))
        loss.backward()
        D.requires_grad_(True)
        G.zero_grad()

    def d_step() -> None:
        with torch.no_grad(), autocast:
            fake = G(z, text)
        with autocast:
            loss = adversarial.discriminator(views(fake))
        loss.backward()
        D.zero_grad()

    def r1() -> None:
        v = views(image, leaves={"real"})
        with autocast:
            loss = regularization.r1(v)
        loss.backward()
        D.zero_grad()

    def path_length() -> None:
        with autocast:
            loss = regularization.path_length(views(image))
        loss.backward()
        G.zero_grad()

    rows = []
    for phase in (g_forward, g_step, d_step, r1, path_length):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        taken = seconds(phase, a.repeat, device)
        recorder = Convolutions()
        with recorder:
            phase()
        recorder.make(device)
        bare = seconds(recorder.replay, a.repeat, device)
        rows.append({
            "phase": phase.__name__.replace("_", " ").replace("g ", "G ").replace("d ", "D ").replace("r1", "R1"),
            "ms": 1e3 * taken, "conv_ms": 1e3 * bare, "of_conv": taken / bare, "pictures_per_second": batch / taken,
            "gb": memory_gb(device),
        })  # fmt: skip
    return rows


def encoders(settings: Config, a: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """The frozen text encoder, and CLIP's image tower with the backward pass to the picture."""
    from t2i.encoders.clip import load_clip
    from t2i.encoders.text import load_text_encoder

    text_encoder = load_text_encoder(settings.encoders.text, device)
    clip = load_clip(settings.encoders.clip, device)
    resolution = settings.model.resolution
    image = torch.randn(a.batch, 3, resolution, resolution, device=device).requires_grad_()
    captions = [f"{c} {i}" for i in range(a.batch // 2 + 1) for c in CAPTIONS][: a.batch]
    phases = {
        "text encoder": lambda: text_encoder(captions),
        "CLIP image, forward+backward": lambda: clip.image_features(image, Rng(0, device=device), 0.9).sum().backward(),
    }
    rows = []
    for name, phase in phases.items():
        taken = seconds(phase, a.repeat, device)
        rows.append({"phase": name, "ms": 1e3 * taken, "pictures_per_second": a.batch / taken})
    return rows


def loader(a: argparse.Namespace) -> list[dict[str, Any]]:
    """Pictures a second of the loader in this process, against decoding the same JPEGs in a bare loop."""
    from torchvision.io import ImageReadMode, decode_jpeg

    from t2i.data.loader import Loader

    count, batch = 4096, 64
    tars = sorted(Path(a.shards).glob("*.tar"))
    if not tars:
        raise UserError(f"--shards {a.shards}: a local folder of shards is needed to decode without the loader")
    import tarfile

    jpegs: list[Tensor] = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and len(jpegs) < count:
                    jpegs.append(torch.frombuffer(bytearray(tar.extractfile(member).read()), dtype=torch.uint8))  # type: ignore[union-attr]
    start = time.perf_counter()
    for data in jpegs:
        decode_jpeg(data, ImageReadMode.RGB)
    bare = len(jpegs) / (time.perf_counter() - start)
    batches = iter(Loader(a.shards, batch, workers=0))
    next(batches)
    start = time.perf_counter()
    rounds = max(len(jpegs) // batch, 1)
    for _ in range(rounds):
        next(batches)
    ours = rounds * batch / (time.perf_counter() - start)
    return [
        {"phase": "bare JPEG decoding", "pictures_per_second": bare},
        {"phase": f"loader ({bare / ours:.2f}x of bare)", "pictures_per_second": ours, "of_bare": bare / ours},
    ]


if __name__ == "__main__":
    run_command(main)
