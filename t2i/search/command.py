"""A search as a person starts it: a bar while it runs, a report when it ends; one process or several."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm

from t2i import parallel
from t2i.drawing import explain_os_errors, load_for, provenance
from t2i.prompts import slug
from t2i.search import report
from t2i.search.prompt_search import PromptSearch
from t2i.search.run import search
from t2i.search.settings import Settings, sizes


def search_and_report(
    prompts: list[str], settings: Settings, checkpoint: str | None, device: Any, folder: Path
) -> None:
    """With several processes: accelerate launch --num_processes N scripts/generate.py ..."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        device = PartialState(cpu=device == "cpu").device
    first = parallel.rank() == 0

    def say(line: str) -> None:
        if first:
            tqdm.write(line)
            sys.stdout.flush()

    try:
        with explain_os_errors("cannot write the search", "choose another --out"):
            model = load_for(prompts, checkpoint, device, say)
            facts = provenance(model, settings)
            with progress(sizes(settings)[1] * len(prompts), shown=first) as bar:

                def watch(search: PromptSearch, spent: int, total: int) -> None:
                    now = search.history[-1]
                    shown = {"best": now["best"], "median": now["median"], "best of N": now["baseline"]}
                    bar.set_description_str(f"{search.prompt[:30]}: " if len(prompts) > 1 else "", refresh=False)
                    bar.set_postfix({k: f"{v:.4f}" for k, v in shown.items()}, refresh=False)
                    bar.update(spent - bar.n)

                results = search(model, prompts, settings, folder, head=facts, say=say, watch=watch)
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
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def progress(total: int, shown: bool) -> tqdm:
    return tqdm(
        total=total, unit="eval", disable=not shown, dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 15,  # a log file gets a line now and then
        bar_format="{desc}{percentage:3.0f}%|{bar:20}| {n}/{total} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    )  # fmt: skip
