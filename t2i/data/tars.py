"""Tars of samples, here or elsewhere: which ones `data.shards` names, and one sample's bytes out of them."""

import glob
import logging
import math
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from webdataset.shardlists import expand_urls

from t2i.data import remote
from t2i.data.manifest import Record, read_manifest
from t2i.errors import UserError, one_line
from t2i.files import is_url

log = logging.getLogger(__name__)

MOST = 1_000_000  # shards that braces may stand for


class BadSample(Exception):
    """A sample that cannot be used, and why."""


@dataclass(eq=False)
class Shard:
    """A tar, here or elsewhere. A remote one is fetched, and its members looked up, when first read."""

    url: str
    cache: Path
    samples: int = -1  # as the manifest says; -1 = not known
    bytes: int = -1
    sha256: str = ""
    clip: str = ""  # fingerprint of the CLIP whose features it holds
    cache_gb: float = 0.0  # as remote.fetch takes it
    _path: Path | None = None
    _index: "_Index | None" = None
    _file: int = -1

    @property
    def name(self) -> str:
        return self.url if self.url.startswith("pipe:") else remote.shown(self.url).rsplit("/", 1)[-1]

    @property
    def remote(self) -> bool:
        return is_url(self.url)

    def path(self) -> Path:
        if self._path is None:
            self._path = Path(self.url)
            if self.remote:
                self._path = remote.fetch(self.url, self.cache, self.bytes, self.sha256, self.cache_gb)
        return self._path

    def index(self) -> "_Index":
        if self._index is None:
            self._index = _Index(self.path())
            if 0 <= self.samples < len(self._index.keys):
                log.warning(
                    "%s: %d samples, of which its manifest counts %d and the rest is not read; make the shards "
                    "again, or take the manifest away",
                    self.name,
                    len(self._index.keys),
                    self.samples,
                )
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
                self._file = self._opened()
            # A read at a place leaves the file's position alone, which forked workers share.
            got = os.preadv(self._file, [data], begin)
        except OSError as error:
            raise UserError(f"data.shards: cannot read {self.path()}: {one_line(error)}; bring it back") from None
        if got < len(data):
            raise BadSample(f"{self.name}: {index.keys[number]}: the tar has become shorter")
        view = memoryview(data)
        members = {}
        for column, name in enumerate(index.names):
            offset, size = spans[2 * column], spans[2 * column + 1]
            if offset:
                members[name] = view[offset - begin : offset - begin + size]
        return index.keys[number], members

    def _opened(self) -> int:
        """Opened again where the cache has let go of it since."""
        while True:
            try:
                return os.open(self.path(), os.O_RDONLY)
            except FileNotFoundError:
                if not self.remote:
                    raise
                self._path = None

    def close(self) -> None:
        """The next read opens it again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()


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
            end = os.path.getsize(path)
            # r: no compression, which would allow no reading from the middle
            with tarfile.open(path, "r:", tarinfo=_Member) as tar:
                before = -1
                for member in tar:
                    # A size that is negative, or that an extended header made so, would lead back or past the end.
                    if not before < tar.offset or member.size < 0 or member.offset_data + member.size > end:
                        raise tarfile.ReadError("a size that cannot be")
                    before = tar.offset
                    if not member.isfile():
                        continue
                    folder, _, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    key = f"{folder}/{stem}" if folder else stem
                    if extension not in self.names:
                        self.names.append(extension)
                    if not self.keys or self.keys[-1] != key:
                        self.keys.append(key)
                        rows.append({})
                    # Of a sparse file not all is there; without a byte it is a broken one.
                    rows[-1][extension] = (member.offset_data, 0 if member.issparse() else member.size)
                # tarfile takes a damaged header for the end: a true end is a block of zeros.
                with open(path, "rb") as file:
                    file.seek(tar.offset)
                    self.whole = file.read(512) == bytes(512)
        except OSError as error:
            raise UserError(f"data.shards: cannot read {path}: {one_line(error)}; bring it back") from None
        except Exception:  # tarfile raises whatever damage leads it to; what came before the damage can be used
            self.whole = False
        self.spans = np.zeros((len(rows), 2 + 2 * len(self.names)), np.int64)
        for i, row in enumerate(rows):
            self.spans[i, 0] = min(offset for offset, _ in row.values())
            self.spans[i, 1] = max(offset + size for offset, size in row.values())
            for name, span in row.items():
                column = 2 + 2 * self.names.index(name)
                self.spans[i, column : column + 2] = span


class _Member(tarfile.TarInfo):
    """A header whose size can be, before tarfile reads so much, or goes there."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        file: Any = tar.fileobj
        if not 0 <= self.size <= os.fstat(file.fileno()).st_size:
            raise tarfile.ReadError("a size that cannot be")
        return super()._proc_member(tar)  # type: ignore[misc]


