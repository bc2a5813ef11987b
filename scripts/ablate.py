"""Trains every row of an ablation with every seed, scores the runs and writes one page about them.

    python scripts/ablate.py configs/ablation.yaml --dry-run       what would run
    python scripts/ablate.py configs/ablation.yaml                 runs it, or the rest of it
    python scripts/ablate.py configs/ablation.yaml --jobs 2        two runs at a time
    python scripts/ablate.py configs/ablation.yaml train.kimg=8    one setting more, in every row

runs/<ablation>/report.html and report.csv are written anew after every run. The same command again skips what is
finished, continues what was interrupted and tries again what failed. Ctrl-C lets the runs write a checkpoint first.
Exit status: 0 all is finished, 1 a row failed, 2 a mistake in the command, 130 stopped.
"""

import argparse
import shlex
import sys
from pathlib import Path

from t2i.errors import run_command
from t2i.options import OVERRIDES, Parser, at_least, whole_numbers


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("ablation", type=Path, help="YAML of rows, seeds and scores, such as configs/ablation.yaml")
    add("overrides", nargs="*", metavar="KEY=VALUE", help=f"{OVERRIDES}, for every row, after its own")
    add("--dry-run", action="store_true", help="check everything, list the runs and stop")
    add("--jobs", type=int, metavar="N", help="runs at a time: on GPUs one each, on a CPU sharing its cores")
    add("--devices", metavar="0,1,...", help="the GPUs to use, by number; as many runs at a time")
    add("--only", metavar="ROW,...", help="run these rows alone")
    add("--seeds", metavar="0,1,...", help="these seeds instead of the file's")
    add("--redo", metavar="ROW,...", help="first delete what these rows have trained (or: all)")
    return parser.parse_intermixed_args(given)


def main(given: list[str] | None = None) -> None:
    a = arguments(given)
    at_least(a, jobs=1)
    seeds = whole_numbers(a.seeds, "--seeds") if a.seeds else []
    only, redo = (text.split(",") if text else [] for text in (a.only, a.redo))

    from t2i.ablation import plan, slots  # only now: a mistake above should not wait for them

    ablation = plan.load(a.ablation, a.overrides, seeds, only, redo)
    places = slots.share(a.jobs, a.devices, ablation.processes)
    if a.dry_run:
        from t2i.ablation.progress import preview

        print(preview(ablation, places))
        return
    from t2i.ablation.run import run  # imports torch and matplotlib

    sys.exit(run(ablation, places, shlex.join(["python", "scripts/ablate.py", *(given or sys.argv[1:])])))


if __name__ == "__main__":
    run_command(main)
