"""WebDataset shards → batches: the same ones for a seed and a step, whatever the number of processes and workers.

Everything is a function of the position: the how-manyeth sample of the run it is, over all processes. Position p is
sample p mod count of epoch p div count, in that epoch's order; caption and flip are drawn from (seed, p). So a run
resumes at the exact sample by starting at its step, and nothing about the loader needs to be saved.
"""

import fcntl
import glob
import hashlib
import io
import itertools
import json
import logging
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.io import ImageReadMode, decode_image, decode_jpeg
from webdataset.gopen import gopen
from webdataset.shardlists import expand_urls

from t2i.data import captions
from t2i.data.shards import read_manifest, spread
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.rng import derive_seed

GROUP = 16  # shards shuffled together: the most that must be at hand at a time
PICTURES = ("jpg", "jpeg", "png", "webp")
OPEN = 2 * GROUP  # tars held open
TRIES = 20  # samples tried in place of one broken one
TIMEOUT = 60  # seconds without a byte before a download is given up

log = logging.getLogger(__name__)


class BadSample(Exception):
    """A sample that cannot be used, and why."""


@dataclass
class Sample:
    """One sample as it is stored."""

    where: str  # 'tar: key'
    captions: list[str]
    image_id: int
    meta: dict[str, Any]  # the whole JSON
    extra: dict[str, np.ndarray]  # .npy members by name
    coded: memoryview  # the picture's file
    jpeg: bool

    @cached_property
    def image(self) -> Tensor:
        """[3, H, W] uint8. Raises BadSample."""
        try:
            # ValueError: no bytes; RuntimeError: the decoders' word for any damage
            data = torch.frombuffer(self.coded, dtype=torch.uint8)
            return (decode_jpeg if self.jpeg else decode_image)(data, mode=ImageReadMode.RGB)
        except (RuntimeError, ValueError) as error:
            raise BadSample(f"{self.where}: {str(error).splitlines()[0]}") from None


# --- one shard


@dataclass(eq=False)
class Shard:
    """A tar, here or elsewhere. A remote one is fetched, and its members looked up, when first read."""

    url: str
    cache: Path
    samples: int = -1  # as the manifest says; -1 = not known
    bytes: int = -1
    sha256: str = ""
    _path: Path | None = None
    _index: "_Index | None" = None
    _file: int = -1

    @property
    def name(self) -> str:
        return self.url if self.url.startswith("pipe:") else self.url.rsplit("/", 1)[-1]

    @property
    def remote(self) -> bool:
        return _is_url(self.url)

    def path(self) -> Path:
        if self._path is None:
            self._path = self._fetch() if self.remote else Path(self.url)
        return self._path

    def index(self) -> "_Index":
        if self._index is None:
            self._index = _Index(self.path())
        return self._index

    def read(self, number: int) -> tuple[str, dict[str, memoryview]]:
        """The key and the members of a sample: extension → bytes (writable, so that torch can use them in place)."""
        index = self.index()
        if number >= len(index.keys):
            raise BadSample(f"{self.name}: sample {number}: not in the tar, which is shorter than its manifest says")
        begin, end, *spans = index.spans[number].tolist()
        data = bytearray(end - begin)
        try:
            if self._file < 0:
                self._file = os.open(self.path(), os.O_RDONLY)
            # A read at a place leaves the file's position alone, which forked workers share.
            got = os.preadv(self._file, [data], begin)
        except OSError as error:
            raise UserError(f"data.shards: cannot read {self.path()}: {_reason(error)}; bring it back") from None
        if got < len(data):
            raise BadSample(f"{self.name}: {index.keys[number]}: the tar has become shorter")
        view = memoryview(data)
        pairs = zip(index.names, spans[::2], spans[1::2])
        members = {name: view[offset - begin : offset - begin + size] for name, offset, size in pairs if offset}
        return index.keys[number], members

    def close(self) -> None:
        """The next read opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def _fetch(self) -> Path:
        """Brings the tar into the cache, once for all processes, whole or not at all."""
        label = re.sub(r"[^\w.-]+", "-", self.url.rsplit("/", 1)[-1])[-40:].removesuffix(".tar")
        path = self.cache / f"{hashlib.sha256(f'{self.url} {self.sha256}'.encode()).hexdigest()[:16]}-{label}.tar"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with open(f"{path}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.exists() or self.bytes not in (-1, path.stat().st_size):
                    temporary = path.with_suffix(".tmp")
                    try:
                        _download(self.url, temporary)
                        size = temporary.stat().st_size
                        if self.bytes not in (-1, size):
                            raise OSError(f"{size} bytes came, the manifest says {self.bytes}")
                        os.replace(temporary, path)
                    finally:
                        temporary.unlink(missing_ok=True)
        except (OSError, ValueError, AssertionError) as error:  # the last two from webdataset, for an unknown scheme
            raise UserError(
                f"data.shards: cannot fetch {self.url} to {self.cache} ({_reason(error)}); check the address, the "
                "network and the free space, and start again"
            ) from None
        return path


class _Index:
    """Where each sample's members lie in a tar."""

    keys: list[str]  # n samples
    names: list[str]  # the m extensions found
    spans: np.ndarray  # [n, 2 + 2m] int64: where the sample begins and ends, then each member's offset (0: none), size
    whole: bool  # False: cut off or damaged after these samples

    def __init__(self, path: Path):
        self.keys, self.names, self.whole = [], [], False
        rows: list[dict[str, tuple[int, int]]] = []
        try:
            # r: no compression, which would allow no reading from the middle
            with tarfile.open(path, "r:") as tar:
                end = os.path.getsize(path)
                for member in tar:
                    folder, _, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    if not member.isfile() or member.offset_data + member.size > end:
                        continue
                    key = f"{folder}/{stem}" if folder else stem
                    if extension not in self.names:
                        self.names.append(extension)
                    if not self.keys or self.keys[-1] != key:
                        self.keys.append(key)
                        rows.append({})
                    rows[-1][extension] = (member.offset_data, member.size)
                # tarfile takes a damaged header for the end: a true end is a block of zeros.
                with open(path, "rb") as file:
                    file.seek(tar.offset)
                    self.whole = file.read(512) == bytes(512)
        except (tarfile.TarError, EOFError):
            pass  # what came before the damage can be used
        except OSError as error:
            raise UserError(f"data.shards: cannot read {path}: {_reason(error)}; bring it back") from None
        self.spans = np.zeros((len(rows), 2 + 2 * len(self.names)), np.int64)
        for i, row in enumerate(rows):
            self.spans[i, 0] = min(offset for offset, _ in row.values())
            self.spans[i, 1] = max(offset + size for offset, size in row.values())
            for name, span in row.items():
                column = 2 + 2 * self.names.index(name)
                self.spans[i, column : column + 2] = span


