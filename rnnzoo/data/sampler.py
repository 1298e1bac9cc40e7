"""Which samples make which batch: a pure function of seed, epoch, step, rank and number of processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import TypeVar

import numpy as np
from torch.utils.data import Sampler

from rnnzoo.errors import InputError

SPARE = 25  # batches of limited size to one that is spare, since epochs need some more or fewer of them
ItemT = TypeVar("ItemT")
POOL = 50  # batches whose samples are sorted by length together: enough to pad little, few enough to stay random


class EpochSampler(Sampler[list[ItemT]], ABC):
    """Batches that differ from epoch to epoch; a training that is resumed may begin at any of them."""

    def __init__(self) -> None:
        self.epoch = 0
        self._first = 0

    @abstractmethod
    def picked(self) -> Iterator[list[ItemT]]:
        """Pick the samples of all batches of this epoch."""

    @property
    def sampler(self) -> EpochSampler[ItemT]:
        """Itself: Lightning calls `set_epoch` on the sampler inside a batch sampler, and on nothing else."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are handed out."""
        self.epoch = epoch

    def begin(self, epoch: int, batch: int) -> None:
        """Begin an epoch at a batch; the ones after it are whole."""
        self.epoch, self._first = epoch, batch

    def __iter__(self) -> Iterator[list[ItemT]]:
        first, self._first = self._first, 0
        yield from islice(self.picked(), first, None)


class LengthBucketSampler(EpochSampler[int]):
    """Batches of samples of about equal length.

    Training: the samples are shuffled, sorted by length within pools of some batches, cut into batches, and the
    batches shuffled. All processes get the same number of batches; the last round is filled up from its beginning.
    There are as many batches in each epoch, because Lightning counts them once: in an epoch with fewer it would never
    come to the validation. Batches of limited size are halved for it. Should an epoch need more, it lacks the last.
    Evaluation: in order of length, every sample exactly once over all processes.

    Args:
        lengths: the length of each sample.
        batch_size: samples per batch and process; or
        max_tokens: largest batch and process in padded tokens (samples × longest).
        shuffle: training order, else evaluation order.
        seed: of the order.
        rank: this process.
        world_size: number of processes.

    Raises:
        InputError: unless one of batch_size and max_tokens is at least 1.

    >>> list(LengthBucketSampler([3, 1, 2], batch_size=2, shuffle=False))
    [[1, 2], [0]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if (max_tokens if max_tokens is not None else batch_size or 0) < 1:
            name, got = ("batch_size", batch_size) if max_tokens is None else ("max_tokens", max_tokens)
            raise InputError(f"data.{name}", expected="at least 1", got=str(got))
        super().__init__()
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.batch_size = batch_size or 1
        self.max_tokens = max_tokens
        self.shuffle = shuffle
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._count: int | None = None
        self._cached: tuple[int, list[list[int]]] = (-1, [])

    def picked(self) -> Iterator[list[int]]:
        """Pick the samples of the batches of this process."""
        batches = self.batches()
        if self.shuffle and len(batches) % self.world_size:
            batches = list(islice(cycle(batches), len(self) * self.world_size))
        own = batches[self.rank :: self.world_size]
        # Lightning wants a batch for every process; metrics count a sample once, however often it comes.
        yield from own or batches[:1]

    def __len__(self) -> int:
        count = len(self.batches())
        if self.shuffle:
            return -(-count // self.world_size)
        return len(range(self.rank, count, self.world_size)) or min(1, count)

    def batches(self) -> list[list[int]]:
        """Return all batches of this epoch, of all processes."""
        epoch = self.epoch if self.shuffle else 0
        if self._cached[0] != epoch:
            self._cached = (epoch, self._make(epoch))
        return self._cached[1]

    def _make(self, epoch: int) -> list[list[int]]:
        if not self.shuffle:
            return self._cut(np.argsort(self.lengths, kind="stable"))
        random = np.random.default_rng([self.seed, epoch])
        batches = self._draw(random)
        if self.max_tokens is not None:
            batches = split_until(batches, self._usual_count())
        return [batches[place] for place in random.permutation(len(batches))]

    def _draw(self, random: np.random.Generator) -> list[list[int]]:
        order = random.permutation(len(self.lengths))
        usual = self.batch_size
        if self.max_tokens is not None and len(self.lengths):
            usual = max(1, int(self.max_tokens / max(1.0, float(self.lengths.mean()))))
        pool = POOL * usual
        batches = []
        for start in range(0, len(order), pool):
            chosen = order[start : start + pool]
            batches += self._cut(chosen[np.argsort(self.lengths[chosen], kind="stable")])
        return batches

    def _usual_count(self) -> int:
        """Return how many batches of limited size there are in every epoch: some more than the first epoch needs."""
        if self._count is None:
            needed = len(self._draw(np.random.default_rng([self.seed, 0])))
            self._count = min(len(self.lengths), needed + 1 + needed // SPARE)
        return self._count

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        if self.max_tokens is None:
            return [order[start : start + self.batch_size].tolist() for start in range(0, len(order), self.batch_size)]
        batches: list[list[int]] = []
        for sample in order.tolist():  # rising lengths: the newest is the longest
            longest = max(1, int(self.lengths[sample]))
            if batches and (len(batches[-1]) + 1) * longest <= self.max_tokens:
                batches[-1].append(sample)
            else:
                batches.append([sample])
        return batches


def split_until(batches: list[list[int]], count: int) -> list[list[int]]:
    """Return so many batches: the largest are halved.

    >>> split_until([[1, 2, 3, 4], [5, 6]], 3)
    [[5, 6], [1, 2], [3, 4]]
    """
    found = sorted(batches, key=len)
    while len(found) < count and len(found[-1]) > 1:
        largest = found.pop()
        for half in (largest[: len(largest) // 2], largest[len(largest) // 2 :]):
            insort(found, half, key=len)
    return found
