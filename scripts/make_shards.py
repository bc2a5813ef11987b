"""Makes WebDataset shards of captioned pictures.

    python scripts/make_shards.py coco --images train2014 --annotations captions_train2014.json --out shards/coco
    python scripts/make_shards.py scenes --out shards/scenes-train-64 --count 20000 --size 64 --seed 0
    python scripts/make_shards.py scenes --world binding --out shards/binding-train-32 --count 6000 --size 32

With --clip NAME they hold that CLIP's or text encoder's features too, so that training need not compute them.
The same command given again continues after a kill, and does nothing where everything is made.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2i import worlds
from t2i.errors import UserError, run_command


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--out", type=Path, required=True, help="folder for the shards")
    common.add_argument("--per-shard", type=int, default=1000, help="pictures a shard (default %(default)s)")
    common.add_argument("--quality", type=int, default=95, help="of the JPEGs (default %(default)s)")
    common.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    common.add_argument(
        "--clip", metavar="NAME", default="",
        help="also store this CLIP's features of every picture and caption, or a text encoder's of every caption, "
        "for training that uses it: scenes-clip, open_clip:ViT-B-32/openai, all-minilm-l6-v2, ... (as encoders.clip, "
        "encoders.text)",
    )  # fmt: skip
    common.add_argument("--overwrite", action="store_true", help="first remove the shards that --out holds")

    given = kinds.add_parser("coco", parents=[common], help="pictures with annotations in COCO's caption format")
    given.add_argument("--images", type=Path, required=True, help="folder that the file names start from")
    given.add_argument("--annotations", type=Path, required=True, help="captions_*.json")
    given.add_argument("--size", type=int, default=256, help="side of the pictures (default %(default)s)")
    given.add_argument("--fit", default="crop", help="crop the centre (default), or squash the whole picture")
    given.add_argument("--limit", type=int, default=0, help="only the first so many pictures")
    given.add_argument(
        "--max-bad", type=float, default=0.1,
        help="fail when a larger share of the pictures cannot be used (default %(default)s)",
    )  # fmt: skip

    drawn = kinds.add_parser("scenes", parents=[common], help="the built-in data sets, drawn")
    drawn.add_argument("--count", type=int, required=True, help="how many pictures")
    drawn.add_argument("--size", type=int, default=64, help="side of the pictures (default %(default)s)")
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument(
        "--world", choices=worlds.known(), default="scenes",
        help="a file of t2i/worlds. scenes (default): one subject a picture; binding: two objects in two colours, to "
        "see which gets which",
    )  # fmt: skip
    drawn.add_argument(
        "--held-out", default="default",
        help='pairs of colour and object never drawn: "red boat, blue kite", none, or default (the built-in list)',
    )  # fmt: skip
    drawn.add_argument("--only-held-out", action="store_true", help="draw the held-out pairs alone, for tests")
    return parser.parse_args()


def main() -> None:
    a = arguments()
    if a.workers < 1:
        raise UserError(f"--workers {a.workers}: must be 1 or more")
    # Imported late: the processes that draw start by importing this file, and torch takes seconds.
    from t2i.data.make import make_coco, make_world
    from t2i.data.manifest import Options

    fit, limit = (a.fit, a.limit) if a.kind == "coco" else ("crop", 0)
    options = Options(a.size, fit, a.per_shard, a.quality, limit)
    encode = features(a.clip)
    options = replace(options, clip=encode.fingerprint if encode else "")
    more = {"workers": a.workers, "overwrite": a.overwrite, "encode": encode}
    try:
        if a.kind == "coco":
            manifest = make_coco(a.annotations, a.images, a.out, options, max_bad=a.max_bad, **more)
        else:
            manifest = make_world(a.world, a.count, a.seed, a.out, options, a.held_out, a.only_held_out, **more)
    except KeyboardInterrupt:
        raise UserError("stopped; finished shards stay, and the same command continues after them") from None
    print(
        f"{a.out}: {manifest['samples']} samples with {manifest['captions']} captions in "
        f"{len(manifest['shards'])} shards, {manifest['bytes'] / 1e6:.1f} MB"
    )
    if manifest["bad"]:
        print(f"{manifest['bad']} of {manifest['pictures']} pictures left out: see {a.out / 'report.json'}")


def features(name: str) -> Any:
    """What computes the features of --clip, or None: on a GPU if there is one, else in the worker processes."""
    if not name:
        return None
    from t2i.data.features import Features
    from t2i.encoders.clip import load_clip
    from t2i.encoders.text import load_text_encoder
    from t2i.machine import find_device

    try:
        text = load_text_encoder(name, find_device())
        return Features(text, load_clip(name, find_device()) if text.model.encode_image else None)
    except UserError as error:
        raise UserError(f"--clip {name}: {error}") from None


if __name__ == "__main__":
    run_command(main)