# --- which shards


def _is_url(text: str) -> bool:
    return re.match(r"[a-z][a-z0-9]*:", text) is not None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _download(url: str, path: Path) -> None:
    """Raises OSError."""
    if not url.startswith(("http:", "https:")):
        with gopen(url, "rb") as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        return
    for wait in (1, 3, None):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as source, path.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
                expected = source.headers.get("Content-Length")
            if expected and path.stat().st_size != int(expected):
                raise urllib.error.URLError(f"{path.stat().st_size} of {expected} bytes came")
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if wait is None or refused:
                raise
            time.sleep(wait)


def _find(shards: str, cache: Path, complaints: list[str]) -> list[Shard]:
    """What `data.shards` names, in order, with what the manifests know. Adds to complaints what looks wrong."""
    try:
        urls = expand_urls(shards)
    except (ValueError, AssertionError) as error:  # unbalanced braces; an environment variable that is not set
        raise UserError(f"data.shards={shards}: {error}; write for example 'shard-{{000000..000012}}.tar'") from None
    manifests: dict[str, dict[str, dict[str, Any]]] = {}

    def manifest(folder: str) -> dict[str, dict[str, Any]]:
        if folder not in manifests:
            if folder.startswith(("http:", "https:")):
                read = _remote_manifest(folder)
            else:
                read = None if _is_url(folder) else read_manifest(Path(folder))
            manifests[folder] = {record["file"]: record for record in (read or {}).get("shards", [])}
        return manifests[folder]

    found: list[Shard] = []
    for url in urls:
        url = re.sub(r"^file:(//)?", "", url)
        if url.startswith("pipe:"):
            paths = [url]
        elif url.startswith(("http:", "https:")) and not url.endswith(".tar"):
            paths = [f"{url.rstrip('/')}/{name}" for name in manifest(url.rstrip("/"))]
            if not paths:
                raise UserError(
                    f"data.shards={url}: no manifest.json there; name the tars, as in shard-{{000..012}}.tar"
                )
        elif _is_url(url):
            paths = [url]
        elif os.path.isdir(url):
            names = manifest(url)
            paths = [f"{url}/{name}" for name in names] or sorted(glob.glob(f"{glob.escape(url)}/*.tar"))
            if not names and paths and os.path.isdir(f"{url}/.progress"):
                complaints.append(f"{url}: make_shards has not finished there; give its command again to continue")
        elif glob.has_magic(url):
            paths = sorted(glob.glob(url))
        else:
            paths = [url]
        for path in paths:
            folder, _, name = path.rpartition("/")
            known = {} if path.startswith("pipe:") else manifest(folder or ".").get(name, {})
            found.append(Shard(path, cache, **{k: known[k] for k in ("samples", "bytes", "sha256") if k in known}))
    if not found:
        raise UserError(f"data.shards={shards}: no shards there; {_remedy(shards)}")
    for shard in found:
        if shard.remote:
            continue
        if not os.path.isfile(shard.url):
            listed = " though its manifest lists it" if shard.samples >= 0 else ""
            raise UserError(f"data.shards: {shard.url} is not there{listed}; copy it there, or {_remedy(shards)}")
        size = os.path.getsize(shard.url)
        if shard.bytes not in (-1, size):
            complaints.append(f"{shard.url}: {size} bytes, but the manifest says {shard.bytes}: cut off or replaced")
    return found


