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
from dataclasses import fields
from pathlib import Path

from t2i import arguments as options
from t2i.errors import run_command
from t2i.fit.options import ClipOptions


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = options.parser(__doc__)
    add, default = parser.add_argument, ClipOptions()
    add("--shards", required=True, help="pictures to learn from: a folder of shards, a glob or a URL")
    add("--val", required=True, help="pictures to be judged on, of the same kind and none of the same")
    add("--out", type=Path, required=True, help="folder to write")
    add("--steps", type=int, default=default.steps, help="(%(default)s)")
    add("--batch", type=int, default=default.batch, help="pictures a step; each is told from all others (%(default)s)")
    add("--lr", type=float, default=default.lr, help="highest learning rate (%(default)s)")
    add("--seed", type=int, default=default.seed, help="(%(default)s)")
    add("--workers", type=int, default=0, help="processes that decode pictures (%(default)s)")
    add("--device", help=options.DEVICE)
    add("--arch", choices=("vit", "resnet"), default=default.arch, help="image tower (%(default)s)")
    add("--resolution", type=int, default=default.resolution, help="side of the pictures it sees (%(default)s)")
    add("--width", type=int, help="channels of the image tower (96, of a resnet's first stage 16)")
    add("--layers", type=int, help="blocks of the image tower (3, of each of a resnet's four stages 1)")
    add("--patch", type=int, default=default.patch, help="side of a vit's patches (%(default)s)")
    add("--text", help="hf:NAME_OR_FOLDER of a pretrained text tower; else a small one is trained")
    add("--text-width", type=int, default=default.text_width, help="channels of the text tower (%(default)s)")
    add("--text-layers", type=int, default=default.text_layers, help="its blocks (%(default)s)")
    add("--embed-dim", type=int, default=default.embed_dim, help="length of the common vectors (%(default)s)")
    add("--context", type=int, default=default.context, help="tokens of a caption, with start and end (%(default)s)")
    add("--min-count", type=int, default=default.min_count, help="rarer tokens count as unknown (%(default)s)")
    add("--word-drop", type=float, default=default.word_drop, help="share of words hidden (%(default)s)")
    add("--min-crop", type=float, default=default.min_crop, help="smallest side of a random crop (%(default)s)")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    a = arguments(given)
    options.at_least(
        a, steps=1, batch=2, resolution=1, width=2, layers=1, patch=1, text_width=1, text_layers=1, embed_dim=1,
        context=3, min_count=1,
    )  # fmt: skip
    chosen = ClipOptions(**{f.name: getattr(a, f.name) for f in fields(ClipOptions)})

    from t2i.fit import clip
    from t2i.machine import find_device

    metrics = clip.fit(a.shards, a.val, a.out, chosen, find_device(a.device), a.workers)
    print(json.dumps({k: metrics[k] for k in ("retrieval", "zero_shot") if k in metrics}, indent=1))
    print(f"written to {a.out}")


if __name__ == "__main__":
    run_command(main)
