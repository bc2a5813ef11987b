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
from t2i.errors import UserError

PICTURES = ("jpg", "jpeg", "png", "webp")
OPEN = 2 * GROUP  # tars held open


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
                self.decoded = (decode_jpeg if self.jpeg else decode_image)(self.coded, mode=ImageReadMode.RGB)
            except (RuntimeError, ValueError) as error:  # the decoders' words for any damage
                raise BadSample(f"{self.where}: {str(error).splitlines()[0]}") from None
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

    def __init__(self, shards: str, cache: str | Path = "shards/.cache", here: bool = False):
        """shards: folder, tar, glob with braces, http(s)://… or pipe:…; several joined by '::'. here: only what is on
        this machine, UserError for the rest: where the name is that of a file and not the user's own.

        Without a manifest each tar is looked through now, and a remote one fetched, because the count is needed.
        """
        self.source = shards
        self.complaints: list[str] = []  # what looks wrong with the shards
        self.shards = find(shards, Path(cache), self.complaints, here)
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSample(f"json: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not texts:
        raise BadSample("no captions")
    kind = next((name for name in PICTURES if name in members), None)
    if kind is None:
        raise BadSample("no picture")
    picture = members.pop(kind)
    if not picture:
        raise BadSample(f"{kind}: no bytes")
    extra = {}
    for name, data in members.items():
        if name.endswith("npy"):
            try:
                extra[name.removesuffix(".npy")] = _array(data)
            except ValueError as error:
                raise BadSample(f"{name}: {str(error).splitlines()[0]}") from None
    return Sample(
        shard, key, texts, image_id, meta, extra, torch.frombuffer(picture, dtype=torch.uint8), kind in ("jpg", "jpeg")
    )


def _array(data: memoryview) -> np.ndarray:
    """A .npy file's array. numpy.load spends 50 µs on reading a header, and a field's headers are all the same."""
    size = 10 + int.from_bytes(data[8:10], "little")
    dtype, shape = _layout(bytes(data[:size]))
    return np.frombuffer(data, dtype, offset=size).reshape(shape)


@functools.lru_cache(maxsize=100)
def _layout(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """The type and shape that a .npy header states. Raises ValueError."""
    file = io.BytesIO(header)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("another version of the .npy format than 1.0")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
    if by_columns or dtype.hasobject:
        raise ValueError("its array lies by columns or holds objects")
    return dtype, shape
