"""Items computed ahead, in order, by other processes."""

import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from t2i import files
from t2i.errors import UserError


def compute_ahead(items: Dataset, order: Iterable[int], workers: int, option: str) -> Iterator[Any]:
    """items[i] for i in order, in that order, computed ahead by `workers` processes, or by this one for 0.

    Large results should be tensors. UserError, naming the option, where a process was killed. torch's DataLoader
    underneath: it bounds what waits in memory, and its processes end when this one is killed.
    """
    if not workers:
        yield from (items[i] for i in order)
        return
    handler = signal.getsignal(signal.SIGCHLD)
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
    if handler is not None and threading.current_thread() is threading.main_thread():
        # torch's own handler raises in whatever the main process is doing when a worker dies, such as writing a
        # checkpoint; asking for the next item notices it too.
        signal.signal(signal.SIGCHLD, handler)
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
    files.end_with_parent()
