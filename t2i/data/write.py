"""Captioned pictures → WebDataset shards: square JPEGs and their captions in tars, with a manifest and a report.

A shard is a fixed slice of the sorted picture ids and is written to a temporary name first, so the bytes depend on
the input alone, and a run that was killed continues where it stopped.
"""

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import PIL
from tqdm import tqdm
from webdataset import TarWriter

from t2i import files
from t2i.data import manifest
from t2i.data.coco import Annotations, Picture, Problem
from t2i.data.manifest import Options, Record, shard_name, size
from t2i.data.prepare import Encode, Prepared, prepare
from t2i.errors import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_shards(
    annotations: Annotations,
    images: Path,
    out: Path,
    options: Options,
    source: dict[str, Any],
    workers: int = 1,
    max_bad: float = 0.1,
    overwrite: bool = False,
    encode: Encode | None = None,
) -> dict[str, Any]:
    """Writes shards, manifest.json and report.json into `out` and returns the manifest.

    source: what the pictures are, kept in the manifest; another source or other options need another folder.
    encode: what computes the features that options.clip names.
    UserError where more than max_bad of the pictures cannot be used, and where the disk is full; shards that are
    finished stay, and the same call continues after them.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with files.lock(out / ".lock", f"--out {out}: another make_shards writes there; wait or change --out"):
            if overwrite:
                manifest.clear(out)
            return _write_shards(annotations, images, out, options, source, workers, max_bad, encode)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"--out {out}: the disk is full; finished shards stay: free space and give the same command again"
            ) from None
        raise UserError(f"--out {out}: {error.filename or ''} {error.strerror}; use another folder") from None


def _write_shards(
    annotations: Annotations,
    images: Path,
    out: Path,
    options: Options,
    source: dict[str, Any],
    workers: int,
    max_bad: float,
    encode: Encode | None,
) -> dict[str, Any]:
    head = manifest.head(options, source)
    known = manifest.records(out, head)
    pictures = annotations.pictures[: options.limit or None]
    problems = annotations.problems if not options.limit else []
    total = len(pictures) + len(problems)
    sizes = [size(images / p.file) for p in pictures]
    absent = sum(size < 0 for size in sizes)
    if not pictures:
        raise UserError("--annotations: none of its pictures has a caption; give COCO's captions_*.json")
    if absent == len(pictures):
        raise UserError(f"--images {images}: no picture of the annotations is there, for example no {pictures[0].file}")

    slices = [slice(i, i + options.per_shard) for i in range(0, len(pictures), options.per_shard)]
    # What a shard is made from, so that pictures repaired or added since it was written are noticed.
    inputs = [
        hashlib.sha256(repr([(p, n) for p, n in zip(pictures[s], sizes[s])]).encode()).hexdigest() for s in slices
    ]
    records: list[Record | None] = [
        r if (r := known.get(shard_name(i))) and r["inputs"] == h and size(out / r["file"]) == r["bytes"] else None
        for i, h in enumerate(inputs)
    ]
    todo = [i for i, record in enumerate(records) if record is None]

    def bad() -> list[Problem]:
        found = [Problem(**p) for record in records if record for p in record["problems"]]
        return sorted(problems + found, key=lambda p: p.image_id)

    def check(count: int) -> None:
        if count > max_bad * total:
            missing = [
                Problem("missing", p.id, p.file, "no such file")
                for i in todo
                if records[i] is None
                for p, n in zip(pictures[slices[i]], sizes[slices[i]])
                if n < 0
            ]
            report = _report(annotations, total, sorted(bad() + missing, key=lambda p: p.image_id))
            files.write_json(out / "report.json", report)
            kinds = ", ".join(f"{n} {kind}" for kind, n in report["counts"].items())
            raise UserError(
                f"--max-bad {max_bad}: {report['bad']} of {total} pictures cannot be used ({kinds}), listed in "
                f"{out / 'report.json'}; repair them or give a larger --max-bad"
            )

    if todo:
        manifest.begin(out, head, [record for record in records if record])
    check(len(problems) + absent)
    prepared = prepare([pictures[slices[i]] for i in todo], images, options, workers, encode)
    finished_before = sum(len(pictures[s]) for s, record in zip(slices, records) if record)
    with tqdm(total=len(pictures), initial=finished_before, unit="picture", mininterval=0.5) as bar:
        for i in todo:
            record = {**_write_shard(out / shard_name(i), pictures[slices[i]], prepared, bar), "inputs": inputs[i]}
            if options.clip:
                record["clip"] = options.clip
            manifest.note(out, record)
            records[i] = record
            check(len(bad()))
    check(len(bad()))

    finished = [record for record in records if record]
    report = _report(annotations, total, bad())
    files.write_json(out / "report.json", report)
    whole = {
        **head,
        "pictures": total,
        "samples": sum(r["samples"] for r in finished),
        "captions": sum(r["captions"] for r in finished),
        "bytes": sum(r["bytes"] for r in finished),
        "bad": report["bad"],
        "pillow": PIL.__version__,  # whose JPEG encoder the bytes depend on
        "shards": finished,
    }
    manifest.end(out, whole)
    return whole


def _report(annotations: Annotations, total: int, problems: list[Problem]) -> dict[str, Any]:
    return {
        "pictures": total,
        "bad": len(problems),
        "counts": dict(sorted(Counter(p.kind for p in problems).items())),
        "problems": [asdict(p) for p in problems],
        "annotations_without_picture": annotations.orphans,
        "repeated_entries": annotations.repeated,
    }


# ---- one shard


class _Hashed:
    """A file that knows the SHA-256 and the size of what was written to it."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha256, self.size, self.failed = file, hashlib.sha256(), 0, False

    def write(self, data: bytes) -> int:
        if self.failed:  # tarfile flushes once more when it is thrown away; the error has been raised already
            return len(data)
        try:
            self.file.write(data)
        except OSError:
            self.failed = True
            raise
        self.sha256.update(data)
        self.size += len(data)
        return len(data)


def _write_shard(
    path: Path, pictures: Sequence[Picture], prepared: Iterator[Prepared | Problem], bar: tqdm
) -> dict[str, Any]:
    """Takes one item of `prepared` a picture, writes the tar, and returns its record for the manifest."""
    problems, captions = [], 0
    with files.replacing(path) as temporary, temporary.open("wb", buffering=0) as file:
        out = _Hashed(file)  # type: ignore[arg-type]
        # Fixed owner and time: the bytes depend on the samples alone.
        with TarWriter(out, user="t2i", group="t2i", mtime=0, encoder=False) as tar:
            for picture in pictures:
                item = next(prepared)
                bar.update()
                if isinstance(item, Problem):
                    problems.append(item)
                    continue
                captions += len(picture.captions)
                meta = _json(picture, item.width, item.height)
                tar.write({"__key__": f"{picture.id:012d}", **item.members, "json": meta})
    return {
        "file": path.name,
        "samples": len(pictures) - len(problems),
        "captions": captions,
        "bytes": out.size,
        "sha256": out.sha256.hexdigest(),
        "problems": [asdict(p) for p in problems],
    }


def _json(picture: Picture, width: int, height: int) -> bytes:
    sample = {
        "image_id": picture.id,
        "captions": picture.captions,
        "license": picture.license,
        "width": width,
        "height": height,
        "file_name": picture.file,
    }
    if picture.attributes is not None:
        sample["attributes"] = picture.attributes
    return json.dumps(sample, ensure_ascii=False).encode()
