"""Pictures of prompts: python scripts/generate.py --prompt "a green train"

Uses the newest run below runs/ that has a checkpoint, or else the model that ships with the package. With --search
it spends a budget of pictures on the best ones that each prompt can have:

    python scripts/generate.py --prompt "a green train" --search sep_cma --population 100 --generations 1000
    python scripts/generate.py --replay out/a-green-train-sep_cma/record.jsonl --index 17
"""

import argparse
import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

import t2i
from t2i import parallel
from t2i.errors import UserError, closest, run_command
from t2i.model import WEIGHTS, Model, load_model
from t2i.pictures import picture_grid, to_uint8


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.replay:
        replay(options)
        return
    if given := [name for name in SEARCH if getattr(options, name) is not None and not options.search]:
        raise UserError(f"--{given[0].replace('_', '-')}: only with --search, as in --search sep_cma")
    prompts = read_prompts(options.prompt, options.prompts)
    if options.search:
        search(options, prompts)
        return
    out = options.out or Path("out") / f"{slug(prompts)}.png"
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give a name that ends in .png")
    model = load(options, prompts)
    batch = 16 if options.batch is None else options.batch
    stream = model.stream(prompts, options.count, options.seed, options.truncation, options.noise, batch=batch)
    total = len(prompts) * options.count
    pictures: list[torch.Tensor] = []
    try:
        for folder in (options.singles, out.parent):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        facts = how(model, options) if options.singles else {}
        with tqdm(total=total, unit="picture", disable=None, leave=False) as bar:
            for part in stream:
                for image in part:
                    if options.singles:
                        prompt, k = divmod(len(pictures), options.count)
                        save_single(options.singles, image, prompt, prompts[prompt], options.seed + k, facts)
                    pictures.append(image.cpu())
                bar.update(len(part))
        grid(torch.stack(pictures), prompts, options.count).save(out)
    except OSError as error:
        raise UserError(f"cannot write the pictures: {error}; choose another --out or --singles") from None
    if options.singles:
        print(f"single pictures, each with a JSON of how it was made: {options.singles}")
    print(f"{total} picture{'s' if total > 1 else ''}: {out}")


def load(options: argparse.Namespace, prompts: list[str], say: Any = print) -> Model:
    model = load_model(options.checkpoint, options.device)
    say(f"model: {model.path} ({model.kimg:g} kimg, {model.resolution}×{model.resolution})")
    for prompt in dict.fromkeys(prompts):
        if cut := model.text_encoder.cut(prompt):
            say(f"prompt {prompt!r} is longer than the text encoder reads; not read: {cut!r}")
    return model


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--prompt", action="append", default=[], help="what the pictures show; may be repeated")
    p.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    p.add_argument("--count", type=int, default=4, help="pictures a prompt (4)")
    p.add_argument("--seed", type=int, default=0, help="of a prompt's first picture; the next have seed + 1, ... (0)")
    p.add_argument("--truncation", type=float, default=1.0, help="below 1: more typical, less varied (1)")
    p.add_argument("--noise", choices=("const", "random"), default="const", help="the generator's noise inputs (const)")
    p.add_argument("--checkpoint", metavar="RUN", help="a run, a checkpoint, a model folder, or one's name")
    p.add_argument("--out", type=Path, metavar="PNG", help="the grid (out/<first prompt>.png); of a search, its folder")
    p.add_argument("--singles", type=Path, metavar="DIR", help="also save each picture, and how it was made as JSON")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda, cuda:1, ...")
    p.add_argument("--batch", type=int, help="pictures a pass (16; a search on a GPU 64); a CPU draws one at a time")
    s = p.add_argument_group("search", "a budget of generator evaluations; a gradient step counts as three")
    s.add_argument("--search", metavar="NAME", help="best_of_n, sep_cma, ga, nsga2, adam, hybrid or map_elites")
    s.add_argument("--preset", help="population x generations: quick (50x20), 100x1000, 200x500, 500x200, 1000x100")
    s.add_argument("--population", type=int, help="candidates a generation (50)")
    s.add_argument("--generations", type=int, help="(20)")
    s.add_argument("--budget", type=int, help="evaluations a prompt, shared among prompts, in place of --generations")
    s.add_argument("--space", help="z or w, with +truncation and +noise to search those too (z)")
    s.add_argument(
        "--objective",
        help="a sum, as clip+0.1*d, of clip, contrast (other colours), d, d_text, d_contrast and typical; two with a "
        "comma for nsga2 (clip+contrast+d_text+d_contrast)",
    )
    s.add_argument(
        "--scorer", help="CLIPs that are optimised, separated by commas (the one the model was trained with)"
    )
    s.add_argument("--held-out", help="CLIPs that only look (for scenes: scenes-clip-score)")
    s.add_argument("--views", type=int, help="augmented views a picture that CLIP's score is the mean of (4)")
    s.add_argument("--top-k", type=int, help="distinct pictures a prompt (4)")
    s.add_argument("--target", type=float, help="stop a prompt at this score")
    s.add_argument("--minutes", type=float, help="stop then; the same command goes on")
    s.add_argument(
        "--plateau", type=float, nargs="?", const=0.01, metavar="SHARE",
        help="stop a prompt whose last quarter brought less than this share of its gain (0.01 with several prompts)",
    )  # fmt: skip
    s.add_argument("--replay", type=Path, metavar="RECORD", help="draw a candidate of a search's record.jsonl again")
    s.add_argument("--index", type=int, help="which one")
    return p


