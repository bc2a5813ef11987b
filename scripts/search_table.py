"""What search buys: algorithms x settings x prompts x seeds, by the optimised score, the held-out one and the probe.

    python scripts/search_table.py                     the shipped scenes model, held-out pairs of colour and object
    python scripts/search_table.py --budget 2000       evaluations a run (the settings keep their shapes)
    python scripts/search_table.py --overhead          what the algorithms themselves cost a generation

Every run lands in rows.jsonl at once; the same command goes on after a kill, or when asked for more. table.md and
table.json are made anew from all rows.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from t2i.errors import UserError, closest, run_command
from t2i.metrics import probe as judge
from t2i.model import load_model
from t2i.search import Settings, algorithms, search
from t2i.search.hunt import Result
from t2i.search.record import Record, number, pack
from t2i.search.settings import PRESETS

TABLE = ("100x1000", "200x500", "500x200", "1000x100")
FIGURES = {  # of a run → heading
    "score": "optimised", "held_out": "held out", "score_gain": "σ over N", "held_out_gain": "held out, σ over N",
    "both": "probe both", "likely": "probe p",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.overhead:
        overhead(options)
        return
    for name in ("budget", "prompts", "seeds"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)}: must be 1 or more")
    names = options.algorithms.split(",")
    for name in names:
        algorithms.find(name)
    shapes = options.settings.split(",")
    for name in shapes:
        if name not in TABLE:
            raise UserError(f"--settings {name}: {closest(name, TABLE)}")
    model = load_model(options.checkpoint, options.device)
    wanted = captions(options)
    rows_file = options.out / "rows.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
    common = {"model": str(model.path), "kimg": model.kimg, "budget": options.budget, "views": options.views,
              "space": options.space, "scorer": options.scorer, "held": options.held_out,
              "objective": options.objective}  # fmt: skip
    done = {key(row): row for row in rows if all(row.get(k) == v for k, v in common.items())}
    start, probe = time.monotonic(), judge.load() if options.file is None else None
    cells = [(n, s) for n in names for s in (TABLE[:1] if n == "best_of_n" else shapes)]
    if "best_of_n" not in names:
        cells.insert(0, ("best_of_n", TABLE[0]))  # what the others are compared with
    cells.sort(key=lambda cell: cell[0] != "best_of_n")
    runs = list(itertools.product(range(options.seeds), wanted, cells))  # whole seeds first: a table early
    with open(rows_file, "a", encoding="utf-8") as file, tqdm(runs, unit="run", disable=None) as bar:
        for seed, (prompt, thing, color), (name, setting) in bar:
            if time.monotonic() - start > 60 * options.minutes:
                break
            bar.set_description(f"{name} {setting}", refresh=False)
            about = common | {"algorithm": name, "setting": setting, "prompt": prompt, "seed": seed}
            if key(about) in done:
                continue
            population, generations = shape(setting, options.budget)
            cost = population * generations
            settings = Settings(
                name, max(min(population, cost), algorithms.find(name).smallest), cost, seed=seed, views=options.views,
                space=options.space, scorer=options.scorer, held_out=options.held_out, batch=options.batch,
                objective="" if algorithms.find(name).objectives > 1 else options.objective,
                baseline=False,
            )  # fmt: skip
            if name == "best_of_n":
                settings = replace(settings, budget=options.budget)
            clock = time.monotonic()
            result = search(model, [prompt], settings)[0]
            row = about | figures(result, probe, thing, color) | {"seconds": time.monotonic() - clock}
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[key(row)] = row
    text = markdown(list(done.values()), options, probe is not None)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    (options.out / "table.json").write_text(json.dumps(list(done.values()), indent=1) + "\n", encoding="utf-8")
    print(text + f"\n{len(done)} runs: {options.out}/table.md, table.json")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--checkpoint", default="scenes-stylegan2", help="(%(default)s)")
    p.add_argument("--algorithms", default=",".join(algorithms.known()), help="separated by commas (all)")
    p.add_argument("--settings", default=",".join(TABLE), help="population x generations (%(default)s)")
    p.add_argument("--budget", type=int, default=2000, help="evaluations a run (%(default)s; the settings': 100000)")
    p.add_argument("--prompts", type=int, default=5, help="captions of held-out pairs (%(default)s)")
    p.add_argument("--file", type=Path, help="captions of your own, one a line, instead; then without the probe")
    p.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    p.add_argument("--views", type=int, default=4, help="of a picture, that its score is the mean of (%(default)s)")
    p.add_argument("--space", default="w", help="z for models without a mapping network (%(default)s)")
    p.add_argument("--objective", default="", help="of all but nsga2, see generate.py")
    p.add_argument("--scorer", default="", help="CLIPs to optimise (the model's)")
    p.add_argument("--held-out", default="", help="CLIPs that only look (of scenes: scenes-clip-score)")
    p.add_argument("--minutes", type=float, default=math.inf, help="start no run after these")
    p.add_argument("--batch", type=int, default=16, help="pictures a pass (%(default)s)")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    p.add_argument("--out", type=Path, default=Path("out/search-table"), help="(%(default)s)")
    p.add_argument("--overhead", action="store_true", help="time the algorithms alone, at --population and --dim")
    p.add_argument("--population", type=int, default=1000, help="(%(default)s)")
    p.add_argument("--dim", type=int, default=512, help="(%(default)s)")
    return p


def captions(options: argparse.Namespace) -> list[tuple[str, str, str | None]]:
    """(caption, object, colour); of a file's captions the last two are not known."""
    if options.file is None:
        from t2i.worlds import scenes

        return list(scenes.prompts("held_out", options.prompts, 0))
    try:
        lines = options.file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--file {options.file}: {error.strerror}; give a text file, one caption a line") from None
    found: list[tuple[str, str, str | None]] = [(line.strip(), "", None) for line in lines if line.strip()]
    return found[: options.prompts]


