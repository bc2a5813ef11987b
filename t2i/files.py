"""Files and processes: written whole or not at all, locked for one at a time, known by their digests, downloaded.

Libraries are imported where they are used: most who import this file need none of them, and commands answer at once.
"""

import ctypes
import hashlib
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2i.errors import UserError, one_line

ANSWER = 5  # seconds until a server that does not answer counts as unreachable
BUSY = (408, 425, 429)  # answers of a server that should be asked again
TIMEOUT = 60  # seconds without a byte before a download is given up


# ---- written whole or not at all


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to. At the end it is on the disk and takes the place of `path`, whose
    readers see the old or the new one; after an error it is gone and `path` as it was."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_figures(path: Path, value: Any, option: str = "--json") -> None:
    """What a command's --json, or another option, asks for. UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, value)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; choose another file") from None


def read_json(path: Path) -> Any:
    """None where there is no such file, or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk: a rename must not overtake what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- for one process at a time


@contextmanager
def lock(path: Path, taken: str = "") -> Iterator[None]:
    """Holds the lock file `path`, which stays there. Raises OSError where it cannot be written.

    taken: what to say, as a UserError, where another process holds it; without, this waits for that process. Forked
    processes (a loader's workers) do not inherit it, and it ends with its process however that ends.
    """
    from filelock import FileLock, Timeout

    held = FileLock(path)
    try:
        held.acquire(timeout=0 if taken else -1)
    except Timeout:
        raise UserError(taken) from None
    try:
        yield
    finally:
        held.release()


def end_with_parent() -> None:
    """Lets the kernel kill this process as soon as the one that started it is gone, however that ended; on Linux.

    Elsewhere torch's workers ask for their parent every few seconds.
    """
    if sys.platform == "linux":
        parent = multiprocessing.parent_process()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if parent and os.getppid() != parent.pid:  # it was gone before
            os._exit(1)


# ---- digests


def sha256(path: Path) -> str:
    """Of the file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- from elsewhere


class NotThereError(OSError):
    """The server answers that there is no such thing, or not for us."""


def is_url(text: str) -> bool:
    return re.match(r"[a-z][a-z0-9+]*:", text) is not None


def fetch(url: str, path: Path, attempts: int = 3, progress: bool = False) -> None:
    """Downloads what any of fsspec's file systems has (http:, https:, s3:, gs:, hf:, ...). Raises OSError, whose
    text is one line; then there may be part of it at `path`."""
    from fsspec.callbacks import DEFAULT_CALLBACK, TqdmCallback

    callback = TqdmCallback({"unit": "B", "unit_scale": True}) if progress else DEFAULT_CALLBACK
    _ask(url, lambda system, remote: system.get_file(remote, str(path), callback=callback), attempts)


def read(url: str, attempts: int = 3) -> bytes:
    """The same into memory."""
    return _ask(url, lambda system, remote: system.cat_file(remote), attempts)


def _ask(url: str, question: Callable[[Any, str], Any], attempts: int) -> Any:
    """question(file system, path there), asked again where the network or the server failed."""
    import fsspec

    asked = ""
    options: dict[str, Any] = {"skip_instance_cache": True}  # an instance of this process, whoever forked it
    if url.startswith(("http:", "https:")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER, sock_read=TIMEOUT)
        options |= {"client_kwargs": {"trust_env": True, "timeout": timeout}}  # proxies are named in the environment
    wait = 1
    while True:
        try:
            return question(*fsspec.core.url_to_fs(url, **options))
        except FileNotFoundError:  # what fsspec makes of HTTP's 404
            raise NotThereError("404, it is not there" if url.startswith("http") else "it is not there") from None
        except Exception as error:  # each file system has errors of its own
            status = getattr(error, "status", None)  # of an HTTP answer
            here = isinstance(error, OSError) and error.filename is not None  # no room, for example
            refused = isinstance(error, ValueError | ImportError) or (status or 0) in range(400, 500)
            attempts -= 1
            if status in (403, 410):
                raise NotThereError(f"HTTP {status}") from None
            if here or (refused and status not in BUSY) or not attempts:
                raise OSError(f"HTTP {status}" if status else one_line(error)) from None
            asked = (getattr(error, "headers", None) or {}).get("Retry-After", "")
        time.sleep(min(int(asked), TIMEOUT) if asked.isdecimal() else wait)
        wait *= 3


def download(name: str, url: str, target: Path) -> None:
    """Fetches `url` unless `target` is there. Raises UserError with the command that would do it; name: for whom.

    Where the file's name holds the start of its SHA-256, as torch's do, that is checked.
    """
    if target.is_file():
        return
    import huggingface_hub

    try:
        if huggingface_hub.is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        print(f"{name}: fetching {url}", file=sys.stderr)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as temporary:
            fetch(url, temporary, attempts=1, progress=sys.stderr.isatty())
            digest = re.search(r"-([0-9a-f]{8,})\.", target.name)
            if digest and not sha256(temporary).startswith(digest[1]):
                raise OSError(f"what came has another SHA-256 than {digest[1]}…")
    except OSError as error:
        raise UserError(
            f"{name}: {target} is not on this machine and could not be fetched ({one_line(error)}); "
            f"fetch it with: curl -L --create-dirs -o {target} {url}"
        ) from None