# --- which shards


def find(shards: str, cache: Path, complaints: list[str], here: bool = False, cache_gb: float = 0.0) -> list[Shard]:
    """What `data.shards` names, in order, with what the manifests know. Adds to complaints what looks wrong.

    here: UserError for what would run or be fetched: of names that are not the user's own word.
    """
    if here and (is_url(shards.removeprefix("file:")) or re.search(r"::|\$", shards)):
        raise UserError(f"data.shards={shards}: not looked at, only shards on this machine are")
    many = math.prod(1 + abs(int(b) - int(a)) for a, b in re.findall(r"(\d{1,20})\.\.(\d{1,20})", shards))
    if many > MOST:
        raise UserError(f"data.shards={shards}: {many} shards; at most {MOST}")
    try:
        urls = expand_urls(shards)
    except (ValueError, AssertionError) as error:  # unbalanced braces; an environment variable that is not set
        raise UserError(f"data.shards={shards}: {error}; write for example 'shard-{{000000..000012}}.tar'") from None
    manifests: dict[str, dict[str, Record]] = {}

    def manifest(folder: str) -> dict[str, Record]:
        if folder not in manifests:
            read = remote.manifest(folder, complaints) if is_url(folder) else read_manifest(Path(folder))
            manifests[folder] = _listed(read, folder)
        return manifests[folder]

    found: list[Shard] = []
    for url in urls:
        url = re.sub(r"^file:(//)?", "", url)
        if here and is_url(url):  # behind braces
            raise UserError(f"data.shards={shards}: not looked at, only shards on this machine are")
        if url.startswith("pipe:"):
            paths = [url]
        elif is_url(url) and not remote.is_tar(url):
            paths = [f"{url.rstrip('/')}/{name}" for name in manifest(url.rstrip("/"))]
            if not paths:
                raise UserError(
                    f"data.shards={url}: no manifest.json there; name the tars, as in shard-{{000..012}}.tar"
                )
        elif is_url(url):
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
            folder, _, name = remote.shown(path).rpartition("/")
            known = {} if path.startswith("pipe:") else manifest(folder or ".").get(name, {})
            found.append(Shard(path, cache, cache_gb=cache_gb, **{k: known[k] for k in _TYPES if k in known}))
    if not found:
        raise UserError(f"data.shards={shards}: no shards there; {remedy(shards)}")
    for shard in found:
        if shard.remote:
            continue
        if not os.path.isfile(shard.url):
            listed = " though its manifest lists it" if shard.samples >= 0 else ""
            raise UserError(f"data.shards: {shard.url} is not there{listed}; copy it there, or {remedy(shards)}")
        size = os.path.getsize(shard.url)
        if shard.bytes not in (-1, size):
            complaints.append(f"{shard.url}: {size} bytes, but the manifest says {shard.bytes}: cut off or replaced")
    return found


_TYPES: dict[str, type] = {"samples": int, "bytes": int, "sha256": str, "clip": str}


def _listed(manifest: Any, folder: str) -> dict[str, Record]:
    """File name → record of a manifest, which may be anybody's: files beside it, numbers that are some."""
    if manifest is None:
        return {}
    try:
        records = {record["file"]: record for record in manifest["shards"]}
        for name, record in records.items():
            if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
                raise ValueError(f"names {name!r}, which is no file beside it")
            for key, kind in _TYPES.items():
                value = record.get(key, kind())
                if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**50):
                    raise ValueError(f"{name}: {key}={value!r}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}/manifest.json: damaged ({one_line(error)}); bring it back, or take it away"
        ) from None
    return records


def remedy(shards: str, size: int | str = "SIZE") -> str:
    """The command that would make the shards."""
    out = shards if not is_url(shards) and not re.search(r"[{*?]|\.tar$|::", shards) else "DIR"
    if "scenes" in shards:
        size = 64 if size == "SIZE" else size
        return f"make them: python scripts/make_shards.py scenes --out {out} --count 20000 --size {size}"
    return (
        "make them: python scripts/make_shards.py coco --images DIR --annotations captions_train2014.json "
        f"--out {out} --size {size}"
    )
