"""Features as they are gathered, block by block, in memory or, where they are many, on the disk."""

import os
import tempfile
from typing import Any

import torch
from torch import Tensor

SPILL = 1 << 30  # bytes of all rows of a feature from which they lie in a temporary file


class Rows:
    """Rows of a feature of about `count` pictures. Where they would take more than SPILL bytes they are written to a
    file of the system's folder for such (TMPDIR), which is gone when its tensor is: the patches of 16,384 pictures of
    256 pixels take 3 GB a set."""

    def __init__(self, count: int):
        self.count = count
        self.kept: list[Tensor] = []
        self.file: Any = None

    def append(self, rows: Tensor) -> None:
        """rows [n, ...] on the CPU, all but the last of as many as the first."""
        if not self.kept:
            self.kept.append(rows)
            if len(rows) and rows.nbytes / len(rows) * self.count > SPILL:
                self.file = tempfile.NamedTemporaryFile(prefix="t2i-rows-")  # noqa: SIM115 (it lives as long as this)
                self.kept = [rows[:0]]
                self.length = 0
        elif not self.file:
            self.kept.append(rows)
        if self.file:
            self.file.write(rows.contiguous().flatten().view(torch.uint8).numpy().data)
            self.length += len(rows)

    def whole(self) -> Tensor:
        """All rows in order. Ends the gathering."""
        if not self.file:
            return torch.cat(self.kept)
        shape, dtype = (self.length, *self.kept[0].shape[1:]), self.kept[0].dtype
        self.file.flush()
        size = os.path.getsize(self.file.name) // dtype.itemsize
        mapped = torch.from_file(self.file.name, shared=False, size=size, dtype=dtype)
        self.file.close()  # removed; what is mapped stays until the tensor goes
        return mapped.reshape(shape)
