"""Captioned pictures → WebDataset shards: square JPEGs and their captions in tars, with a manifest and a report.

A shard is a fixed slice of the sorted picture ids and is written to a temporary name first, so the bytes depend on
the input alone, and a run that was killed continues where it stopped.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from webdataset import TarWriter

from t2i.data.coco import Annotations, Picture, Problem
from t2i.errors import UserError

FORMAT = 1
ORIENTATION = 0x0112  # the EXIF field
CHUNK = 16  # pictures in one message between processes
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Options:
    """What the bytes of the shards depend on, besides the input."""

    size: int = 256  # side of the square pictures
    fit: str = "crop"  # crop the centre, or squash the whole picture
    per_shard: int = 1000  # pictures a shard, before the bad ones are left out
    quality: int = 95  # of the JPEGs
    limit: int = 0  # use only the first so many pictures; 0 = all
    clip: str = ""  # fingerprint of the CLIP whose features are stored; "" = none

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 4096:
            raise UserError(f"--size {self.size}: must be from 4 to 4096")
        if self.fit not in ("crop", "squash"):
            raise UserError(f"--fit {self.fit}: known: crop, squash")
        if self.per_shard < 1:
            raise UserError(f"--per-shard {self.per_shard}: must be 1 or more")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: must be from 1 to 100")
        if self.limit < 0:
            raise UserError(f"--limit {self.limit}: must be 1 or more, or 0 for all")


# --- one picture


class BadPicture(Exception):
    """A file that cannot become a picture: kind (see coco.Problem) and reason."""


def prepare(path: Path, options: Options) -> tuple[bytes, int, int]:
    """A picture file → (RGB JPEG of options.size², width, height of the upright original). Raises BadPicture."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadPicture("missing", "no such file") from None
    except OSError as error:
        raise BadPicture("unreadable", error.strerror or str(error)) from None
    if not data:
        raise BadPicture("empty", "the file has no bytes")
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _prepare(image, data, options)
    except UnidentifiedImageError:
        raise BadPicture("undecodable", "not a picture in a known format") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadPicture("truncated" if "truncated" in reason.lower() else "undecodable", reason) from None


def _prepare(image: Image.Image, data: bytes, options: Options) -> tuple[bytes, int, int]:
    size = (options.size, options.size)
    if image.format == "JPEG" and image.mode == "RGB" and image.size == size and _orientation(image) == 1:
        return data, *size  # already what is wanted: coding it again would only lose detail
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    width, height = image.size
    image = to_rgb(image)
    if options.fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=options.quality, subsampling=0)  # 0: colour at full resolution
    return out.getvalue(), width, height


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1
    return value if value in range(1, 9) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode → RGB: 16-bit greys scaled to 8, transparency laid over white."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


class Encode(Protocol):
    """t2i.encoders.features.Features."""

    device: torch.device

    def __call__(self, jpegs: Sequence[bytes], captions: Sequence[Sequence[str]]) -> list[dict[str, bytes]]: ...


@dataclass
class Prepared:
    """A picture ready to be written."""

    members: dict[str, bytes]  # extension → bytes
    width: int  # of the upright original
    height: int


class _Chunks(Dataset):
    """The prepared pictures of each chunk, in order: the bytes of all members end to end, and for each picture its
    members' sizes, the original's width and height, or its Problem."""

    def __init__(self, chunks: Sequence[Sequence[Picture]], folder: Path, options: Options, encode: Encode | None):
        self.chunks, self.folder, self.options, self.encode = chunks, folder, options, encode

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, list[tuple[dict[str, int], int, int] | Problem]]:
        items = list[Prepared | Problem]()
        for picture in self.chunks[number]:
            try:
                jpeg, width, height = prepare(self.folder / picture.file, self.options)
                items.append(Prepared({"jpg": jpeg}, width, height))
            except BadPicture as bad:
                items.append(Problem(bad.args[0], picture.id, picture.file, bad.args[1]))
        if self.encode:
            _add_features(items, self.chunks[number], self.encode)
        # A tensor, because it travels in shared memory: a process killed while it writes much into a pipe would leave
        # its reader waiting for ever.
        data, parts = bytearray(), list[tuple[dict[str, int], int, int] | Problem]()
        for item in items:
            if isinstance(item, Problem):
                parts.append(item)
                continue
            data += b"".join(item.members.values())
            parts.append(({name: len(member) for name, member in item.members.items()}, item.width, item.height))
        return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8), parts


def _add_features(items: Sequence[Prepared | Problem], pictures: Sequence[Picture], encode: Encode) -> None:
    good = [(item, picture) for item, picture in zip(items, pictures) if isinstance(item, Prepared)]
    if good:
        found = encode([item.members["jpg"] for item, _ in good], [picture.captions for _, picture in good])
        for (item, _), members in zip(good, found, strict=True):
            item.members |= members


