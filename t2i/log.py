"""What a run tells: a progress bar, metrics.jsonl, TensorBoard and picture grids."""

import json
import os
import resource
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from t2i.files import write_text
from t2i.pictures import picture_grid
from t2i.rng import SampleRng
from t2i.run import Run

with warnings.catch_warnings():  # tensorboard's protobuf code warns of itself on import
    warnings.simplefilter("ignore")
    from torch.utils.tensorboard import SummaryWriter


class Log:
    """The files and the bar of one run; only the first process makes one."""

    def __init__(self, folder: Path, run: Run, prompts: list[str]):
        config = run.config
        self.folder, self.config = folder, config
        self.prompts = prompts[: config.log.grid]
        self.metrics = folder / "metrics.jsonl"
        _forget(self.metrics, run.step, begun=bool(run.sums))
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=run.images + 1)
        self.clock, self.clock_images = time.monotonic(), run.images
        self.bar = tqdm(
            total=config.train.kimg,
            initial=run.images / 1000,
            unit="kimg",
            dynamic_ncols=True,
            # A log file gets a line now and then instead of a screenful a second.
            mininterval=0.2 if sys.stderr.isatty() else 15,
            bar_format="{l_bar}{bar}| {n:.2f}/{total:g} kimg [{elapsed}<{remaining}, {rate_inv_fmt}{postfix}]",
        )

    def step(self, run: Run, terms: dict[str, Tensor], broken: int) -> None:
        """Collects the terms of a step; every `log.every` steps writes their means."""
        for name, value in terms.items():
            run.sums[name] = run.sums.get(name, torch.zeros((), device=value.device)) + value.float()
            run.counts[name] = run.counts.get(name, 0) + 1
        self.bar.update(min(run.images / 1000, self.config.train.kimg) - self.bar.n)
        if run.step % self.config.log.every == 0:
            self.write(run, broken)

    def write(self, run: Run, broken: int) -> None:
        if not run.sums or run.images == self.clock_images:
            return
        seconds = time.monotonic() - self.clock
        images = run.images - self.clock_images
        values = {name: float(value / run.counts[name]) for name, value in run.sums.items()}
        for name, network in (("G", run.G), ("D", run.D)):
            values |= {f"{name}/{k}": float(v) for k, v in network.watch().items()}
        values |= {
            "ada_p": run.ada_p,
            "images_per_second": images / seconds,
            "seconds_per_kimg": 1000 * seconds / images,
            "memory_gb": memory_gb(run.device),
            "broken_samples": broken,
        }
        self.clock, self.clock_images = time.monotonic(), run.images
        run.sums, run.counts = {}, {}
        with self.metrics.open("a") as file:
            file.write(json.dumps({"step": run.step, "kimg": run.images / 1000, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, run.images)
        shown = {k: f"{v:.2f}" for k, v in values.items() if "/" in k and "norm" not in k and "sign" not in k}
        self.bar.set_postfix(shown, refresh=False)

    def scores(self, run: Run, values: dict[str, float], seconds: float) -> None:
        """A line and curves of an evaluation, whose seconds do not count as training."""
        self.clock += seconds
        with self.metrics.open("a") as file:
            file.write(json.dumps({"step": run.step, "kimg": run.images / 1000, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, run.images)
        self.say(f"{run.images / 1000:g} kimg: " + ", ".join(f"{k} {v:.4g}" for k, v in values.items()))

    @torch.no_grad()
    def snapshot(self, run: Run) -> Path:
        """A grid of the averaged generator: a row a prompt, a column a latent, the same ones all through a run."""
        rows = len(self.prompts)
        text = run.text_encoder(self.prompts)
        columns = []
        for column in range(self.config.log.grid):
            noise = SampleRng([run.config.seed + column] * rows, run.device)
            columns.append(run.G_ema(run.G_ema.latent(rows, noise), text, run.stage, noise="const").image.float().cpu())
        images = torch.stack(columns, dim=1).flatten(0, 1).clamp(-1, 1)  # [rows·columns, 3, H, W]
        path = self.folder / "snapshots" / f"{int(run.images):010d}.png"
        path.parent.mkdir(exist_ok=True)
        picture = picture_grid(images, self.config.log.grid, self.prompts)
        picture.save(path)
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        self.board.add_image("snapshot", pixels.view(picture.height, picture.width, 3), run.images, dataformats="HWC")
        return path

    def say(self, line: str) -> None:
        self.bar.write(line, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
        self.board.close()


def describe(run: Run, pictures: int, folder: Path) -> str:
    """The line that a training begins with."""

    def millions(network: torch.nn.Module) -> str:
        return f"{sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6:.2f} M"

    where = f"from {run.images / 1000:g} kimg on" if run.step else "from the start"
    return (
        f"{folder} {where}: {pictures} pictures, G {millions(run.G)}, D {millions(run.D)} parameters, "
        f"{run.world} process(es) on {run.device} in {run.precision}, process {os.getpid()}"
    )


def _forget(path: Path, step: int, begun: bool) -> None:
    """Drops lines after a step: a run killed after its last checkpoint takes those steps again. begun: and the line of
    that step itself, which was written before its time because the run ended there; its terms will be in the next."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(errors="replace").split("\n"):
        try:
            values = json.loads(line)
            if values["step"] < step or (values["step"] == step and not (begun and "seconds_per_kimg" in values)):
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):  # a line cut by the kill
            continue
    write_text(path, "".join(kept))


def memory_gb(device: torch.device) -> float:
    """The most memory used so far: the accelerator's, or on a CPU this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
