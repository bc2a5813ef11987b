"""Times the parts of training, of scoring, or how long commands take to answer, and prints one table.

    python scripts/benchmark.py                          StyleGAN2 at 64×64, channels halved, batch 8, one thread
    python scripts/benchmark.py --config configs/scenes.yaml --threads 2 --shards shards/scenes-train-64
    python scripts/benchmark.py --compare configs/base.yaml configs/modified1.yaml configs/modified2.yaml
    python scripts/benchmark.py startup                  processor seconds of --help, of a picture, of mistakes
    python scripts/benchmark.py metrics --count 30000    processor seconds and memory of every metric, networks aside

`of conv` is the time of a phase over that of its convolutions alone (the same ones, forward and backward, on random
numbers): how far it is from the cost that nobody avoids. Compare ratios of one run, not milliseconds of two.

--compare times whole training steps, a step of each run in turn, over all steps of a cycle of lazy losses. On a CPU
networks are timed by processor time, so that other programs count little.
"""

import argparse
from pathlib import Path

from t2i.errors import run_command
from t2i.options import DEVICE, OVERRIDES, Parser, at_least, words

# The published network that the figures are compared with.
STANDARD = [
    "generator.channel_base=16384", "discriminator.channel_base=16384", "generator.mapping_layers=8",
    "generator.text=mapping", "discriminator.text=projection",
]  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("what", nargs="?", choices=["training", "startup", "metrics"], default="training", help="(%(default)s)")
    add("--config", type=Path, help="time this run's networks instead of the standard ones")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=f"{OVERRIDES}; repeatable")
    add("--compare", nargs="+", type=Path, metavar="CONFIG", help="time whole steps of these runs against the first's")
    add("--batch", type=int, help="(8, or with --compare that of each run)")
    add("--threads", type=int, default=1, help="CPU threads (%(default)s)")
    add("--precision", default="fp32,bf16", metavar="fp32,...", help="of fp32, bf16 and fp16 (%(default)s)")
    add("--repeat", type=int, default=3, help="the median of so many runs, of startup the least (%(default)s)")
    add("--shards", help="also time the loader on these shards")
    add("--count", type=int, default=30000, help="pictures, of metrics (%(default)s)")
    add("--size", type=int, default=256, help="their side (%(default)s)")
    add("--metrics", metavar="NAME,...", help="only these (all that need no generator)")
    add("--device", help=DEVICE)
    add("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    at_least(a, batch=1, threads=1, repeat=1, count=2, size=16)
    if a.what == "startup":
        from t2i.benchmark import startup
        from t2i.benchmark.table import report

        report(startup.startup(startup.commands(), a.repeat), startup.COLUMNS, {"repeat": a.repeat}, a.json)
        return
    if a.what == "metrics":
        from t2i import metrics
        from t2i.benchmark import scores
        from t2i.benchmark.table import report

        chosen = words(a.metrics, "--metrics", metrics.known()) if a.metrics else None
        rows = scores.scores(a.count, a.size, chosen, a.threads)
        report(rows, scores.COLUMNS, {"pictures": a.count, "size": a.size, "threads": a.threads}, a.json)
        return
    precisions = words(a.precision, "--precision", ["fp32", "bf16", "fp16"])

    from t2i import config

    if a.compare:
        changes = [*([f"train.batch={a.batch}"] if a.batch else []), *a.set]
        compared = [config.load(path, changes) for path in a.compare]
    else:
        settings = config.load(a.config, [*([] if a.config else STANDARD), *a.set])

    import torch  # only now: a mistake above should not wait for it

    from t2i.benchmark import parts, steps
    from t2i.benchmark.table import report
    from t2i.machine import find_device

    device = find_device(a.device)
    torch.set_num_threads(a.threads)
    facts = {"device": str(device), "threads": a.threads}
    if a.compare:
        report(steps.compare(compared, a.repeat, device), steps.COLUMNS, facts, a.json)
        return
    facts |= {"batch": a.batch or 8, "resolution": settings.model.resolution}
    rows = parts.parts(settings, precisions, a.batch or 8, a.repeat, device, a.shards)
    report(rows, parts.COLUMNS, facts, a.json)


if __name__ == "__main__":
    run_command(main)
