"""What make_shards does: shards of given captioned pictures, or of a drawn world."""

import shutil
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2i import files, worlds
from t2i.data import coco, manifest
from t2i.data.draw import draw_world
from t2i.data.manifest import Options
from t2i.data.prepare import Encode
from t2i.data.write import write_shards
from t2i.errors import UserError


def make_coco(
    annotations: Path,
    images: Path,
    out: Path,
    options: Options,
    workers: int = 1,
    max_bad: float = 0.1,
    overwrite: bool = False,
    encode: Encode | None = None,
) -> dict[str, Any]:
    """Shards of pictures with annotations in COCO's caption format; see write_shards. Returns the manifest."""
    if not 0 <= max_bad <= 1:
        raise UserError(f"--max-bad {max_bad}: a share from 0 to 1")
    if not images.is_dir():
        raise UserError(f"--images {images}: no such folder; give the folder that the pictures were unpacked to")
    given = coco.read(annotations)
    source = {"kind": "coco", "annotations": given.sha256}
    return write_shards(given, images, out, options, source, workers, max_bad, overwrite, encode)


def make_world(
    world: str,
    count: int,
    seed: int,
    out: Path,
    options: Options,
    held_out: str = "default",
    only_held_out: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    encode: Encode | None = None,
) -> dict[str, Any]:
    """Shards of `count` pictures of a drawn world. held_out: see worlds.World. Returns the manifest.

    The pictures are drawn into a folder beside `out` first, and that folder is removed at the end.
    """
    if count < 1:
        raise UserError(f"--count {count}: must be 1 or more")
    chosen = worlds.find(world).held_out(held_out, only_held_out)
    source = {
        "kind": world,
        "count": count,
        "seed": seed,
        "held_out": list(chosen),
        "only_held_out": only_held_out,
    }
    if not overwrite and (done := manifest.finished(out, options, source)):
        return done
    whole = out.resolve()
    folder = whole.with_name(f".{whole.name}.drawn")  # beside --out: the same disk, and the same name after a kill
    taken = f"--out {out}: another make_shards draws there; wait or change --out"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(files.lock(out / ".drawing.lock", taken))
            shutil.rmtree(folder, ignore_errors=True)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            with tqdm(total=count, unit="scene", mininterval=0.5) as bar:

                def drew(count: int) -> None:
                    bar.update(count)

                draw_world(
                    world, folder, count, seed, options.size, list(chosen.values()), only_held_out, workers, drew
                )  # fmt: skip
            drawn = coco.read(folder / "annotations.json")
            return write_shards(drawn, folder / "images", out, options, source, workers, 0.0, overwrite, encode)
    except BrokenProcessPool:
        raise UserError(f"--workers {workers}: one of them was killed, perhaps for want of memory; use fewer") from None
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror} while drawing; free space or use another folder") from None
