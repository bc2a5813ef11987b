"""Time and memory of a call, and the convolutions in it."""

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def clock(device: torch.device) -> float:
    """Seconds: of the wall for a GPU, whose work is waited for; on a CPU of the processor, a thread, so that other
    programs count little."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def seconds(function: Callable[[], Any], repeat: int, device: torch.device) -> float:
    """The median of `repeat` calls after one to warm up."""
    times = []
    for _ in range(repeat + 1):
        start = clock(device)
        function()
        times.append(clock(device) - start)
    return statistics.median(times[1:])


def kept(forward: Callable[[], Tensor]) -> int:
    """Bytes that a graph holds for its backward pass."""
    storages: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        result = forward()
    size = sum(storages.values())
    del result
    return size


class Convolutions(TorchDispatchMode):
    """Notes the dense convolutions, forward and backward, that run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("convolution", "convolution_backward"):
            groups = args[8] if name == "convolution" else args[9]
            if groups == 1:
                self.calls.append((func, tuple(_describe(x) for x in args)))
        return func(*args, **(kwargs or {}))

    def make(self, device: torch.device) -> None:
        """Random tensors like those seen, so that `replay` times nothing but the convolutions."""
        self.made = [(f, [x.make(device) if isinstance(x, _Like) else x for x in args]) for f, args in self.calls]

    def replay(self) -> None:
        for func, args in self.made:
            func(*args)


class _Like(SimpleNamespace):
    """Shape, strides and type of a tensor."""

    def make(self, device: torch.device) -> Tensor:
        return torch.randn(self.shape, device=device).to(self.dtype).to(memory_format=self.layout)


def _describe(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return _Like(shape=x.shape, dtype=x.dtype, layout=torch.channels_last if last else torch.contiguous_format)
