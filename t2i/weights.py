"""Weights of a model folder: written with their digest, and read only if they are whole, finite and of a network that
they could fill. A description that comes with them may be anybody's."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from t2i.errors import UserError, one_line
from t2i.files import sha256

AGAIN = "copy or make it again"


def write(file: Path, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """dtype: what floating-point tensors become; None: they stay. UserError where one is not finite."""
    stored = {}
    for name, value in state.items():
        kept = value.detach().to("cpu", dtype if value.is_floating_point() else None)
        if not torch.isfinite(kept).all():
            raise UserError(
                f"{file.parent}: weight {name} is not finite{f' as {dtype}' if dtype else ''}; nothing written"
            )
        stored[name] = kept.clone(memory_format=torch.contiguous_format)  # two names may share one storage
    file.write_bytes(safetensors.torch.save(stored))


def check_digest(file: Path, digests: Mapping[str, str]) -> None:
    """UserError where a file is not what its folder's description says. One that it does not name passes."""
    said = digests.get(file.name)
    if said is None:
        return
    try:
        digest = sha256(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)}); {AGAIN}") from None
    if digest != said:
        raise UserError(
            f"{file}: cannot be read: its SHA-256 is {digest[:12]}…, model.json says {said[:12]}…: cut off, "
            f"damaged or of another model; {AGAIN}"
        )


def check_finite(state: Any, where: str, name: str = "") -> None:
    """UserError with the name of the first tensor in nested mappings and lists that is not finite."""
    if isinstance(state, Tensor):
        if state.is_floating_point() and not torch.isfinite(state).all():
            raise UserError(f"{where}: {name} is not finite; {AGAIN}")
    elif isinstance(state, Mapping):
        for key, value in state.items():
            check_finite(value, where, f"{name}.{key}" if name else str(key))
    elif isinstance(state, list | tuple):
        for n, value in enumerate(state):
            check_finite(value, where, f"{name}[{n}]")


def load(file: Path, digests: Mapping[str, str], build: Callable[[], nn.Module]) -> nn.Module:
    """build() with the weights of a file. UserError in one line where they are not what they should be, or the network
    is one that they could never fill, before it takes the machine's memory."""
    check_digest(file, digests)
    try:
        state = safetensors.torch.load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)}); {AGAIN}") from None
    check_finite(state, str(file))
    misfit = f"{file}: does not fit the config in model.json"
    try:
        with _Bounded(state):
            network = build()
        network.load_state_dict(state)
    except (RuntimeError, OverflowError, MemoryError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{misfit} ({one_line(error)}); {AGAIN}") from None
    return network


class _Bounded(TorchDispatchMode):
    """Building a network may make tensors of a few times as many numbers as there are weights for it; and of frozen
    networks in it, which have theirs elsewhere."""

    FACTORIES = ("aten::empty", "aten::randn", "aten::rand", "aten::zeros", "aten::ones", "aten::full")

    def __init__(self, state: Mapping[str, Tensor]):
        super().__init__()
        self.numbers = 16 * sum(x.numel() for x in state.values()) + 2**29
        self.tensors = 50 * len(state) + 5000

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().partition(".")[0] in self.FACTORIES and args and isinstance(args[0], list | tuple):
            self.numbers -= math.prod(args[0])
            self.tensors -= 1
            if self.numbers < 0 or self.tensors < 0:
                raise RuntimeError("it asks for a far larger network than there are weights for")
        return func(*args, **(kwargs or {}))