def _prepared(
    shards: Sequence[Sequence[Picture]], folder: Path, options: Options, workers: int, encode: Encode | None
) -> Iterator[Prepared | Problem]:
    """Every picture of the shards prepared, in order, over `workers` processes.

    Features are computed a chunk at a time, and a chunk never reaches over the end of a shard: so they, whose last
    bits depend on what is computed beside them, are the same wherever an earlier run was stopped.
    """
    chunks = [pictures[i : i + CHUNK] for pictures in shards for i in range(0, len(pictures), CHUNK)]
    here = encode if encode and encode.device.type != "cpu" else None  # forked processes cannot use a GPU
    items = _Chunks(chunks, folder, options, None if here else encode)
    for chunk, (data, parts) in zip(
        chunks, spread(items, range(len(chunks)), workers if workers > 1 else 0, "--workers")
    ):
        rest, done = memoryview(data.numpy()), list[Prepared | Problem]()
        for part in parts:
            if isinstance(part, Problem):
                done.append(part)
                continue
            sizes, width, height = part
            members = {}
            for name, size in sizes.items():
                members[name], rest = bytes(rest[:size]), rest[size:]
            done.append(Prepared(members, width, height))
        if here:
            _add_features(done, chunk, here)
        yield from done


def spread(items: Dataset, order: Iterable[int], workers: int, option: str) -> Iterator[Any]:
    """items[i] for i in order, in that order, computed ahead by `workers` processes, or by this one for 0.

    Large results should be tensors. UserError, naming the option, where a process was killed. torch's DataLoader
    underneath: it bounds what waits in memory, and its processes end when this one is killed.
    """
    if not workers:
        yield from (items[i] for i in order)
        return
    died = signal.getsignal(signal.SIGCHLD)
    with warnings.catch_warnings():
        # The user asked for this many workers; and forking beside other threads is safe here, since a worker calls
        # neither CUDA nor anything of torch that would use more than its one thread.
        warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)
        warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
        loader: DataLoader = DataLoader(
            items,
            batch_size=None,
            sampler=order,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=4,
            multiprocessing_context="fork",  # starts at once, and what is loaded is shared
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # without one, torch's global random numbers would advance
        )
        results = iter(loader)
    if died is not None and threading.current_thread() is threading.main_thread():
        # torch's own handler raises in whatever the main process is doing when a worker dies, such as writing a
        # checkpoint; asking for the next item notices it too.
        signal.signal(signal.SIGCHLD, died)
    try:
        yield from results
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:
        # torch's word for a worker that is gone, or what comes of fetching a tensor from one. An error raised by
        # `items` itself begins with "Caught".
        gone = "DataLoader worker (pid" in str(error) or not isinstance(error, RuntimeError)
        if not gone or str(error).startswith("Caught "):
            raise
        raise UserError(
            f"{option}={workers}: one of them was killed, perhaps for want of memory or of room in /dev/shm; use fewer"
        ) from None


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(number: int) -> None:
    # Ctrl-C and SIGTERM can reach the whole process group. The main process answers them and may take a while, so a
    # worker stays for Ctrl-C, and leaves at SIGTERM (which also ends it when the main process exits) in a way that
    # does not raise an error over there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))


# --- one shard


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


def shard_name(index: int) -> str:
    return f"shard-{index:06d}.tar"


def _write_shard(
    path: Path, pictures: Sequence[Picture], prepared: Iterator[Prepared | Problem], bar: tqdm
) -> dict[str, Any]:
    """Takes one item of `prepared` a picture, writes the tar, and returns its record for the manifest."""
    temporary = path.with_name(f".{path.name}.tmp")
    problems, captions = [], 0
    try:
        with temporary.open("wb", buffering=0) as file:
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
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
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


# --- all shards


def make(
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
        lock = (out / ".lock").open("w")
        with lock:
            try:
                # A POSIX lock belongs to this process alone: a killed run's dying workers do not hold it.
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):  # else a file system that knows no locks
                    raise UserError(f"--out {out}: another make_shards writes there; wait or change --out") from None
            return _make(annotations, images, out, options, source, workers, max_bad, overwrite, encode)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UserError(
                f"--out {out}: the disk is full; finished shards stay: free space and give the same command again"
            ) from None
        raise UserError(f"--out {out}: {error.filename or ''} {error.strerror}; use another folder") from None


