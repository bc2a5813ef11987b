"""Trains a small CLIP on captioned shards and writes it as a folder that open_clip and t2i read.

    python scripts/train_clip.py --shards shards/scenes-train-64 --val shards/scenes-val-64 --out my-clip
    accelerate launch t2i/train.py encoders.text=my-clip encoders.clip=my-clip

The folder: open_clip_config.json (the model), model.safetensors (float16), vocabulary.json (its tokens) and
metrics.json (how it was trained, and how well it retrieves pictures and captions that it has not seen).

With --text hf:NAME_OR_FOLDER the text tower is a pretrained BERT, RoBERTa or T5: it stays as it is, a projection
is learnt, and the folder holds its config and tokenizer in place of vocabulary.json.
"""

import argparse
import json
from pathlib import Path

from t2i.errors import run_command
from t2i.fit.options import ClipOptions
from t2i.options import DEVICE, Parser, add_options, given


def arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--val", required=True, help="pictures to be judged on, of the same kind and none of the same")
    add("--out", type=Path, required=True, help="folder to write")
    add("--workers", type=int, default=0, help="processes that decode pictures (%(default)s)")
    add("--device", help=DEVICE)
    add_options(parser, ClipOptions)
    return parser.parse_args()


def main() -> None:
    a = arguments()
    options = ClipOptions(**given(a, ClipOptions))

    from t2i.fit import clip  # only now: a mistake above should not wait for torch
    from t2i.machine import find_device

    metrics = clip.fit(a.shards, a.val, a.out, options, find_device(a.device), a.workers)
    print(json.dumps({k: metrics[k] for k in ("retrieval", "zero_shot") if k in metrics}, indent=1))
    print(f"written to {a.out}")


if __name__ == "__main__":
    run_command(main)
