"""A set of shards as samples: captions, cached fields and a picture each, by number."""

import functools
import io
import itertools
import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from t2i.data.order import GROUP
from t2i.data.tars import BadSample, Shard, find, remedy
from t2i.errors import UserError, one_line

PICTURES = ("jpg", "jpeg", "png", "webp")
OPEN = 2 * GROUP  # tars held open
MOST_PIXELS = 2**26  # of a picture: a few bytes can say that they are more than any memory holds


@dataclass(slots=True)
class Sample:
    """One sample as it is stored."""

    shard: Shard
    key: str
    captions: list[str]
    image_id: int
    meta: dict[str, Any]  # the whole JSON
    extra: dict[str, np.ndarray]  # .npy members by name
    coded: Tensor  # the picture's file, [bytes] uint8
    jpeg: bool
    decoded: Tensor | None = None

    @property
    def where(self) -> str:
        return f"{self.shard.name}: {self.key}"

    @property
    def image(self) -> Tensor:
        """[3, H, W] uint8. Raises BadSample."""
        if self.decoded is None:
            try:
                image = (decode_jpeg if self.jpeg else decode_image)(self.coded, mode=ImageReadMode.RGB)
            except (RuntimeError, ValueError) as error:  # the decoders' words for any damage
                raise BadSample(f"{self.where}: {str(error).splitlines()[0]}") from None
            if image.dtype == torch.uint16:  # 65535 → 255
                image = ((image.int() + 128) // 257).to(torch.uint8)
            if image.dtype != torch.uint8 or image.dim() != 3:  # several pictures, for example
                raise BadSample(f"{self.where}: the picture is {image.dtype} {tuple(image.shape)}")
            self.decoded = image
        return self.decoded


def decode(samples: Sequence[Sample]) -> None:
    """The samples' pictures, so far as they can be decoded, in one call, which saves a tenth of the time of many."""
    jpegs = [sample for sample in samples if sample.jpeg and sample.decoded is None]
    try:
        images = decode_jpeg([sample.coded for sample in jpegs], mode=ImageReadMode.RGB)
    except (RuntimeError, ValueError):
        return  # one of them is broken; asking each for its image tells which
    for sample, image in zip(jpegs, images):
        sample.decoded = image


class Samples:
    """All samples of a set of shards, by number."""

    def __init__(self, shards: str, cache: str | Path = "shards/.cache", here: bool = False, cache_gb: float = 0.0):
        """shards: folder, tar, glob with braces, http(s)://… or pipe:…; several joined by '::'. here: only what is on
        this machine, UserError for the rest: where the name is that of a file and not the user's own. cache_gb: the
        most that stays in the cache; 0: all.

        Without a manifest each tar is looked through now, and a remote one fetched, because the count is needed.
        """
        self.source = shards
        self.complaints: list[str] = []  # what looks wrong with the shards
        self.shards = find(shards, Path(cache), self.complaints, here, cache_gb)
        for shard in self.shards:
            if shard.samples < 0:
                index = shard.index()
                shard.samples = len(index.keys)
                if not index.whole:
                    self.complaints.append(f"{shard.name}: cut off or damaged after {shard.samples} samples")
        self._open: dict[Shard, None] = {}
        self.counts = [shard.samples for shard in self.shards]
        self.starts = [0, *itertools.accumulate(self.counts)]
        if len(self) == 0:
            raise UserError(f"data.shards={shards}: the shards hold no samples; {remedy(shards)}")

    @property
    def clip(self) -> set[str]:
        """Fingerprints of the CLIPs whose features the shards hold, as their manifests say; "" where they say none."""
        return {shard.clip for shard in self.shards}

    def __len__(self) -> int:
        return self.starts[-1]

    def place(self, number: int) -> tuple[Shard, int]:
        """The shard of a sample, and its number in there."""
        which = bisect_right(self.starts, number) - 1
        return self.shards[which], number - self.starts[which]

    def read(self, number: int) -> Sample:
        """Sample `number`, 0 to len - 1, its picture decoded. Raises BadSample, whose text is 'tar: key: reason'."""
        sample = self.look_up(number)
        _ = sample.image
        return sample

    def look_up(self, number: int) -> Sample:
        """The same, but the picture is decoded when it is asked for."""
        shard, inside = self.place(number)
        if shard not in self._open:
            if len(self._open) == OPEN:
                oldest = next(iter(self._open))
                del self._open[oldest]
                oldest.close()
            self._open[shard] = None
        key, members = shard.read(inside)
        try:
            return _parse(shard, key, members, number)
        except BadSample as bad:
            raise BadSample(f"{shard.name}: {key}: {bad}") from None


_json = json.JSONDecoder()


def _parse(shard: Shard, key: str, members: dict[str, memoryview], number: int) -> Sample:
    coded = members.pop("json", None)
    if coded is None:
        raise BadSample("no json")
    try:
        text = str(coded, "utf-8").strip()
        meta, end = _json.raw_decode(text)  # what json.loads does, but for two searches by regular expressions
        if end < len(text):
            raise ValueError("text behind the end")
        texts = meta["captions"]
        if not isinstance(texts, list):
            raise TypeError("captions are not a list")
        texts = [text for text in texts if isinstance(text, str) and text]
        image_id = int(meta.get("image_id", number))
        if not -(2**63) <= image_id < 2**63:
            raise ValueError("image_id is no number of 64 bits")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadSample(f"json: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not texts:
        raise BadSample("no captions")
    kind = next((name for name in PICTURES if name in members), None)
    if kind is None:
        raise BadSample("no picture")
    picture = members.pop(kind)
    if not picture:
        raise BadSample(f"{kind}: no bytes")
    if (pixels := _pixels(picture)) > MOST_PIXELS:
        raise BadSample(f"{kind}: says it has {pixels} pixels")
    extra = {}
    for name, data in members.items():
        if name.endswith("npy"):
            try:
                extra[name.removesuffix(".npy")] = _array(data)
            except Exception as error:  # numpy raises whatever a damaged header leads it to
                raise BadSample(f"{name}: {one_line(error)}") from None
    return Sample(
        shard, key, texts, image_id, meta, extra, torch.frombuffer(picture, dtype=torch.uint8), kind in ("jpg", "jpeg")
    )


def _pixels(picture: memoryview) -> int:
    """What a PNG or a JPEG says of its size; 0 where that is not known."""
    if picture[:8] == b"\x89PNG\r\n\x1a\n":
        return int.from_bytes(picture[16:20], "big") * int.from_bytes(picture[20:24], "big")
    if picture[:2] != b"\xff\xd8":
        return 0
    at = 2
    while at + 9 < len(picture) and picture[at] == 0xFF:
        marker = picture[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            return int.from_bytes(picture[at + 5 : at + 7], "big") * int.from_bytes(picture[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(picture[at + 2 : at + 4], "big")
    return 0


def _array(data: memoryview) -> np.ndarray:
    """A .npy file's array. numpy.load spends 50 µs on reading a header, and a field's headers are all the same."""
    size = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _layout(bytes(data[:size]))
    array = np.frombuffer(data, dtype, offset=size).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("holds what is no number")
    return array


@functools.lru_cache(maxsize=100)
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """The type and shape that a .npy header states. Raises ValueError."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the .npy format than 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if by_columns or dtype.hasobject:
        raise ValueError("its array lies by columns or holds objects")
    if dtype.kind not in "fiub" or not dtype.isnative or dtype.itemsize > 8 or any(n < 0 for n in shape):
        raise ValueError(f"its array is {dtype.str} {shape}")
    return dtype, shape
