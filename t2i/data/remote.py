"""Tars that are elsewhere: fetched whole or not at all into a cache that processes share, and let go of again."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from webdataset.gopen import gopen

from t2i import files
from t2i.errors import UserError, one_line


def shown(url: str) -> str:
    """An address without its query, which may hold a token; commands as they are."""
    return url if url.startswith("pipe:") else url.partition("?")[0]


def is_tar(url: str) -> bool:
    return urlsplit(url).path.endswith(".tar")


def fetch(url: str, cache: Path, size: int = -1, sha256: str = "", most_gb: float = 0.0) -> Path:
    """The tar's copy in the cache, fetched where it is not there: once for all processes, of the size and the digest
    that its manifest states (-1, "": none), and a tar. UserError otherwise.

    most_gb: more than so much in the cache, and what was used longest ago goes; 0: all stays.
    """
    label = re.sub(r"[^\w.-]+", "-", shown(url).rsplit("/", 1)[-1])[-40:].removesuffix(".tar")
    path = cache / f"{hashlib.sha256(f'{url} {sha256}'.encode()).hexdigest()[:16]}-{label}.tar"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with files.lock(Path(f"{path}.lock")):
            if path.exists() and size in (-1, path.stat().st_size):
                with contextlib.suppress(OSError):  # what a cache on a read-only disk does not need
                    os.utime(path)
                return path
            with files.replacing(path) as temporary:
                _download(url, temporary)
                _check(temporary, size, sha256)
        if most_gb:
            _let_go(cache, path, most_gb)
    except OSError as error:
        raise UserError(
            f"data.shards: cannot fetch {shown(url)} to {cache} ({one_line(error)}); check the address, the "
            "network and the free space, and start again"
        ) from None
    return path


def _download(url: str, path: Path) -> None:
    """Raises OSError."""
    if url.startswith("pipe:"):
        with gopen(url, "rb") as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
    else:
        files.fetch(url, path)


def _check(path: Path, size: int, sha256: str) -> None:
    """Raises OSError where a file is not what its manifest says, or is no tar: a page of a portal, for example."""
    found = path.stat().st_size
    if size not in (-1, found):
        raise OSError(f"{found} bytes came, the manifest says {size}")
    if sha256:
        if (digest := files.sha256(path)) != sha256:
            raise OSError(f"what came has the SHA-256 {digest[:12]}…, the manifest says {sha256[:12]}…")
        return
    with open(path, "rb") as file:
        start = file.read(512)
    try:
        if start != bytes(512):  # which is a tar of nothing
            tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise OSError(f"what came is no tar; it begins with {start[:40]!r}") from None


def _let_go(cache: Path, newest: Path, most_gb: float) -> None:
    """Removes tars, those used longest ago first, until the rest fits. Whoever has one open reads on."""
    with files.lock(cache / ".evict.lock"):
        known = []
        for path in cache.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                known.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total <= most_gb * 2**30:
                break
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size


def manifest(folder: str, complaints: list[str]) -> Any:
    """The manifest of a folder elsewhere; None where there is none. UserError where that cannot be known."""
    try:
        text = files.read(f"{folder}/manifest.json")
    except files.NotThereError:
        return None
    except OSError as error:
        raise UserError(
            f"data.shards: cannot fetch {folder}/manifest.json ({one_line(error)}); check the address and the network, "
            "and start again"
        ) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        complaints.append(f"{folder}/manifest.json: what came is no JSON; going on without it")
        return None
