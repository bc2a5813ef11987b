"""Trains a small VGG on captioned shards, for the picture-picture losses where no ImageNet VGG is at hand.

    python scripts/train_vgg.py --shards shards/scenes-train-64 --out my-vgg.safetensors
    accelerate launch t2i/train.py encoders.vgg=my-vgg.safetensors loss.img_img_vgg.weight=0.1

It learns to tell which words the captions of a picture use, from the averages over the picture of every layer that
the losses read. The file holds float16 weights in torchvision's naming.
"""

import argparse
from pathlib import Path

from t2i.errors import UserError, run_command
from t2i.fit.options import VggOptions
from t2i.options import DEVICE, Parser, add_options, given, whole_numbers


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--out", type=Path, required=True, help="weight file to write, .safetensors")
    add("--device", help=DEVICE)
    add("--widths", default="8,16,32,64", help="channels of each block of two convolutions (%(default)s)")
    add_options(parser, VggOptions, leave_out=["widths"])
    return parser.parse_args()


def main() -> None:
    a = arguments()
    if a.out.suffix != ".safetensors":
        raise UserError(f"--out {a.out}: name a .safetensors file")
    a.widths = whole_numbers(a.widths, "--widths")
    options = VggOptions(**given(a, VggOptions))

    from t2i.fit import vgg  # only now: a mistake above should not wait for torch
    from t2i.machine import find_device

    print(vgg.fit(a.shards, a.out, options, find_device(a.device)))


if __name__ == "__main__":
    run_command(main)