def _remote_manifest(folder: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(f"{folder}/manifest.json", timeout=TIMEOUT) as source:
            return json.load(source)
    except (OSError, ValueError):
        return None


def _remedy(shards: str, size: int | str = "SIZE") -> str:
    """The command that would make the shards."""
    out = shards if not _is_url(shards) and not re.search(r"[{*?]|\.tar$|::", shards) else "DIR"
    if "scenes" in shards:
        size = 64 if size == "SIZE" else size
        return f"make them: python scripts/make_shards.py scenes --out {out} --count 20000 --size {size}"
    return (
        "make them: python scripts/make_shards.py coco --images DIR --annotations captions_train2014.json "
        f"--out {out} --size {size}"
    )


# --- samples and their order


class Samples:
    """All samples of a set of shards, by number."""

    def __init__(self, shards: str, cache: str | Path = "shards/.cache"):
        """shards: folder, tar, glob with braces, http(s)://… or pipe:…; several joined by '::'.

        Without a manifest each tar is looked through now, and a remote one fetched, because the count is needed.
        """
        self.source = shards
        self.complaints: list[str] = []  # what looks wrong with the shards
        self.shards = _find(shards, Path(cache), self.complaints)
        for shard in self.shards:
            if shard.samples < 0:
                index = shard.index()
                shard.samples = len(index.keys)
                if not index.whole:
                    self.complaints.append(f"{shard.name}: cut off or damaged after {shard.samples} samples")
        self._open: list[Shard] = []
        self.counts = [shard.samples for shard in self.shards]
        self.starts = [0, *itertools.accumulate(self.counts)]
        if len(self) == 0:
            raise UserError(f"data.shards={shards}: the shards hold no samples; {_remedy(shards)}")

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
                self._open.pop(0).close()
            self._open.append(shard)
        key, members = shard.read(inside)
        try:
            return _parse(f"{shard.name}: {key}", members, number)
        except BadSample as bad:
            raise BadSample(f"{shard.name}: {key}: {bad}") from None


def _parse(where: str, members: dict[str, memoryview], number: int) -> Sample:
    if "json" not in members:
        raise BadSample("no json")
    try:
        meta = json.loads(str(members["json"], "utf-8"))
        if not isinstance(meta["captions"], list):
            raise TypeError("captions are not a list")
        texts = [text for text in meta["captions"] if isinstance(text, str) and text]
        image_id = int(meta.get("image_id", number))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadSample(f"json: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not texts:
        raise BadSample("no captions")
    kind = next((name for name in PICTURES if name in members), None)
    if kind is None:
        raise BadSample("no picture")
    extra = {}
    for name, data in members.items():
        if name.endswith("npy"):
            try:
                extra[name.removesuffix(".npy")] = np.load(io.BytesIO(data), allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise BadSample(f"{name}: {str(error).splitlines()[0]}") from None
    return Sample(where, texts, image_id, meta, extra, members[kind], kind in ("jpg", "jpeg"))


class Order:
    """Position → number of the sample: every epoch a permutation of 0 … count - 1.

    Shards are shuffled, then the samples within each GROUP of them, so that remote shards are needed a few at a time.
    """

    def __init__(self, counts: list[int], seed: int):
        self.counts, self.seed, self.count = counts, seed, sum(counts)
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self._groups: dict[int, list[int]] = {}  # epoch → where its groups begin; the last two used
        self._numbers: dict[tuple[int, int], np.ndarray] = {}  # (epoch, group) → sample numbers, likewise

    def __call__(self, position: int) -> int:
        epoch, offset = divmod(position, self.count)
        begins = self._begins(epoch)
        group = bisect_right(begins, offset) - 1
        return int(self._order(epoch, group)[offset - begins[group]])

    def _shards(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(derive_seed(self.seed, epoch)).permutation(len(self.counts))

    def _begins(self, epoch: int) -> list[int]:
        if epoch not in self._groups:
            sizes = [sum(self.counts[s] for s in group) for group in _groups(self._shards(epoch))]
            _keep(self._groups, epoch, [0, *itertools.accumulate(sizes)][:-1])
        return self._groups[epoch]

    def _order(self, epoch: int, group: int) -> np.ndarray:
        if (epoch, group) not in self._numbers:
            shards = _groups(self._shards(epoch))[group]
            numbers = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in shards])
            order = np.random.default_rng(derive_seed(self.seed, epoch, 1 + group)).permutation(numbers)
            _keep(self._numbers, (epoch, group), order)
        return self._numbers[epoch, group]


def _groups(shards: np.ndarray) -> list[np.ndarray]:
    return [shards[i : i + GROUP] for i in range(0, len(shards), GROUP)]


def _keep(cache: dict, key: Any, value: Any) -> None:
    """Two suffice: a batch may lie across the border of two groups."""
    while len(cache) > 1:
        cache.pop(next(iter(cache)))
    cache[key] = value


# --- batches


@dataclass
class _Rows:
    """A batch on its way from a worker."""

    image: Tensor  # [B, 3, H, W] uint8
    captions: list[str]
    captions2: list[str]
    image_id: list[int]
    extra: dict[str, Tensor]
    broken: list[str]
    replaced: int  # rows whose own sample was broken; a replacement may be broken again


class _Steps(Dataset):
    """Step → this process's rows of its batch; a UserError is returned, not raised."""

    def __init__(self, samples: Samples, seed: int, batch: int, rank: int, world: int, mirror: bool, two: bool):
        self.samples, self.seed, self.batch, self.rank, self.world = samples, seed, batch, rank, world
        self.mirror, self.two = mirror, two
        self.order = Order(samples.counts, seed)
        self.mixed_seed = derive_seed(seed) << 64
        # What every sample must be like; set once one has been seen.
        self.size = torch.Size((3, 0, 0))
        self.extra: dict[str, tuple] = {}  # name → dtype, shape

    def __getitem__(self, step: int) -> _Rows | UserError:
        # An exception would reach the training process as pages of text.
        try:
            return self._rows(step)
        except UserError as error:
            return error

    def _rows(self, step: int) -> _Rows:
        # Interleaved, as Rng gives out its rows, so that neighbours stay together in a process's groups.
        begin = step * self.batch * self.world + self.rank
        positions = range(begin, begin + self.batch * self.world, self.world)
        rngs = [Random(self.mixed_seed | position) for position in positions]
        broken: list[str] = []
        samples, replaced = self._samples([self.order(position) for position in positions], rngs, broken)
        drawn = [captions.draw(sample.captions, rng) for sample, rng in zip(samples, rngs)]

        channels, height, width = self.size
        # In memory as the decoder leaves them, colours innermost.
        image = torch.empty(self.batch, height, width, channels, dtype=torch.uint8).permute(0, 3, 1, 2)
        for row, sample, (one, two), rng in zip(image, samples, drawn, rngs):
            flip = rng.random() < 0.5 and self.mirror
            says_side = flip and (captions.says_side(one) or (self.two and captions.says_side(two)))
            row.copy_(sample.image.flip(-1) if flip and not says_side else sample.image)
        first, second = zip(*drawn)
        ids = [sample.image_id for sample in samples]
        extra = {name: torch.from_numpy(np.stack([sample.extra[name] for sample in samples])) for name in self.extra}
        return _Rows(image, list(first), list(second), ids, extra, broken, replaced)

    def _samples(self, numbers: list[int], rngs: list[Random], broken: list[str]) -> tuple[list[Sample], int]:
        """The samples of these numbers, decoded; in a broken one's place another, drawn from its row's generator.
        And how many were broken, replacements aside."""
        found: dict[int, Sample] = {}
        replaced: set[int] = set()
        for _ in range(TRIES):
            # Reading all and then decoding all is a quarter faster than taking turns: each then has the processor's
            # caches to itself.
            for row, number in enumerate(numbers):
                if row not in found:
                    try:
                        found[row] = self.samples.look_up(number)
                    except BadSample as bad:
                        broken.append(str(bad))
            for row in list(found):
                try:
                    self._check(found[row])
                except BadSample as bad:
                    broken.append(str(bad))
                    del found[row]
            if len(found) == len(numbers):
                return [found[row] for row in range(len(numbers))], len(replaced)
            for row, rng in enumerate(rngs):
                if row not in found:
                    replaced.add(row)
                    numbers[row] = int(rng.random() * len(self.samples))
        raise UserError(f"data.shards: {TRIES} samples in a row are broken ({broken[-1]}); make the shards again")

    def _check(self, sample: Sample) -> None:
        """Raises BadSample where it is unlike the others."""
        if sample.image.shape != self.size:
            raise BadSample(f"{sample.where}: the picture is {_sides(sample.image.shape)}")
        for name, like in self.extra.items():
            value = sample.extra.get(name)
            if value is None or (value.dtype, value.shape) != like:
                raise BadSample(f"{sample.where}: {name}.npy is missing or of another shape")


def _sides(shape: torch.Size) -> str:
    return f"{shape[-1]}×{shape[-2]}"


class Loader:
    """The batches of steps start, start + 1, … for ever.

    Step s of a global batch N = batch · world holds positions s·N … s·N + N - 1, and row j of process `rank` is
    position s·N + j·world + rank. Batch.image lies in memory as torch.channels_last.
    """

    def __init__(
        self,
        shards: str,
        batch: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        mirror: bool = False,
        two_captions: bool = False,
        max_broken: float = 0.01,
        cache: str | Path = "shards/.cache",
        resolution: int | None = None,
    ):
        """batch: rows of this process. resolution: the side that pictures must have; None takes what is there.

        mirror flips half of the pictures (not Batch.extra), never one whose drawn caption says left or right.
        UserError where there are no shards or their pictures have another size, and, while iterating, as soon as
        more than max_broken of the set has turned out to be broken.
        """
        self.samples = Samples(shards, cache)
        self.count = len(self.samples)
        self.start, self.workers, self.max_broken = start, workers, max_broken
        self.read_count = self.broken_count = 0
        self._world = world
        self._offenders: dict[str, None] = {}
        self._steps = _Steps(self.samples, seed, batch, rank, world, mirror, two_captions)
        first = self._first()
        self._steps.size = first.image.shape
        self._steps.extra = {name: (value.dtype, value.shape) for name, value in first.extra.items()}
        self.resolution = first.image.shape[-1]
        if resolution is not None and first.image.shape[1:] != (resolution, resolution):
            raise UserError(
                f"model.resolution={resolution}: the pictures of data.shards={shards} are {_sides(first.image.shape)}; "
                f"set model.resolution, or use another folder and {_remedy(shards, resolution)}"
            )
        if rank == 0:
            for complaint in self.samples.complaints:
                log.warning("%s", complaint)

    def _first(self) -> Sample:
        """Some readable sample, near the beginning."""
        for number in range(min(self.count, TRIES)):
            try:
                return self.samples.read(number)
            except BadSample as bad:
                reason = str(bad)
        raise UserError(f"data.shards={self.samples.source}: no sample can be read ({reason}); make the shards again")

    def __iter__(self) -> Iterator[Batch]:
        for item in spread(self._steps, _From(self.start), self.workers, "data.workers"):
            if isinstance(item, UserError):
                raise item
            self._count(len(item.image), item.replaced, item.broken)
            yield Batch(
                item.image.float().div_(127.5).sub_(1),
                item.captions,
                torch.tensor(item.image_id),
                item.captions2 if self._steps.two else None,
                item.extra,
                item.broken,
            )

    def _count(self, rows: int, replaced: int, broken: list[str]) -> None:
        """Stops the run when more than max_broken of the set is known to be broken."""
        self.read_count += rows
        self.broken_count += replaced
        for line in broken:
            if line not in self._offenders and len(self._offenders) < 1000:
                self._offenders[line] = None
                log.warning("broken sample replaced: %s", line)
        # An epoch meets each broken sample once, so the share is measured against all of the epochs begun: a few bad
        # ones that happen to come first stop nothing. One of several processes may have more than its part of them.
        begin = self.start * rows * self._world
        epochs = (begin + self.read_count * self._world - 1) // self.count - begin // self.count + 1
        allowed = self.max_broken * self.count * epochs / self._world
        if self.broken_count > allowed + (3 * allowed**0.5 if self._world > 1 else 0):
            first = "; ".join(itertools.islice(self._offenders, 3))
            raise UserError(
                f"data.max_broken={self.max_broken}: {self.broken_count} of {self.read_count} samples read are broken "
                f"({self.broken_count / self.read_count:.1%}): {first}; make the shards again or allow more"
            )


class _From:
    """start, start + 1, …"""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)
