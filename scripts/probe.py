"""How often generated scenes show the object and the colour of their prompt.

    python scripts/probe.py                        the newest run, or else the model that ships
    python scripts/probe.py --checkpoint runs/x    a run, a checkpoint or a model folder
    python scripts/probe.py --train                makes the judging classifier anew
    python scripts/probe.py --binding --checkpoint runs/y
                                                   a model of pictures of two objects: has each the colour it was given?

Prompts name pairs of colour and object: some that training shows, some that it never does. The same shares of drawn
scenes are the ceiling: what the classifier makes of pictures that are right.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from t2i.errors import UserError, run_command
from t2i.metrics import binding as judge_binding
from t2i.metrics import probe as judge


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    for name in ("count", "scenes", "epochs"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: must be 1 or more")
    options.probe = options.probe or (judge_binding.SHIPPED if options.binding else judge.SHIPPED)
    if options.train:
        train(options)
    elif options.binding:
        measure_binding(options)
    else:
        measure(options)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--checkpoint", help="run, checkpoint or model folder (default: the newest run, or the shipped model)"
    )
    p.add_argument(
        "--count", type=int, default=500, help="prompts of seen pairs, and as many of held-out ones (%(default)s)"
    )
    p.add_argument("--seed", type=int, default=0, help="of the prompts and the latents (%(default)s)")
    p.add_argument("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (%(default)s)")
    p.add_argument("--noise", default="const", help="const or random (%(default)s)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    p.add_argument(
        "--json", type=Path, help="write all numbers, those of every object too, to this file, as one flat mapping"
    )
    p.add_argument(
        "--binding",
        action="store_true",
        help="two objects in two colours: a model trained on shards of --world binding",
    )
    p.add_argument("--probe", type=Path, help="folder of the classifier (the shipped one)")
    p.add_argument("--train", action="store_true", help="train the classifier and write it to --probe")
    p.add_argument("--scenes", type=int, default=12000, help="with --train: how many to draw (%(default)s)")
    p.add_argument("--epochs", type=int, default=8, help="with --train: passes over them (%(default)s)")
    return p


def measure(options: argparse.Namespace) -> None:
    """Generates, judges, prints the table."""
    from t2i.model import load_model
    from t2i.worlds import scenes

    probe = judge.load(options.probe)
    model = load_model(options.checkpoint, options.device)
    print(f"model: {model.path} ({model.kimg:g} kimg)", flush=True)
    figures: dict[str, dict[str, Any]] = {}
    for which in ("seen", "held_out"):
        texts, objects, colors = zip(*scenes.prompts(which, options.count, options.seed))
        figures[which] = judge.compute(generate(model, texts, which, options), objects, colors, probe)
        drawn = judge.real(options.count, 10**6 + options.seed, only_held_out=which == "held_out")
        figures[f"drawn_{which}"] = judge.compute(*drawn, probe)

    print(f"{'':<24}{'object':>9}{'colour':>9}{'both':>9}{'pictures':>10}")
    titles = {
        "seen": "seen pairs",
        "held_out": "held-out pairs",
        "drawn_seen": "drawn, seen pairs",
        "drawn_held_out": "drawn, held-out pairs",
    }
    for which, title in titles.items():
        f = figures[which]
        cells = "".join(f"{'-' if f[k] is None else format(f[k], '.1%'):>9}" for k in ("object", "color", "both"))
        print(f"{title:<24}{cells}{f['count']:>10}")
    if options.json:
        made = {"kimg": model.kimg, "seed": options.seed, "truncation": options.truncation}
        write(options.json, made | flat(figures))


def measure_binding(options: argparse.Namespace) -> None:
    """As `measure`, for pictures of two objects."""
    from t2i.model import load_model
    from t2i.worlds import binding

    probe = judge_binding.load(options.probe)
    model = load_model(options.checkpoint, options.device)
    print(f"model: {model.path} ({model.kimg:g} kimg)", flush=True)
    figures = {}
    for which in ("seen", "held_out"):
        texts, asked = zip(*binding.prompts(which, options.count, options.seed))
        figures[which] = judge_binding.compute(generate(model, texts, which, options), asked, probe)
        drawn = judge_binding.real(options.count, 10**6 + options.seed, only_held_out=which == "held_out")
        figures[f"drawn_{which}"] = judge_binding.compute(*drawn, probe)
    print(f"{'':<24}{'objects':>9}{'binding':>9}{'swapped':>9}{'pictures':>10}")
    for which, f in figures.items():
        cells = "".join(f"{f[k]:>9.1%}" for k in ("objects", "binding", "swapped"))
        title = which.replace("drawn_", "drawn, ").replace("held_out", "held-out")
        print(f"{title + ' couples':<24}{cells}{f['count']:>10}")
    if options.json:
        made = {"kimg": model.kimg, "seed": options.seed, "truncation": options.truncation}
        write(options.json, made | {f"{which}/{k}": v for which, shares in figures.items() for k, v in shares.items()})


def generate(model: Any, texts: Any, which: str, options: argparse.Namespace) -> torch.Tensor:
    """A picture for each text, [N, 3, 64, 64]."""
    seeds = range(options.seed, options.seed + len(texts))
    images = []
    with tqdm(total=len(texts), unit="picture", desc=which, leave=False, disable=None) as bar:
        for part in model.stream(texts, truncation=options.truncation, noise=options.noise, seeds=seeds):
            images.append(judge.fit(part).cpu())
            bar.update(len(part))
    return torch.cat(images)


def flat(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The shares and counts of all pictures ("seen/both") and of each object's ("seen/train/both"), nested no more."""
    out: dict[str, float] = {}
    for which, shares in figures.items():
        parts = {which: shares} | {f"{which}/{name}": part for name, part in shares["objects"].items()}
        for where, part in parts.items():
            out |= {f"{where}/{k}": v for k, v in part.items() if isinstance(v, int | float)}
    return out


def train(options: argparse.Namespace) -> None:
    start = time.perf_counter()
    say = lambda line: print(line, flush=True)
    tests = min(2000, options.scenes)
    kind: Any = judge_binding if options.binding else judge
    probe, accuracy = kind.train(options.scenes, options.epochs, options.seed, tests=tests, progress=say)
    made = {"scenes": options.scenes, "epochs": options.epochs, "seed": options.seed}
    try:
        judge.save(probe, options.probe, {"accuracy": accuracy, "trained": made})
    except OSError as error:
        raise UserError(f"--probe {options.probe}: {error.strerror}; choose another folder") from None
    for name, share in accuracy.items():
        print(f"{name.replace('_', ' '):<16}{share:>8.2%}")
    print(f"written to {options.probe} after {time.perf_counter() - start:.0f} s")


def write(path: Path, figures: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}; choose another file") from None


if __name__ == "__main__":
    run_command(main)
