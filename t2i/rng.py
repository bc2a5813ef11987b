"""Random numbers that do not depend on how a batch is split: over processes, workers or generation batches."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int) -> int:
    """Mixes integers (seed, step, ...) into one 63-bit seed; neighbouring inputs give unrelated seeds."""
    # The count first: SeedSequence pads with zeros, and (7,) would be (7, 0).
    state = np.random.SeedSequence([len(parts), *(p % 2**64 for p in parts)]).generate_state(1, np.uint64)
    return int(state[0] >> 1)


class Rng:
    """One process's rows of the random numbers of a global batch.

    Every process draws the same numbers for the whole global batch and keeps rows rank, rank + world, ...
    (the same rows that the loader gives it), so N processes of batch B see what one process of batch N·B sees.
    """

    def __init__(self, *seed: int, rank: int = 0, world: int = 1, device: str | torch.device = "cpu"):
        self.rank, self.world, self.device = rank, world, torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(derive_seed(*seed))

    def _rows(self, draw, batch: int, shape: tuple[int, ...]) -> Tensor:
        everyone = draw(batch * self.world, *shape, generator=self.generator, device=self.device)
        return everyone[self.rank :: self.world]

    def randn(self, batch: int, *shape: int) -> Tensor:
        """[batch, *shape] float32, N(0, 1)."""
        return self._rows(torch.randn, batch, shape)

    def rand(self, batch: int, *shape: int) -> Tensor:
        """[batch, *shape] float32, uniform in [0, 1)."""
        return self._rows(torch.rand, batch, shape)

    def uniform(self) -> float:
        """One number in [0, 1), the same on every process."""
        return float(torch.rand((), generator=self.generator, device=self.device))


class SampleRng:
    """One independent stream a sample, so that a picture depends on its own seed and not on its batch."""

    def __init__(self, seeds: Sequence[int], device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        # Drawn on the CPU: a seed means the same picture's latent on every device.
        self.generators = [torch.Generator("cpu").manual_seed(derive_seed(s)) for s in seeds]

    def _stack(self, draw, batch: int, shape: tuple[int, ...]) -> Tensor:
        if batch != len(self.generators):
            raise ValueError(f"asked for {batch} rows of random numbers but there are {len(self.generators)} seeds")
        return torch.stack([draw(*shape, generator=g) for g in self.generators]).to(self.device)

    def randn(self, batch: int, *shape: int) -> Tensor:
        """[batch, *shape] float32, N(0, 1)."""
        return self._stack(torch.randn, batch, shape)

    def rand(self, batch: int, *shape: int) -> Tensor:
        """[batch, *shape] float32, uniform in [0, 1)."""
        return self._stack(torch.rand, batch, shape)