SEARCH = (
    "preset", "population", "generations", "budget", "space", "objective", "scorer", "held_out", "views", "top_k",
    "target", "minutes", "plateau", "index",
)  # fmt: skip


def search(options: argparse.Namespace, prompts: list[str]) -> None:
    """Searches, with one process or several (accelerate launch --num_processes N scripts/generate.py ...)."""
    from accelerate import PartialState

    from t2i import search as package
    from t2i.search import report

    settings = search_settings(options)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        options.device = PartialState(cpu=options.device == "cpu").device
    first = parallel.rank() == 0

    def say(line: str) -> None:
        if first:
            tqdm.write(line)
            sys.stdout.flush()

    try:
        model = load(options, prompts, say)
        prompts = list(dict.fromkeys(prompts))
        folder = options.out or Path("out") / f"{slug(prompts)}-{options.search}"
        if folder.suffix.lower() == ".png" or folder.is_file():
            raise UserError(f"--out {folder}: with --search give a folder")
        facts = how(model, options)
        with tqdm(
            total=settings.budget * len(prompts), unit="eval", disable=not first, dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 15,  # a log file gets a line now and then
            bar_format="{desc}{percentage:3.0f}%|{bar:20}| {n}/{total} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        ) as bar:  # fmt: skip

            def watch(hunt: Any, spent: int, total: int) -> None:
                now = hunt.history[-1]
                shown = {"best": now["best"], "median": now["median"], "best of N": now["baseline"]}
                bar.set_description_str(f"{hunt.prompt[:30]}: " if len(prompts) > 1 else "", refresh=False)
                bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items()}, refresh=False)
                bar.update(spent - bar.n)

            results = package.search(model, prompts, settings, folder, head=facts, say=say, watch=watch)
        for result in results:
            for line in report.table(result, settings.algorithm):
                say(line)
        if first:
            report.save(results, folder, [f"{i:04d}-{slug([p])}" for i, p in enumerate(prompts, 1)], facts)
        more = "".join(f", {name}" for name in ("front-*.png", "archive-*.png") if any(folder.glob(name)))
        say(f"{folder}: grid.png, history.png, best/, result.json, record.jsonl{more}")
    except KeyboardInterrupt:
        say("the same command goes on from here")
        raise
    except OSError as error:
        raise UserError(f"cannot write the search: {error}; choose another --out") from None
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def search_settings(options: argparse.Namespace) -> Any:
    """Population and budget from whichever two of population, generations and budget are given, or a preset."""
    from t2i.search.settings import PRESETS, Settings

    if options.preset and (options.population or options.generations or options.budget):
        raise UserError(f"--preset {options.preset}: leave it out, or --population, --generations and --budget")
    preset = options.preset or "quick"
    if preset not in PRESETS:
        raise UserError(f"--preset {preset}: {closest(preset, PRESETS)}")
    population, generations = PRESETS[preset]
    population = population if options.population is None else options.population
    generations = generations if options.generations is None else options.generations
    budget = population * generations
    if options.budget is not None:
        if options.generations is not None and options.budget != budget:
            raise UserError(
                f"--budget {options.budget}: is not population x generations = {budget}; give two of the three"
            )
        budget = options.budget
    if generations < 1:
        raise UserError(f"--generations {generations}: must be 1 or more")
    same = ("space", "objective", "scorer", "held_out", "views", "top_k", "target", "minutes", "plateau")
    given = {name: getattr(options, name) for name in same if getattr(options, name) is not None}
    always = {name: getattr(options, name) for name in ("seed", "truncation", "noise")}
    always["batch"] = options.batch if options.batch is not None else 16 if options.device == "cpu" else 64
    return Settings(options.search, population, budget, **always, **given)


