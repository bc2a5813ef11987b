"""What a person gets of a search: a table with the gap between scorers, a history plot, a grid, the best pictures."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i.drawing import save_png
from t2i.pictures import picture_grid, to_uint8
from t2i.search.record import to_json
from t2i.search.result import Archive, Candidate, Front, Result


def table(result: Result, algorithm: str) -> list[str]:
    """Lines: plain samples, the best of as many as were evaluated, the found ones; and what the search bought."""
    spent = result.spent
    lines = [
        f"{result.prompt!r}: {algorithm}, {spent} evaluations in {result.generations} generations, {result.stopped}",
        f"{'':<24}{'optimised':>11}{'held out':>11}{'norm':>7}{'trunc.':>8}{'D':>8}",
    ]

    def line(title: str, score: float, held_out: float, found: Candidate | None = None) -> str:
        rest = f"{found.norm:>7.2f}{found.truncation:>8.2f}{_column(found.d, 8, 2)}" if found else ""
        return f"{title:<24}{_column(score, 11)}{_column(held_out, 11)}{rest}"

    (score, sigma), (held_out, held_sigma) = result.plain["score"], result.plain["held_out"]
    lines.append(line("plain samples, mean", score, held_out))
    if result.baseline:
        best = result.baseline[0]
        lines.append(line(f"best of {spent} plain", best.score, best.held_out, best))
    if algorithm != "best_of_n":
        lines += [line(f"search, {i}", f.score, f.held_out, f) for i, f in enumerate(result.found, 1)]
    if result.baseline and algorithm != "best_of_n":
        gained = (result.found[0].score - best.score) / max(sigma, 1e-12)
        text = f"over the best of {spent} plain, in σ of plain samples: optimised {gained:+.1f}"
        if math.isfinite(held_sigma):
            held = (result.found[0].held_out - best.held_out) / max(held_sigma, 1e-12)
            gap = gained - held
            text += f", held out {held:+.1f}; " + (f"{gap:.1f} only the optimised sees" if gap > 0 else "no gap")
        lines.append(text)
    if len(result.found) > 1:
        lines.append(
            f"the {len(result.found)} best distinct: mean cosine of latents {result.latents_alike:.2f}, "
            f"of CLIP features {result.pictures_alike:.3f}"
        )
    if result.invalid:
        lines.append(f"{result.invalid} scores were not a number: counted as the worst, never kept")
    return lines


def _column(value: float, width: int, digits: int = 4) -> str:
    return f"{value:>{width}.{digits}f}" if math.isfinite(value) else f"{'-':>{width}}"


def plot_history(results: list[Result], path: Path) -> None:
    """Best so far against evaluations, with the best of as many plain samples; a row a prompt."""
    watched = any(math.isfinite(h["held_out"]) for r in results for h in r.history)
    figure = _figure(5.5 * (1 + watched), 0.4 + 3.1 * len(results))
    axes = figure.subplots(len(results), 1 + watched, squeeze=False)
    panels = [("optimised score", "best", "baseline")]
    panels += [("held-out score of the best", "held_out", "baseline_held_out")] * watched
    for result, row in zip(results, axes):
        x = [h["spent"] for h in result.history]
        for axis, (title, mine, plain) in zip(row, panels):
            if mine == "best":
                axis.plot(x, [h["median"] for h in result.history], ".", color="tab:blue", alpha=0.3, label="median")
            axis.step(x, [h[plain] for h in result.history], where="post", color="tab:gray", label="best of N plain")
            axis.step(x, [h[mine] for h in result.history], where="post", color="tab:blue", label="search")
            name = "score" if mine == "best" else "held_out"
            axis.axhline(result.plain[name][0], color="tab:gray", ls=":", lw=1, label="plain samples, mean")
            axis.set(xlabel="evaluations", ylabel=title)
            axis.set_title(shorten(result.prompt, 60), fontsize=9)
            axis.grid(alpha=0.3)
        row[0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def grid(results: list[Result]) -> Image.Image:
    """Three rows a prompt: plain samples, the best of as many as were evaluated, what the search found."""
    rows, labels = [], []
    columns = max(len(r.pictures[name]) for r in results for name in r.pictures)
    for r in results:
        titles = {
            "plain": f"{r.prompt}: plain samples",
            "baseline": f"best of {r.spent} plain: {_list(r.baseline)}",
            "found": f"search, {r.spent} evaluations: {_list(r.found)}",
        }
        for name, title in titles.items():
            pictures = r.pictures[name]
            if len(pictures) and not (name == "baseline" and r.baseline is r.found):
                blank = torch.ones(columns - len(pictures), *pictures.shape[1:])
                rows.append(torch.cat([pictures, blank]))
                labels.append(title)
    images = torch.cat(rows)
    return picture_grid(images, columns, labels, max(256 // images.shape[-1], 1))


def plot_front(prompt: str, front: Front, path: Path) -> None:
    """Both objectives of all candidates, the Pareto front, and pictures along it."""
    figure = _figure(8, 6)
    top, bottom = np.ravel(np.array(figure.subfigures(2, 1, height_ratios=(4, 1.2))))
    axis = top.subplots()
    for values, color, label in ((front.baseline, "tab:gray", "plain samples"), (front.search, "tab:blue", "search")):
        if len(values):
            axis.scatter(*values.T, s=6, color=color, alpha=0.4, label=label)
    axis.step(*front.search[front.front].T, where="post", color="tab:blue", label="Pareto front")
    axis.set(xlabel=front.names[0], ylabel=front.names[1])
    axis.set_title(shorten(prompt, 90), fontsize=9)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    places = bottom.subplots(1, len(front.shown), squeeze=False)[0]
    for place, i, picture in zip(places, front.shown, to_uint8(front.pictures).numpy()):
        place.imshow(picture)
        place.set_axis_off()
        place.set_title(", ".join(f"{x:.2f}" for x in front.search[i]), fontsize=7)
    figure.savefig(path, dpi=110)


def archive_grid(prompt: str, archive: Archive) -> Image.Image:
    """MAP-Elites' grid, as far as it is filled: the best picture of every look found, in its cell."""
    places, pictures = archive.cells, archive.pictures
    places = places - places.min(0)
    rows, columns = places.max(0) + 1
    cells = torch.ones(rows * columns, *pictures.shape[1:])
    cells[torch.from_numpy(places @ [columns, 1])] = pictures
    return picture_grid(cells, columns, [prompt] + [""] * (rows - 1), 1)


