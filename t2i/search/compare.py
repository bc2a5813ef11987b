"""What search buys: algorithms x settings x prompts x seeds, by the optimised score, the held-out one and the probe.

Every run lands in rows.jsonl at once; the same call goes on after a kill, or when asked for more. table.md and
table.json are made anew from all rows.
"""

import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from t2i.model import load_model
from t2i.probes import scenes as judge
from t2i.probes.sight import Sight
from t2i.prompts import read_lines
from t2i.search.comparison import BASE, Cell, Comparison, shape
from t2i.search.record import to_json
from t2i.search.result import Result
from t2i.search.run import search
from t2i.worlds import scenes

COLUMNS = {  # of a run → heading
    "score": "optimised", "held_out": "held out", "score_gain": "σ over N", "held_out_gain": "held out, σ over N",
    "both": "probe both", "likely": "probe p",
}  # fmt: skip
Row = dict[str, Any]
Caption = tuple[str, str, str | None]  # (caption, object, colour); of a file's captions the last two are not known


def compare(
    comparison: Comparison,
    cells: Sequence[Cell],
    shared: dict[str, Any],
    checkpoint: str,
    device: str | None,
    out: Path,
) -> str:
    """Runs what is not in rows.jsonl yet, and returns the table. shared: the settings that make runs comparable."""
    model = load_model(checkpoint, device)
    wanted = read_captions(comparison)
    rows_file = out / "rows.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()] if rows_file.is_file() else []
    common = {"model": str(model.path), "kimg": model.kimg, "settings": shared}
    done = {key(row): row for row in rows if all(row.get(k) == v for k, v in common.items())}
    start, probe = time.monotonic(), judge.load() if comparison.file is None else None
    runs = list(itertools.product(range(comparison.seeds), wanted, cells))  # whole seeds first: a table early
    with open(rows_file, "a", encoding="utf-8") as file, tqdm(runs, unit="run", disable=None) as bar:
        for seed, (prompt, thing, color), cell in bar:
            if time.monotonic() - start > 60 * comparison.minutes:
                break
            name = cell.settings.algorithm
            bar.set_description(f"{name} {cell.setting}", refresh=False)
            about = common | {"algorithm": name, "setting": cell.setting, "prompt": prompt, "seed": seed}
            if key(about) in done:
                continue
            clock = time.monotonic()
            result = search(model, [prompt], replace(cell.settings, seed=seed))[0]
            row = about | figures(result, probe, thing, color) | {"seconds": time.monotonic() - clock}
            file.write(json.dumps(row) + "\n")
            file.flush()
            done[key(row)] = row
    text = markdown(list(done.values()), shared, probe is not None)
    (out / "table.md").write_text(text, encoding="utf-8")
    (out / "table.json").write_text(json.dumps(list(done.values()), indent=1) + "\n", encoding="utf-8")
    return text + f"\n{len(done)} runs: {out}/table.md, table.json"


def read_captions(comparison: Comparison) -> list[Caption]:
    if comparison.file is None:
        return list(scenes.prompts("held_out", comparison.prompts, 0))
    lines = [line.strip() for line in read_lines(comparison.file, "--file")]
    found: list[Caption] = [(line, "", None) for line in lines if line]
    return found[: comparison.prompts]


def key(row: Row) -> tuple:
    return row["algorithm"], row["setting"], row["prompt"], row["seed"]


def figures(result: Result, probe: Sight | None, thing: str, color: str | None) -> Row:
    """The best picture's scores; the probe's verdict on all found and on plain samples."""
    best = result.found[0]
    row: Row = {
        "score": best.score, "held_out": to_json(best.held_out), "spent": result.spent,
        "plain_score": result.plain["score"], "plain_held_out": [to_json(x) for x in result.plain["held_out"]],
        "alike": to_json(result.latents_alike),
    }  # fmt: skip
    if probe is not None:
        for prefix, images in (("", result.pictures["found"]), ("plain_", result.pictures["plain"])):
            shares = judge.compute(images, [thing] * len(images), [color] * len(images), probe)
            with torch.no_grad():
                objects, colors = (x[:, 0].softmax(1) for x in probe(images)[:2])
            likely = objects[:, probe.objects.index(thing)]
            likely = likely * colors[:, probe.colors.index(color)] if color is not None else likely
            row |= {f"{prefix}both": shares["both"], f"{prefix}likely": float(likely.mean())}
    return row


def markdown(rows: list[Row], shared: dict[str, Any], probed: bool) -> str:
    """A line an algorithm and setting: means over prompts and seeds, ± the standard error of the mean."""
    budget = shared["budget"]
    base = {(r["prompt"], r["seed"]): r for r in rows if r["algorithm"] == BASE}
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for r in rows:
        b = base.get((r["prompt"], r["seed"]))
        for name in ("score", "held_out"):
            sigma = b[f"plain_{name}"][1] if b else None
            if b and sigma and r[name] is not None:
                r[f"{name}_gain"] = (r[name] - b[name]) / sigma
        groups[r["algorithm"], r["setting"]].append(r)
    shown = [name for name in COLUMNS if probed or name not in ("both", "likely")]
    lines = [
        f"{budget} evaluations a run, {shared['views']} views, space {shared['space']}; σ of plain samples.", "",
        "| algorithm | setting | runs | " + " | ".join(COLUMNS[name] for name in shown) + " |",
        "|---|---|" + "---:|" * (1 + len(shown)),
    ]  # fmt: skip
    if base:
        plain = [
            {"score": b["plain_score"][0], "held_out": b["plain_held_out"][0], "both": b.get("plain_both"),
             "likely": b.get("plain_likely")} for b in base.values()
        ]  # fmt: skip
        lines.append(f"| plain sampling | | {len(plain)} | " + " | ".join(_mean(plain, name) for name in shown) + " |")
    for (name, setting), group in groups.items():
        population, generations = shape(setting, budget)
        what = f"best of {budget}" if name == BASE else f"{population}×{generations} ({setting})"
        cells = " | ".join(_mean(group, column) for column in shown)
        lines.append(f"| `{name}` | {what} | {len(group)} | {cells} |")
    return "\n".join(lines) + "\n"


def _mean(rows: list[Row], name: str) -> str:
    values = np.array([r[name] for r in rows if r.get(name) is not None])
    if not len(values):
        return "–"
    if name in ("both", "likely"):
        return f"{values.mean():.1%}"
    error = f" ± {values.std(ddof=1) / math.sqrt(len(values)):.2f}" if name.endswith("gain") and len(values) > 1 else ""
    return f"{values.mean():+.2f}{error}" if name.endswith("gain") else f"{values.mean():.4f}"