def key(row: dict[str, Any]) -> tuple:
    return row["algorithm"], row["setting"], row["prompt"], row["seed"]


def shape(setting: str, budget: int) -> tuple[int, int]:
    """A preset's population and generations, both made smaller alike until their product is the budget."""
    population, generations = PRESETS[setting]
    population = max(round(population * math.sqrt(budget / (population * generations))), 1)
    return population, max(budget // population, 1)


def figures(result: Result, probe: judge.Probe | None, thing: str, color: str | None) -> dict[str, Any]:
    """The best picture's scores; the probe's verdict on all found and on plain samples."""
    best = result.found[0]
    row: dict[str, Any] = {
        "score": best.score, "held_out": number(best.held_out), "spent": result.spent,
        "plain_score": result.plain["score"], "plain_held_out": [number(x) for x in result.plain["held_out"]],
        "alike": number(result.latents_alike),
    }  # fmt: skip
    if probe is not None:
        for prefix, images in (("", result.pictures["found"]), ("plain_", result.pictures["plain"])):
            shares = judge.compute(images, [thing] * len(images), [color] * len(images), probe)
            with torch.no_grad():
                objects, colors = (x.softmax(1) for x in probe(images))
            likely = objects[:, probe.objects.index(thing)]
            likely = likely * colors[:, probe.colors.index(color)] if color is not None else likely
            row |= {f"{prefix}both": shares["both"], f"{prefix}likely": float(likely.mean())}
    return row


def markdown(rows: list[dict[str, Any]], options: argparse.Namespace, probed: bool) -> str:
    """A line an algorithm and setting: means over prompts and seeds, ± the standard error of the mean."""
    base = {(r["prompt"], r["seed"]): r for r in rows if r["algorithm"] == "best_of_n"}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for r in rows:
        b = base.get((r["prompt"], r["seed"]))
        for name in ("score", "held_out"):
            sigma = b[f"plain_{name}"][1] if b else None
            if b and sigma and r[name] is not None:
                r[f"{name}_gain"] = (r[name] - b[name]) / sigma
        groups[r["algorithm"], r["setting"]].append(r)
    shown = [name for name in FIGURES if probed or name not in ("both", "likely")]
    lines = [
        f"{options.budget} evaluations a run, {options.views} views, space {options.space}; σ of plain samples.", "",
        "| algorithm | setting | runs | " + " | ".join(FIGURES[name] for name in shown) + " |",
        "|---|---|" + "---:|" * (1 + len(shown)),
    ]  # fmt: skip
    if base:
        plain = [
            {"score": b["plain_score"][0], "held_out": b["plain_held_out"][0], "both": b.get("plain_both"),
             "likely": b.get("plain_likely")} for b in base.values()
        ]  # fmt: skip
        lines.append(f"| plain sampling | | {len(plain)} | " + " | ".join(_mean(plain, name) for name in shown) + " |")
    for (name, setting), group in groups.items():
        population, generations = shape(setting, options.budget)
        what = f"best of {options.budget}" if name == "best_of_n" else f"{population}×{generations} ({setting})"
        cells = " | ".join(_mean(group, figure) for figure in shown)
        lines.append(f"| `{name}` | {what} | {len(group)} | {cells} |")
    return "\n".join(lines) + "\n"


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    values = np.array([r[name] for r in rows if r.get(name) is not None])
    if not len(values):
        return "–"
    if name in ("both", "likely"):
        return f"{values.mean():.1%}"
    error = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}" if name.endswith("gain") and len(values) > 1 else ""
    return f"{values.mean():+.2f}{error}" if name.endswith("gain") else f"{values.mean():.4f}"


def overhead(options: argparse.Namespace, generations: int = 6) -> None:
    """What a generation costs without any picture, in ms of processor time, and the share that asking and telling are
    of what its evaluations take a generator of 1,000 pictures a second."""
    n, dim, clock = options.population, options.dim, time.process_time
    print(f"population {n}, {dim} coordinates; medians of {generations} generations")
    print(f"{'':<12}{'ask + tell, ms':>16}{'of its pictures':>17}{'record, ms':>12}")
    for name in options.algorithms.split(","):
        kind = algorithms.find(name)
        algorithm, rng = kind(algorithms.Task(dim, n, n * 1000, 1, kind.objectives)), np.random.default_rng(0)
        own, shares, kept = [], [], []
        with tempfile.TemporaryDirectory() as folder:
            record = Record(Path(folder) / "record.jsonl", {})
            for generation in range(generations):
                cost = algorithm.size * (algorithms.GRADIENT if algorithm.gradients else 1)
                start = clock()
                points = algorithm.ask()
                asked = clock()
                scores = rng.standard_normal((len(points), kind.objectives)) + points[:, :1]
                told = algorithms.Told(points, scores[:, 0], scores, np.ones_like(points), points[:, :2])
                scored = clock()
                algorithm.tell(told)
                learnt = clock()
                about = {"prompt": 0, "generation": generation, "by": "search"}
                rows = [about | {"score": float(s), "point": pack(p)} for p, s in zip(points, scores[:, 0])]
                record.close_generation(0, generation, rows, {})
                own.append(asked - start + learnt - scored)
                shares.append(own[-1] / (cost / 1000))
                kept.append(clock() - learnt)
            record.close()
        print(f"{name:<12}{1e3 * np.median(own):>16.1f}{np.median(shares):>17.1%}{1e3 * np.median(kept):>12.1f}")


if __name__ == "__main__":
    run_command(main)