def _make(
    annotations: Annotations,
    images: Path,
    out: Path,
    options: Options,
    source: dict[str, Any],
    workers: int,
    max_bad: float,
    overwrite: bool,
    encode: Encode | None,
) -> dict[str, Any]:
    what = _what(options, source)
    if overwrite:
        _clear(out)
    known = _records(out, what)

    pictures = annotations.pictures[: options.limit or None]
    problems = annotations.problems if not options.limit else []
    total = len(pictures) + len(problems)
    sizes = [_size(images / p.file) for p in pictures]
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
    records: list[dict[str, Any] | None] = [
        r if (r := known.get(shard_name(i))) and r["inputs"] == h and _size(out / r["file"]) == r["bytes"] else None
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
            _write_json(out / "report.json", report)
            kinds = ", ".join(f"{n} {kind}" for kind, n in report["counts"].items())
            raise UserError(
                f"--max-bad {max_bad}: {report['bad']} of {total} pictures cannot be used ({kinds}), listed in "
                f"{out / 'report.json'}; repair them or give a larger --max-bad"
            )

    progress = out / ".progress"
    if todo:
        # Until every shard is there, what is known of the finished ones stands in .progress, not in a manifest.
        progress.mkdir(exist_ok=True)
        _write_json(progress / "what.json", what)
        for record in records:
            if record:
                _write_json(progress / f"{record['file']}.json", record)
        for name in ("manifest.json", "report.json"):
            (out / name).unlink(missing_ok=True)
    check(len(problems) + absent)

    prepared = _prepared([pictures[slices[i]] for i in todo], images, options, workers, encode)
    finished_before = sum(len(pictures[s]) for s, record in zip(slices, records) if record)
    with tqdm(total=len(pictures), initial=finished_before, unit="picture", mininterval=0.5) as bar:
        for i in todo:
            record = {**_write_shard(out / shard_name(i), pictures[slices[i]], prepared, bar), "inputs": inputs[i]}
            if options.clip:
                record["clip"] = options.clip
            _write_json(progress / f"{record['file']}.json", record)
            records[i] = record
            check(len(bad()))
    check(len(bad()))

    finished = [record for record in records if record]
    for path in _shard_files(out):  # left by an earlier, larger annotation file
        if path.name not in {record["file"] for record in finished}:
            path.unlink()
    for path in out.glob(".*.tmp"):  # left by a kill
        path.unlink()
    report = _report(annotations, total, bad())
    manifest = {
        **what,
        "pictures": total,
        "samples": sum(r["samples"] for r in finished),
        "captions": sum(r["captions"] for r in finished),
        "bytes": sum(r["bytes"] for r in finished),
        "bad": report["bad"],
        "pillow": PIL.__version__,  # whose JPEG encoder the bytes depend on
        "shards": finished,
    }
    _write_json(out / "report.json", report)
    _write_json(out / "manifest.json", manifest)
    shutil.rmtree(progress, ignore_errors=True)
    return manifest


def finished(out: Path, options: Options, source: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest, where `out` holds all the shards of these options and this source. UserError where of others."""
    records = _records(out, _what(options, source))
    whole = all(_size(out / record["file"]) == record["bytes"] for record in records.values())
    return read_manifest(out) if whole else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished folder of shards, or None."""
    return _read_json(folder / "manifest.json")


def _size(path: Path) -> int:
    """Bytes, or -1 where there is no file."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _shard_files(out: Path) -> list[Path]:
    return [p for p in out.glob("shard-*.tar") if re.fullmatch(r"shard-\d{6,}\.tar", p.name)]


def _clear(out: Path) -> None:
    shutil.rmtree(out / ".progress", ignore_errors=True)
    for path in [out / "manifest.json", out / "report.json", *_shard_files(out)]:
        path.unlink(missing_ok=True)


def _records(out: Path, what: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """File name → record of the shards that an earlier call finished. UserError where it was another call."""
    manifest, progress = read_manifest(out), out / ".progress"
    earlier = manifest or _read_json(progress / "what.json")
    if earlier is None:
        if _shard_files(out) and not progress.is_dir():
            raise UserError(f"--out {out}: it holds shards without a manifest; use another folder or --overwrite")
        return {}
    before, now = _flat(earlier), _flat(what)
    different = [
        f"{key} {before.get(key) or 'none'} there, {now[key] or 'none'} asked for"
        for key in now
        if before.get(key) != now[key]
    ]
    if different:
        raise UserError(f"--out {out}: holds other shards ({'; '.join(different)}); use another folder or --overwrite")
    records = manifest["shards"] if manifest else [_read_json(p) for p in sorted(progress.glob("shard-*.tar.json"))]
    return {record["file"]: record for record in records if record}


def _what(options: Options, source: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, "options": asdict(options), "source": source}


def _flat(what: dict[str, Any]) -> dict[str, Any]:
    # "clip" is missing in what was written before there were features.
    return {"format": what.get("format"), "clip": "", **what.get("options", {}), **what.get("source", {})}


def _report(annotations: Annotations, total: int, problems: list[Problem]) -> dict[str, Any]:
    return {
        "pictures": total,
        "bad": len(problems),
        "counts": dict(sorted(Counter(p.kind for p in problems).items())),
        "problems": [asdict(p) for p in problems],
        "annotations_without_picture": annotations.orphans,
        "repeated_entries": annotations.repeated,
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write_json(path: Path, value: Any) -> None:
    """Whole or not at all, also after a kill."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
