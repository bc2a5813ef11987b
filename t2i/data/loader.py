"""WebDataset shards → batches: the same samples for a seed and a position, whatever the number of processes and
workers and the size of the batches.

The samples of a run are numbered 0, 1, 2, … over all its processes; a sample's number is its position, and everything
is a function of it. Position p is sample p mod count of epoch p div count, in that epoch's order; caption and flip are
drawn from (seed, p). So a run resumes at the exact sample by starting at its position, with another batch size if need
be, and nothing about the loader needs to be saved.
"""

import copy
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from t2i.data import captions
from t2i.data.order import Order
from t2i.data.samples import Sample, Samples, decode
from t2i.data.tars import BadSample, remedy
from t2i.data.workers import compute_ahead
from t2i.errors import UserError
from t2i.interfaces import Batch
from t2i.rng import derive_seed

TRIES = 20  # samples tried in place of one broken one
ASKED = 5  # of the first samples, what all should be like

log = logging.getLogger(__name__)


# What make_shards --clip stores of a sample, and what becomes of it here.
CLIP_IMAGE = "clip_image"  # [2, C] CLIP's features of the picture and of its mirror image → those of the one shown
CLIP_TEXT = "clip_text"  # [captions, C] CLIP's features of the captions → the drawn one's; clip_text2 the second's


@dataclass
class _Rows:
    """A batch on its way from a worker."""

    image: Tensor  # [B, 3, H, W] uint8
    captions: list[str]
    captions2: list[str]
    image_id: list[int]
    extra: dict[str, Tensor]
    broken: list[str]
    replaced: int  # rows whose own sample was broken; a replacement may be broken again


@dataclass
class _Batches(Dataset):
    """Position at which a batch begins → this process's rows of it; a UserError is returned, not raised."""

    samples: Samples
    seed: int
    batch: int
    rank: int
    world: int
    mirror: bool
    two: bool
    word_dropout: float
    paraphrase: float

    def __post_init__(self) -> None:
        self.order = Order(self.samples.counts, self.seed)
        self.key = derive_seed(self.seed)
        self.varied = self.word_dropout > 0 or self.paraphrase > 0
        # What every sample must be like; set once one has been seen.
        self.size = torch.Size((3, 0, 0))
        self.extra: dict[str, tuple] = {}  # name → dtype, shape

    def like(self, sample: Sample) -> None:
        """All samples must have a picture of this one's size and fields of its shapes."""
        self.size = sample.image.shape
        self.extra = {name: (value.dtype, value.shape) for name, value in sample.extra.items()}
        if self.varied:  # the stored features are of captions as they were written
            self.extra.pop(CLIP_TEXT, None)

    def __getitem__(self, begin: int) -> _Rows | UserError:
        # An exception would reach the training process as pages of text.
        try:
            return self._rows(begin)
        except UserError as error:
            return error

    def _rows(self, begin: int) -> _Rows:
        # Interleaved, as Rng gives out its rows, so that neighbours stay together in a process's groups.
        everyone = self.batch * self.world
        numbers = self.order.take(range(begin + self.rank, begin + everyone, self.world))
        # Four numbers in [0, 1) a position. Philox encrypts a counter into four numbers, so a position's are those of
        # one value of the counter, whatever batch it comes in and wherever the run was started.
        random = np.random.Generator(np.random.Philox(key=self.key, counter=begin)).random((everyone, 4))
        draws = random[self.rank :: self.world].tolist()
        rngs = _Rngs([rest for *_, rest in draws])
        broken: list[str] = []
        samples, replaced = self._samples(numbers, rngs, broken)

        drawn = [captions.draw(sample.captions, one, two) for sample, (one, two, *_) in zip(samples, draws)]
        first, second = ([s.captions[pair[which]] for s, pair in zip(samples, drawn)] for which in (0, 1))
        if self.varied:
            self._vary(samples, drawn, rngs, first, second)
        flips = [self.mirror and flip < 0.5 for _, _, flip, _ in draws]
        for row, (one, two) in enumerate(zip(first, second)):
            if flips[row] and (captions.says_side(one) or (self.two and captions.says_side(two))):
                flips[row] = False

        _, height, width = self.size
        # In memory as the decoder leaves them, colours innermost.
        image = torch.cat([sample.image.permute(1, 2, 0) for sample in samples])
        image = image.view(self.batch, height, width, 3).permute(0, 3, 1, 2)
        for row, flip in enumerate(flips):
            if flip:
                image[row] = image[row].flip(-1)
        ids = [sample.image_id for sample in samples]
        return _Rows(image, first, second, ids, self._fields(samples, drawn, flips), broken, replaced)

    def _vary(
        self,
        samples: list[Sample],
        drawn: list[tuple[int, int]],
        rngs: "_Rngs",
        first: list[str],
        second: list[str],
    ) -> None:
        """Varies captions in place, each row by its own generator."""
        for row, (sample, (one, two)) in enumerate(zip(samples, drawn)):
            varied = [
                captions.vary(n, sample.captions, self.word_dropout, self.paraphrase, rngs[row]) for n in (one, two)
            ]
            if varied[0] != varied[1] or one == two:  # else two that should differ have become the same
                first[row], second[row] = varied

    def _fields(self, samples: list[Sample], drawn: list[tuple[int, int]], flips: list[bool]) -> dict[str, Tensor]:
        fields = {}
        for name in self.extra:
            values = [sample.extra[name] for sample in samples]
            if name == CLIP_IMAGE:
                values = [value[int(flip)] for value, flip in zip(values, flips)]
            elif name == CLIP_TEXT:
                if self.two:
                    seconds = np.stack([value[two] for value, (_, two) in zip(values, drawn)])
                    fields[f"{name}2"] = torch.from_numpy(seconds)
                values = [value[one] for value, (one, _) in zip(values, drawn)]
            fields[name] = torch.from_numpy(np.stack(values))
        return fields

    def _samples(self, numbers: list[int], rngs: "_Rngs", broken: list[str]) -> tuple[list[Sample], int]:
        """The samples of these numbers, decoded; in a broken one's place another, drawn from its row's generator.
        And how many were broken, replacements aside."""
        found: dict[int, Sample] = {}
        replaced: set[int] = set()
        for _ in range(TRIES):
            # Reading all and then decoding all is a quarter faster than taking turns: each then has the processor's
            # caches to itself.
            for row, number in enumerate(numbers):
                if row not in found:
                    try:
                        found[row] = self.samples.look_up(number)
                    except BadSample as bad:
                        broken.append(str(bad))
            decode(list(found.values()))
            for row in list(found):
                try:
                    self._check(found[row])
                except BadSample as bad:
                    broken.append(str(bad))
                    del found[row]
            if len(found) == len(numbers):
                return [found[row] for row in range(len(numbers))], len(replaced)
            for row in range(len(numbers)):
                if row not in found:
                    replaced.add(row)
                    numbers[row] = int(rngs[row].random() * len(self.samples))
        raise UserError(f"data.shards: {TRIES} samples in a row are broken ({broken[-1]}); make the shards again")

    def _check(self, sample: Sample) -> None:
        """Raises BadSample where it is unlike the others."""
        if sample.image.shape != self.size:
            raise BadSample(f"{sample.where}: the picture is {_sides(sample.image.shape)}")
        check_features(sample)
        for name, (dtype, shape) in self.extra.items():
            value = sample.extra.get(name)
            if name == CLIP_TEXT:
                shape = (len(sample.captions), *shape[1:])
            if value is None or (value.dtype, value.shape) != (dtype, shape):
                raise BadSample(f"{sample.where}: {name}.npy is missing or of another shape")


