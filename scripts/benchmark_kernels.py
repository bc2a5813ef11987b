"""Times what is computed here in a form of its own against the plain form, and compares the memory.

    python scripts/benchmark_kernels.py attention     fused attention against plain mathematics, over sequence lengths
    python scripts/benchmark_kernels.py stylegan3     StyleGAN3-T at 64×64, channels halved, batch 2, against the
                                                      published form: convolutions over zero-stuffed pictures
    python scripts/benchmark_kernels.py memory        peak memory of an update of StyleGAN3-T at 256×256, channels
                                                      halved, against StyleGAN2's

On a CPU time is this process's own, with one thread, so that other programs count little. Compare ratios of one run.
"""

import argparse
import os
from pathlib import Path

from t2i.errors import run_command
from t2i.options import DEVICE, OVERRIDES, Parser, at_least, whole_numbers

STANDARD = [
    "generator.name=stylegan3", "generator.channel_base=16384", "discriminator.channel_base=16384",
    "generator.text=mapping", "discriminator.text=projection",
]  # fmt: skip
FORMS = {
    "StyleGAN2": [], "StyleGAN3-T": ["generator.name=stylegan3"],
    "StyleGAN3-T, recompute": ["generator.name=stylegan3", "generator.recompute=true"],
}  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("what", choices=["attention", "stylegan3", "memory"])
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=f"{OVERRIDES}; repeatable")
    add("--batch", type=int, default=2, help="(%(default)s)")
    add("--precision", default="fp32", choices=["fp32", "bf16"], help="of attention (%(default)s)")
    add("--lengths", default="64,256,1024,4096", metavar="64,...", help="of attention's sequences (%(default)s)")
    add("--heads", type=int, default=4, help="of attention, of 64 channels each (%(default)s)")
    add("--repeat", type=int, default=3, help="the median of so many runs (%(default)s)")
    add("--device", help=DEVICE)
    add("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    a.lengths = whole_numbers(a.lengths, "--lengths")
    at_least(a, batch=1, lengths=1, heads=1, repeat=1)

    from t2i import config

    load = lambda *standard: config.load(None, [*standard, *a.set])
    if a.what == "stylegan3":
        settings = load(*STANDARD)
    elif a.what == "memory":
        forms = {name: load("model.resolution=256", "model.width=0.5", *given) for name, given in FORMS.items()}
        # For the processes that are measured: what is freed goes back at once, and does not count as used.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"

    import torch  # only now: a mistake above should not wait for it

    from t2i.benchmark import attention, stylegan3
    from t2i.benchmark.table import report
    from t2i.machine import find_device

    device = find_device(a.device)
    torch.set_num_threads(1)
    if a.what == "attention":
        rows = attention.compare(a.lengths, a.batch, a.heads, a.precision, a.repeat, device)
        columns = attention.COLUMNS
    elif a.what == "stylegan3":
        rows, columns = stylegan3.compare(settings, a.batch, a.repeat, device), stylegan3.FORMS
    else:
        rows, columns = stylegan3.compare_memory(forms, a.batch, device), stylegan3.MEMORY
    report(rows, columns, {"device": str(device), "batch": a.batch}, a.json)


if __name__ == "__main__":
    run_command(main)
