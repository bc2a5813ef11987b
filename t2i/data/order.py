"""The order of the samples: shuffled anew every epoch, known for any position without going through those before."""

import itertools
from bisect import bisect_right
from typing import Any

import numpy as np

from t2i.rng import derive_seed

GROUP = 16  # shards shuffled together: the most that must be at hand at a time


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
        """The sample's number at a position 0, 1, 2, … of the run."""
        return self.take(range(position, position + 1))[0]

    def take(self, positions: range) -> list[int]:
        """The same of many positions, which ascend."""
        numbers: list[int] = []
        while positions:
            epoch, offset = divmod(positions[0], self.count)
            begins = self._begins(epoch)
            group = bisect_right(begins, offset) - 1
            order = self._order(epoch, group)
            found = order[offset - begins[group] :: positions.step][: len(positions)].tolist()
            numbers += found
            positions = positions[len(found) :]
        return numbers

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
