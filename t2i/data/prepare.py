"""Pictures and captions → what a shard stores of them: a square RGB JPEG, and CLIP's features where asked for."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import Dataset

from t2i.data.coco import Picture, Problem
from t2i.data.manifest import Options
from t2i.data.workers import compute_ahead

ORIENTATION = 0x0112  # the EXIF field
CHUNK = 16  # pictures in one message between processes


class BadPicture(Exception):
    """A file that cannot become a picture: kind (see coco.Problem) and reason."""


def prepare_picture(path: Path, options: Options) -> tuple[bytes, int, int]:
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
            return _to_jpeg(image, data, options)
    except UnidentifiedImageError:
        raise BadPicture("undecodable", "not a picture in a known format") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadPicture("truncated" if "truncated" in reason.lower() else "undecodable", reason) from None


def _to_jpeg(image: Image.Image, data: bytes, options: Options) -> tuple[bytes, int, int]:
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


# ---- many pictures, by several processes


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
                jpeg, width, height = prepare_picture(self.folder / picture.file, self.options)
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


def prepare(
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
        chunks, compute_ahead(items, range(len(chunks)), workers if workers > 1 else 0, "--workers")
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
