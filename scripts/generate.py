"""Pictures of prompts: python scripts/generate.py --prompt "a green train"

Uses the newest run below runs/ that has a checkpoint, or else the model that ships with the package. With --search
it spends a budget of pictures on the best ones that each prompt can have:

    python scripts/generate.py --prompt "a green train" --search sep_cma --population 100 --generations 1000
    python scripts/generate.py --replay out/a-green-train-sep_cma/record.jsonl --index 17
"""

import argparse
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from t2i.errors import UserError, run_command
from t2i.options import DEVICE, OPEN, Parser, add_options, flag, given
from t2i.prompts import Drawing, Sampling, read_prompts, slug
from t2i.search.settings import Settings, choices

NAMES = {"algorithm": "--search"}
SAMPLING = {f.name for f in fields(Sampling)}  # options of plain samples and of a search alike
ONLY_PLAIN = [f.name for f in fields(Drawing) if f.name not in SAMPLING]
ONLY_SEARCH = [f.name for f in fields(Settings) if f.name not in SAMPLING]


def main(arguments: list[str] | None = None) -> None:
    """What is wrong with the options is told before anything heavy is imported."""
    options = parser().parse_args(arguments)
    if options.replay is not None:
        run_replay(options)
        return
    if options.index is not None:
        raise UserError("--index: only with --replay, the record that has the candidate")
    prompts = read_prompts(options.prompt, options.prompts)
    if hasattr(options, "algorithm"):
        run_search(options, prompts)
    else:
        run_drawing(options, prompts)


def run_drawing(options: argparse.Namespace, prompts: list[str]) -> None:
    refuse(options, ONLY_SEARCH, "only with --search, as in --search sep_cma")
    drawing = Drawing(**given(options, Drawing))
    out = png(options.out or Path("out") / f"{slug(prompts)}.png")

    from t2i.drawing import draw  # only now: a mistake above should not wait for torch

    draw(prompts, drawing, options.checkpoint, options.device, out, options.singles)


def run_search(options: argparse.Namespace, prompts: list[str]) -> None:
    refuse(options, ONLY_PLAIN, "not with --search, which shows --top-k pictures a prompt")
    refuse(options, ["singles"], "not with --search, whose best pictures are in its folder's best/")
    prompts = list(dict.fromkeys(prompts))
    out = options.out or Path("out") / f"{slug(prompts)}-{options.algorithm}"
    if out.suffix.lower() == ".png" or out.is_file():
        raise UserError(f"--out {out}: with --search give a folder")
    settings = Settings(**given(options, Settings))

    from t2i.search.command import search_and_report  # only now: a mistake above should not wait for torch

    search_and_report(prompts, settings, options.checkpoint, options.device, out)


def run_replay(options: argparse.Namespace) -> None:
    others = ["prompt", "prompts", "singles", *ONLY_PLAIN, *SAMPLING, *ONLY_SEARCH]
    refuse(options, others, "not with --replay, which draws what the record says")
    if options.index is None:
        raise UserError("--replay: needs --index, the number of a candidate in the record")
    out = png(options.out or options.replay.parent / f"replay-{options.index}.png")

    from t2i.search.record import read_candidate

    head, row = read_candidate(options.replay, options.index)

    from t2i.search.replay import replay

    replay(head, row, options.checkpoint, options.device, out)


def refuse(options: argparse.Namespace, names: Iterable[str], why: str) -> None:
    """Complains of the first of these options that the command line gives."""
    for name in names:
        if getattr(options, name, None) not in (None, []):
            raise UserError(f"{flag(name, NAMES)}: {why}")


def png(out: Path) -> Path:
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: give a name that ends in .png")
    return out


def parser() -> Parser:
    p = Parser(__doc__, choices())
    p.add_argument("--prompt", action="append", default=[], help="what the pictures show; may be repeated")
    p.add_argument("--prompts", type=Path, metavar="FILE", help="a text file with one prompt a line")
    add_options(p, Drawing)
    p.add_argument("--checkpoint", metavar="RUN", help="a run, a checkpoint, a model folder, or one's name")
    p.add_argument("--out", type=Path, metavar="PNG", help="the grid (out/<first prompt>.png); of a search, its folder")
    p.add_argument("--singles", type=Path, metavar="DIR", help="also save each picture, and how it was made as JSON")
    p.add_argument("--device", help=DEVICE)
    s = p.add_argument_group("search", "with --search, a budget of generator evaluations buys the best pictures")
    add_options(s, Settings, SAMPLING, NAMES, algorithm=OPEN)
    r = p.add_argument_group("replay")
    r.add_argument("--replay", type=Path, metavar="RECORD", help="draw a candidate of a search's record.jsonl again")
    r.add_argument("--index", type=int, help="which one")
    return p


if __name__ == "__main__":
    run_command(main)