def check_features(sample: Sample) -> None:
    """Raises BadSample where stored features are not what make_shards --clip stores."""
    for name, rows in ((CLIP_IMAGE, 2), (CLIP_TEXT, len(sample.captions))):
        value = sample.extra.get(name)
        if value is not None and (value.ndim != 2 or len(value) != rows or value.dtype.kind != "f"):
            raise BadSample(f"{sample.where}: {name}.npy is {value.dtype} {value.shape}, not {rows} rows of numbers")


def _layout(sample: Sample) -> Any:
    """What a sample must have in common with the others."""
    fields = {n: (x.dtype, x.shape if n != CLIP_TEXT else x.shape[1:]) for n, x in sample.extra.items()}
    return sample.image.shape, fields


class _Rngs:
    """A generator a row, made when it is first asked for: most batches need none."""

    def __init__(self, seeds: list[float]):
        self.seeds, self.made = seeds, dict[int, Random]()

    def __getitem__(self, row: int) -> Random:
        if row not in self.made:
            self.made[row] = Random(int(self.seeds[row] * 2**53))
        return self.made[row]


def _to_float(image: Tensor) -> Tensor:
    """uint8 → float32 in [-1, 1]: 0 → -1 and 255 → 1 exactly."""
    out = torch.empty(image.shape, memory_format=torch.channels_last)
    rows = max(2**18 // image[0].numel(), 1)  # at a time, that the second and third pass find them in the cache
    for part, whole in zip(image.split(rows), out.split(rows)):
        whole.copy_(part).mul_(1 / 127.5).sub_(1)
    return out


def _sides(shape: torch.Size) -> str:
    return f"{shape[-1]}×{shape[-2]}"


class Loader:
    """The batches of a run that has been shown `start` samples, over all its processes, for ever.

    Of `world` processes that take `batch` rows each, N = batch · world together, step k = 0, 1, … holds positions
    start + k·N … start + (k + 1)·N - 1, and row j of process `rank` is position start + k·N + j·world + rank.
    Batch.image lies in memory as torch.channels_last.
    """

    def __init__(
        self,
        shards: str,
        batch: int,
        *,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 1,
        mirror: bool = False,
        two_captions: bool = False,
        word_dropout: float = 0.0,
        paraphrase: float = 0.0,
        max_broken: float = 0.01,
        cache: str | Path = "shards/.cache",
        cache_gb: float = 0.0,
        resolution: int | None = None,
    ):
        """batch: rows of this process. resolution: the side that pictures must have; None takes what is there.

        mirror flips half of the pictures, never one whose drawn caption says left or right. word_dropout and
        paraphrase vary the drawn captions (see t2i/data/captions.py). Of Batch.extra only the features that
        make_shards --clip stores follow caption and flip.
        UserError where there are no shards or their pictures have another size, and, while iterating, as soon as
        more than max_broken of the set has turned out to be broken.
        """
        self.samples = Samples(shards, cache, cache_gb=cache_gb)
        self.count = len(self.samples)
        self.start, self.workers, self.max_broken = start, workers, max_broken
        self.read_count = self.broken_count = 0
        self._world = world
        self._offenders: dict[str, None] = {}
        self._batches = _Batches(self.samples, seed, batch, rank, world, mirror, two_captions, word_dropout, paraphrase)
        first = self._first()
        self._batches.like(first)
        self.resolution = first.image.shape[-1]
        if resolution is not None and first.image.shape[1:] != (resolution, resolution):
            raise UserError(
                f"model.resolution={resolution}: the pictures of data.shards={shards} are {_sides(first.image.shape)}; "
                f"set model.resolution, or use another folder and {remedy(shards, resolution)}"
            )
        if rank == 0:
            for complaint in self.samples.complaints:
                log.warning("%s", complaint)

    def continued(self, start: int, batch: int, two_captions: bool) -> "Loader":
        """The same samples from another one on, in batches of another size: without opening the shards again."""
        other = copy.copy(self)
        other.start, other.read_count, other.broken_count, other._offenders = start, 0, 0, {}
        other._batches = copy.copy(self._batches)
        other._batches.batch, other._batches.two, other._batches.extra = batch, two_captions, dict(self._batches.extra)
        return other

    @property
    def fields(self) -> set[str]:
        """Names of Batch.extra, but for clip_text2, which is where clip_text and two captions are."""
        return set(self._batches.extra)

    def leave_out(self, *names: str) -> None:
        """No batch of a later iteration has these fields."""
        for name in names:
            self._batches.extra.pop(name, None)

    def _first(self) -> Sample:
        """A readable sample near the beginning, like most of those there: the very first may be the odd one."""
        found: list[Sample] = []
        reason = "the first are broken"
        for number in range(min(self.count, TRIES)):
            try:
                sample = self.samples.read(number)
                check_features(sample)
                found.append(sample)
            except BadSample as bad:
                reason = str(bad)
            if len(found) == ASKED:
                break
        if not found:
            raise UserError(
                f"data.shards={self.samples.source}: no sample can be read ({reason}); make the shards again"
            )
        kinds = [_layout(sample) for sample in found]
        return found[kinds.index(max(kinds, key=kinds.count))]

    def first_captions(self, count: int) -> list[str]:
        """The first caption each of the first readable samples that differ in it: the same for any start."""
        found: dict[str, None] = {}
        for number in range(self.count):
            if len(found) == count:
                break
            try:
                found[self.samples.look_up(number).captions[0]] = None
            except BadSample:
                continue
        return list(found)

    def __iter__(self) -> Iterator[Batch]:
        begins = itertools.count(self.start, self._batches.batch * self._world)
        for item in compute_ahead(self._batches, begins, self.workers, "data.workers"):
            if isinstance(item, UserError):
                raise item
            self._count(len(item.image), item.replaced, item.broken)
            yield Batch(
                _to_float(item.image),
                item.captions,
                torch.tensor(item.image_id),
                item.captions2 if self._batches.two else None,
                item.extra,
                item.broken,
            )

    def _count(self, rows: int, replaced: int, broken: list[str]) -> None:
        """Stops the run when more than max_broken of the set is known to be broken."""
        self.read_count += rows
        self.broken_count += replaced
        for line in broken:
            if line not in self._offenders and len(self._offenders) < 1000:
                self._offenders[line] = None
                log.warning("broken sample replaced: %s", line)
        # An epoch meets each broken sample once, so the share is measured against all of the epochs begun: a few bad
        # ones that happen to come first stop nothing. One of several processes may have more than its part of them.
        end = self.start + self.read_count * self._world
        epochs = (end - 1) // self.count - self.start // self.count + 1
        allowed = self.max_broken * self.count * epochs / self._world
        if self.broken_count > allowed + (3 * allowed**0.5 if self._world > 1 else 0):
            first = "; ".join(itertools.islice(self._offenders, 3))
            raise UserError(
                f"data.max_broken={self.max_broken}: {self.broken_count} of {self.read_count} samples read are broken "
                f"({self.broken_count / self.read_count:.1%}): {first}; make the shards again or allow more"
            )
