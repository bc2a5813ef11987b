"""What a probe's file exports, and what scripts/probe.py does with it: judges a model, or trains the classifier."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from t2i import files
from t2i import model as models
from t2i.errors import UserError, closest
from t2i.probes import known
from t2i.probes.classifier import fit, save

# Generators are trained on pictures of small seeds. None of those is among the pictures that ceiling and floors are
# drawn from, nor among those that judges learn from; nor is any of one among the other.
DRAWN_SEEDS, OWN_SEEDS = 1_000_000, 7_000_000


@dataclass(frozen=True)
class Probe:
    """A judge of one drawn world. What is asked of pictures is one list or several, an entry a picture."""

    load: Callable[[Path], Any]  # the classifier of a folder that `classifier.save` wrote
    train: Callable[..., tuple[Any, dict[str, float]]]  # (count, epochs, seed, tests=, progress=) → it, its accuracies
    prompts: Callable[[str, int, int], Sequence[Any]]  # ("seen" or "held_out", count, seed) → texts, *asked
    # (count, seed, side, only_held_out=) → pictures [N, 3, side, side] in [-1, 1], *asked
    drawn: Callable[..., Sequence[Any]]
    # (count, seed, side) → kind of picture without objects: as drawn
    floors: Callable[[int, int, int], Mapping[str, Sequence[Any]]]
    compute: Callable[..., dict[str, Any]]  # (pictures, *asked, classifier) → shares in 0..1, perhaps of parts too
    shipped: Path  # the folder of the classifier that ships
    columns: dict[str, str]  # of the printed table: title → share
    unit: str  # what prompts are drawn from: "pairs" of colour and object


def find(world: str) -> Probe:
    """The probe of a world; UserError with the names there are."""
    if world not in known():
        raise UserError(f"--world {world}: no probe of it; {closest(world, known())}")
    return import_module(f"t2i.probes.{world}").PROBE


@dataclass(frozen=True)
class Asked:
    """A model to be judged on a drawn world, and how."""

    world: str
    checkpoint: str | None = None  # as for load_model
    count: int = 500  # prompts of each kind
    seed: int = 0  # of prompts and latents
    truncation: float = 1.0
    noise: str = "const"
    device: str | None = None
    folder: Path | None = None  # of the classifier; None: the one that ships
    file: Path | None = None  # for all figures

    def opened(self) -> tuple[Probe, Any, Any]:
        """The world's probe, its classifier, and the model."""
        probe = find(self.world)
        return probe, probe.load(self.folder or probe.shipped), models.load_model(self.checkpoint, self.device)

    def generate(self, model: Any, texts: Sequence[str], label: str) -> Tensor:
        """A picture of each text, [N, 3, 64, 64] in [-1, 1]."""
        seeds = range(self.seed, self.seed + len(texts))
        images = []
        with tqdm(total=len(texts), unit="picture", desc=label, leave=False, disable=None) as bar:
            for part in model.stream(texts, truncation=self.truncation, noise=self.noise, seeds=seeds):
                images.append(fit(part).cpu())
                bar.update(len(part))
        return torch.cat(images)

    def write(self, model: Any, figures: Mapping[str, float]) -> None:
        """The figures, and what they are of, to the file if one is asked for."""
        if self.file:
            about = {
                "kimg": model.kimg, "seed": self.seed, "truncation": self.truncation, "side": model.resolution,
            }  # fmt: skip
            files.write_figures(self.file, about | dict(figures))


def judge(asked: Asked) -> None:
    """Generates `count` pictures of seen prompts and of held-out ones, and draws as many of the same size: what the
    classifier makes of those is the ceiling, and what it makes of as many without an object is the floor. Prints the
    shares; writes all of them to a file."""
    probe, classifier, model = asked.opened()
    count, seed, side = asked.count, asked.seed, model.resolution
    print(f"model: {model.path} ({model.kimg:g} kimg), {side}×{side}, as are drawn pictures", flush=True)
    figures: dict[str, dict[str, Any]] = {}
    for which in ("seen", "held_out"):
        texts, *things = probe.prompts(which, count, seed)
        figures[which] = probe.compute(asked.generate(model, texts, which), *things, classifier)
    for which in ("seen", "held_out"):
        drawn = probe.drawn(count, DRAWN_SEEDS + seed, side, only_held_out=which == "held_out")
        figures[f"drawn_{which}"] = probe.compute(*drawn, classifier)
    for kind, shown in probe.floors(count, DRAWN_SEEDS + seed, side).items():
        figures[f"floor_{kind}"] = probe.compute(*shown, classifier)
    print(table(probe, figures))
    asked.write(model, flat(figures))


def table(probe: Probe, figures: dict[str, dict[str, Any]]) -> str:
    """The main shares for the terminal."""
    lines = [f"{'':<24}" + "".join(f"{title:>9}" for title in probe.columns) + f"{'pictures':>10}"]
    for which, shares in figures.items():
        title = which.replace("floor_", "no object: ")
        if title == which:
            title = which.replace("drawn_", "drawn, ").replace("held_out", "held-out") + f" {probe.unit}"
        values = [shares[key] for key in probe.columns.values()]
        cells = "".join(f"{'-' if v is None else format(v, '.1%'):>9}" for v in values)
        lines.append(f"{title:<24}{cells}{shares['count']:>10}")
    return "\n".join(lines)


def flat(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The shares and counts of all pictures ("seen/both") and of parts of them ("seen/train/both"), nested no more."""
    out: dict[str, float] = {}
    for which, shares in figures.items():
        parts = {which: shares}
        for value in shares.values():
            if isinstance(value, dict):
                parts |= {f"{which}/{name}": part for name, part in value.items()}
        for where, part in parts.items():
            out |= {f"{where}/{k}": v for k, v in part.items() if isinstance(v, int | float)}
    return out


def train(world: str, scenes: int, epochs: int, seed: int = 0, folder: Path | None = None) -> None:
    """Trains the classifier on drawn pictures, prints how often it is right and writes it to a folder."""
    start, probe = time.perf_counter(), find(world)
    folder = folder or probe.shipped
    say = lambda line: print(line, flush=True)
    classifier, accuracy = probe.train(scenes, epochs, seed, tests=min(1000, scenes), progress=say)
    made = {"scenes": scenes, "epochs": epochs, "seed": seed}
    try:
        save(classifier, folder, {"accuracy": accuracy, "trained": made})
    except OSError as error:
        raise UserError(f"--probe {folder}: {error.strerror}; choose another folder") from None
    for name, share in accuracy.items():
        print(f"{name.replace('_', ' '):<16}{share:>8.2%}")
    print(f"written to {folder} after {time.perf_counter() - start:.0f} s")
