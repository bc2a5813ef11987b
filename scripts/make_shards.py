"""Makes WebDataset shards of captioned pictures.

    python scripts/make_shards.py coco --images train2014 --annotations captions_train2014.json --out shards/coco
    python scripts/make_shards.py scenes --out shards/scenes-train-64 --count 20000 --size 64 --seed 0
    python scripts/make_shards.py scenes --world binding --out shards/binding-train-32 --count 6000 --size 32

With --clip NAME they hold that CLIP's features too, so that training need not compute them.
The same command given again continues after a kill, and does nothing where everything is made.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2i.data import binding, coco, scenes
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
        help="also store this CLIP's features of every picture and caption, for training that uses it: "
        "scenes-clip, open_clip:ViT-B-32/openai, ... (any encoders.clip of a configuration)",
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

    drawn = kinds.add_parser("scenes", parents=[common], help="the built-in data set, drawn")
    drawn.add_argument("--count", type=int, required=True, help="how many pictures")
    drawn.add_argument("--size", type=int, default=64, help="side of the pictures (default %(default)s)")
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument(
        "--world", choices=("scenes", "binding"), default="scenes",
        help="scenes (default): one subject a picture; binding: two objects in two colours, to see which gets which",
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
    try:
        manifest = make_coco(a) if a.kind == "coco" else make_scenes(a)
    except KeyboardInterrupt:
        raise UserError("stopped; finished shards stay, and the same command continues after them") from None
    print(
        f"{a.out}: {manifest['samples']} samples with {manifest['captions']} captions in "
        f"{len(manifest['shards'])} shards, {manifest['bytes'] / 1e6:.1f} MB"
    )
    if manifest["bad"]:
        print(f"{manifest['bad']} of {manifest['pictures']} pictures left out: see {a.out / 'report.json'}")


# t2i.data.shards is imported late: the processes that draw start by importing this file, and torch takes seconds.


def make_coco(a: argparse.Namespace) -> dict[str, Any]:
    from t2i.data import shards

    if not 0 <= a.max_bad <= 1:
        raise UserError(f"--max-bad {a.max_bad}: a share from 0 to 1")
    if not a.images.is_dir():
        raise UserError(f"--images {a.images}: no such folder; give the folder that the pictures were unpacked to")
    encode = features(a.clip)
    options = shards.Options(a.size, a.fit, a.per_shard, a.quality, a.limit, encode.fingerprint if encode else "")
    annotations = coco.read(a.annotations)
    source = {"kind": "coco", "annotations": annotations.sha256}
    return shards.make(annotations, a.images, a.out, options, source, a.workers, a.max_bad, a.overwrite, encode)


def make_scenes(a: argparse.Namespace) -> dict[str, Any]:
    from t2i.data import shards

    if a.count < 1:
        raise UserError(f"--count {a.count}: must be 1 or more")
    encode = features(a.clip)
    options = shards.Options(a.size, "crop", a.per_shard, a.quality, clip=encode.fingerprint if encode else "")
    if a.world == "binding":
        held_out, names = held_out_couples(a.held_out, a.only_held_out)
    else:
        held_out = held_out_pairs(a.held_out)
        names = [" ".join(pair) for pair in held_out]
    source = {
        "kind": a.world,
        "count": a.count,
        "seed": a.seed,
        "held_out": names,
        "only_held_out": a.only_held_out,
    }
    if not a.overwrite and (manifest := shards.finished(a.out, options, source)):
        return manifest
    # Beside --out: the same disk, and the same name again after a kill.
    out = a.out.resolve()
    folder = out.with_name(f".{out.name}.drawn")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tqdm(total=a.count, unit="scene", mininterval=0.5) as bar:

            def drew(count: int) -> None:
                bar.update(count)

            scenes.make(folder, a.count, a.seed, a.size, held_out, a.only_held_out, a.workers, drew, a.world)
        drawn = coco.read(folder / "annotations.json")
        return shards.make(drawn, folder / "images", a.out, options, source, a.workers, 0.0, a.overwrite, encode)
    except OSError as error:
        raise UserError(f"--out {a.out}: {error.strerror} while drawing; free space or use another folder") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def features(name: str) -> Any:
    """What computes the features of --clip, or None: on a GPU if there is one, else in the worker processes."""
    if not name:
        return None
    import torch

    from t2i.data.features import Features
    from t2i.encoders.clip import load_clip

    try:
        return Features(load_clip(name, "cuda" if torch.cuda.is_available() else "cpu"))
    except UserError as error:
        raise UserError(f"--clip {name}: {error}") from None


def held_out_pairs(given: str) -> list[tuple[str, str]]:
    """'red boat, blue kite' → [('red', 'boat'), ('blue', 'kite')]."""
    if given in ("default", "none"):
        return list(scenes.HELD_OUT) if given == "default" else []
    pairs = []
    for item in filter(None, (part.strip() for part in given.split(","))):
        color, _, name = item.partition(" ")
        if not name:
            raise UserError(f"--held-out {item!r}: write a colour and an object, for example 'red boat'")
        pairs.append((color, name.strip()))
    return pairs


def held_out_couples(given: str, only: bool) -> tuple[list[Any], list[str]]:
    """What --held-out means for two objects: the built-in couples or none; and their names."""
    if given not in ("default", "none") or (only and given == "none"):
        raise UserError(f"--held-out {given}: --world binding knows default" + ("" if only else " and none"))
    chosen = list(binding.HELD_OUT) if given == "default" else []
    return chosen, [" and ".join(" ".join(thing) for thing in two) for two in chosen]


if __name__ == "__main__":
    run_command(main)