def shorten(prompt: str, most: int) -> str:
    return prompt if len(prompt) < most else prompt[: most - 3] + "..."


def _list(found: list[Candidate]) -> str:
    return ", ".join(f"{f.score:.3f}" for f in found)


def save(results: list[Result], folder: Path, names: list[str], facts: dict[str, Any]) -> None:
    """best/<name>-<rank>.png and .json, history.png, grid.png and result.json in a folder."""
    (folder / "best").mkdir(parents=True, exist_ok=True)
    summary = []
    for result, name in zip(results, names):
        for rank, (found, picture) in enumerate(zip(result.found, result.pictures["found"]), 1):
            file = folder / "best" / f"{name}-{rank}"
            save_png(picture, Path(f"{file}.png"))
            about = {"prompt": result.prompt, "rank": rank, **_values(found), **facts}
            _write(Path(f"{file}.json"), about)
        summary.append(
            {
                "prompt": result.prompt,
                "evaluations": result.spent,
                "generations": result.generations,
                "stopped": result.stopped,
                "not_a_number": result.invalid,
                "plain": {k: [to_json(x) for x in v] for k, v in result.plain.items()},
                "baseline": [_values(f) for f in result.baseline],
                "found": [_values(f) for f in result.found],
                "cosine_of_latents": to_json(result.latents_alike),
                "cosine_of_pictures": to_json(result.pictures_alike),
            }
        )
    _write(folder / "result.json", {"prompts": summary, **facts})
    for result, name in zip(results, names):
        if result.front:
            plot_front(result.prompt, result.front, folder / f"front-{name}.png")
        if result.archive:
            archive_grid(result.prompt, result.archive).save(folder / f"archive-{name}.png")
    plot_history(results, folder / "history.png")
    grid(results).save(folder / "grid.png")


def _values(found: Candidate) -> dict[str, Any]:
    """A candidate without its point, which the record has under its index."""
    values = {k: to_json(getattr(found, k)) for k in ("score", "held_out", "norm", "truncation", "d")}
    return {"index": found.index, **values, "terms": {k: to_json(v) for k, v in found.terms.items()}}


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _figure(width: float, height: float) -> Any:
    """An empty figure, in inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