def replay(options: argparse.Namespace) -> None:
    """Draws a candidate of a search again, from what the record says."""
    from t2i.search import hunt, record

    if options.index is None:
        raise UserError("--replay: needs --index, the number of a candidate in the record")
    head, row = record.candidate(options.replay, options.index)
    model = load_model(options.checkpoint or head["checkpoint"], options.device)
    if (digest := weights_digest(model)) != head["weights_sha256"]:
        raise UserError(
            f"{model.path}: not the weights of the search ({digest[:12]}, not {head['weights_sha256'][:12]}); "
            "name theirs with --checkpoint"
        )
    out = options.out or options.replay.parent / f"replay-{options.index}.png"
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give a name that ends in .png")
    picture = hunt.redraw(model, head, row)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_uint8(picture)[0].numpy()).save(out)
    except OSError as error:
        raise UserError(f"cannot write the picture: {error}; choose another --out") from None
    print(
        f"{head['prompts'][row['prompt']]!r}, {row['by']}, generation {row['generation']}, score {row['score']}: {out}"
    )


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then those of the file."""
    for prompt in given:
        if not prompt.strip():
            raise UserError(f"--prompt {prompt!r}: empty; write what the picture should show")
    prompts = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise UserError(f"--prompts {file}: not a UTF-8 text file; one prompt a line") from None
        except OSError as error:
            raise UserError(f"--prompts {file}: {error.strerror}; give a text file, one prompt a line") from None
        prompts += [line.strip() for line in lines if line.strip()]
        if blank := sum(not line.strip() for line in lines):
            print(f"{file}: skipped {blank} blank line{'s' if blank > 1 else ''}", flush=True)
        if not prompts:
            raise UserError(f"--prompts {file}: has no prompt; write one a line")
    if not prompts:
        raise UserError('no prompt: say --prompt "a green train" or --prompts FILE')
    return prompts


def slug(prompts: list[str]) -> str:
    """A file name for prompts: 'a-green-train', 'a-green-train-and-2-more'."""
    words = "".join(c if c.isalnum() else " " for c in prompts[0].lower()).split()
    more = f"-and-{len(prompts) - 1}-more" if len(prompts) > 1 else ""
    return ("-".join(words)[:60].strip("-") or "prompt") + more


def how(model: Model, options: argparse.Namespace) -> dict:
    """How pictures are made, but for prompt and seed."""
    return {
        "truncation": options.truncation,
        "noise": options.noise,
        "checkpoint": str(model.path),
        "weights_sha256": weights_digest(model),
        "kimg": model.kimg,
        "resolution": model.resolution,
        "device": str(model.device),
        "versions": {"t2i": t2i.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def weights_digest(model: Model) -> str:
    with open(model.path / WEIGHTS, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_single(folder: Path, image: torch.Tensor, number: int, prompt: str, seed: int, facts: dict) -> None:
    """<number of the prompt>-<prompt>-seed<seed>.png and .json."""
    name = f"{number:04d}-{slug([prompt])}-seed{seed}"
    Image.fromarray(to_uint8(image[None])[0].cpu().numpy()).save(folder / f"{name}.png")
    text = json.dumps({"prompt": prompt, "seed": seed, **facts}, indent=2, ensure_ascii=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def grid(images: torch.Tensor, prompts: list[str], count: int) -> Image.Image:
    """A row a prompt; or, with one picture each, a block of labelled pictures; or a block of one prompt's pictures."""
    scale = max(256 // images.shape[-1], 1)
    if count == 1:
        return picture_grid(images, min(len(prompts), 8), prompts, scale)
    if len(prompts) > 1 or count <= 8:
        return picture_grid(images, count, prompts, scale)
    return picture_grid(images, 8, prompts + [""] * (-(-count // 8) - 1), scale)


if __name__ == "__main__":
    run_command(main)
