"""A drawn world → pictures and COCO annotations in a folder."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from t2i import worlds
from t2i.files import end_with_parent


def draw_world(
    world: str,
    out: Path,
    count: int,
    seed: int,
    size: int,
    held_out: Sequence[Any],
    only_held_out: bool = False,
    workers: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Path:
    """Draws `count` pictures into out/images (JPEG, side 2·size) and describes them in out/annotations.json.

    The file is COCO's caption format; each entry of "images" also has "attributes" (see worlds.World.draw). Picture i
    is the same whatever the count and the workers. workers: processes, 0 = one per core. progress(n) is told of every
    n more pictures drawn. Returns `out`.
    """
    worlds.find(world).draw(seed, 0, size, held_out, only_held_out)  # complains before the work starts
    out = Path(out)
    (out / "images").mkdir(parents=True, exist_ok=True)
    work = partial(_draw, world, out / "images", seed, size, tuple(held_out), only_held_out)
    workers = min(workers or os.cpu_count() or 1, max(1, count // 100))
    described = []
    if workers == 1:
        for i in range(count):
            described.append(work(i))
            progress(1)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=end_with_parent) as pool:
            for entry in pool.map(work, range(count), chunksize=50):
                described.append(entry)
                progress(1)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, (captions, attributes) in enumerate(described):
        images.append(
            {"id": i, "file_name": f"{i:012d}.jpg", "height": 2 * size, "width": 2 * size, "license": 1,
             "attributes": attributes}
        )  # fmt: skip
        annotations += [{"id": len(annotations) + k, "image_id": i, "caption": c} for k, c in enumerate(captions)]
    info = {"description": f"{world}: a drawn world with captions", "version": "1", "seed": seed}
    licenses = [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}]
    whole = {"info": info, "licenses": licenses, "images": images, "annotations": annotations}
    (out / "annotations.json").write_text(json.dumps(whole))
    return out


def _draw(
    world: str, folder: Path, seed: int, size: int, held_out: tuple, only_held_out: bool, index: int
) -> tuple[list[str], dict[str, Any]]:
    image, captions, attributes = worlds.find(world).draw(seed, index, size, held_out, only_held_out)
    image.save(folder / f"{index:012d}.jpg", quality=95, subsampling=0)
    return captions, attributes
