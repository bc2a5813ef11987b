"""Work in micro-batches that fit in memory, with the same arithmetic each time."""

from collections.abc import Callable

import torch
from torch import Tensor

from t2i.errors import UserError


class MicroBatches:
    """Work in parts of at most `size` rows, halved from then on when memory runs out."""

    def __init__(self, size: int, device: torch.device):
        self.size, self.device = size, device

    def __call__(self, rows: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        """work: [k, ...] rows → [k, ...]; all of its results."""
        while True:
            try:
                return torch.cat([work(part) for part in rows.split(self.size)])
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # Outside of the handler, whose traceback would keep what is to be freed.
            if self.size == 1:
                raise UserError("out of memory with one picture at a time; use fewer --views or a bigger device")
            self.size = min(self.size, len(rows)) // 2 or 1
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            print(f"out of memory: {self.size} pictures at a time from now on", flush=True)


def deterministic_convolutions():
    """The same convolutions for the same micro-batch, as in Model.stream."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def out_of_memory(error: Exception) -> bool:
    """Accelerators have an error of their own; a CPU raises RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
