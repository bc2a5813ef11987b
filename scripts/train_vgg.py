"""Trains a small VGG on captioned shards, for the picture-picture losses where no ImageNet VGG is at hand.

    python scripts/train_vgg.py --shards shards/scenes-train-64 --out my-vgg.safetensors
    accelerate launch t2i/train.py encoders.vgg=my-vgg.safetensors loss.img_img_vgg.weight=0.1

It learns to tell which words the captions of a picture use, from the averages over the picture of every layer that
the losses read. The file holds float16 weights in torchvision's naming.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from t2i import arguments as options
from t2i.errors import UserError, run_command
from t2i.fit.options import VggOptions


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add, default = parser.add_argument, VggOptions()
    widths = ",".join(map(str, default.widths))
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--out", type=Path, required=True, help="weight file to write, .safetensors")
    add("--steps", type=int, default=default.steps, help="(%(default)s)")
    add("--batch", type=int, default=default.batch, help="pictures a step (%(default)s)")
    add("--lr", type=float, default=default.lr, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=default.seed, help="(%(default)s)")
    add("--device", help=options.DEVICE)
    add("--widths", default=widths, metavar="8,16,...", help="channels of each block of two convolutions (%(default)s)")
    add("--words", type=int, default=default.words, help="so many of the most frequent words are told (%(default)s)")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    a = arguments(given)
    if a.out.suffix != ".safetensors":
        raise UserError(f"--out {a.out}: name a .safetensors file")
    a.widths = options.whole_numbers(a.widths, "--widths")
    options.at_least(a, steps=1, batch=1, words=1, widths=1)
    chosen = VggOptions(**{f.name: getattr(a, f.name) for f in fields(VggOptions)})

    from t2i.fit import vgg
    from t2i.machine import find_device

    print(vgg.fit(a.shards, a.out, chosen, find_device(a.device)))


if __name__ == "__main__":
    run_command(main)
