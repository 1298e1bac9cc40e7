"""A stream of tokens cut into lanes that are read side by side, and lanes cut into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import datasets
import numpy as np
from torch.utils.data import Dataset

from rnnzoo.data.sampler import EpochSampler
from rnnzoo.processors.base import Row

SHORTEST = 5  # steps of a chunk of varied length
SPREAD = 5.0  # the standard deviation of its length
HALF = 0.05  # share of chunks that are about half as long


class Span(NamedTuple):
    """A chunk of a lane: the tokens that it predicts.

    Args:
        start: the first of them.
        stop: one past the last.
        begins: the lane begins here.
        scale: steps of the chunk over those of a usual one.
    """

    start: int
    stop: int
    begins: bool
    scale: float = 1.0


class TokenStream(Dataset[Row]):
    """The tokens of a split one after the other, as chunks to be predicted.

    Every token is predicted, the first of a document from the end token.

    Args:
        table: encoded documents.
        joined: they are all one document.
        end_id: of the end token.
        chunk_length: steps of the chunks that whole numbers stand for.
    """

    def __init__(self, table: datasets.Dataset, *, joined: bool, end_id: int, chunk_length: int) -> None:
        self.table = table
        self.chunk_length = chunk_length
        columns = table.with_format("numpy")
        self.lengths = np.asarray(columns["length"][:], dtype=np.int64)
        self.tokens, self.characters, self.words = (
            np.concatenate([np.zeros(0, dtype=np.int32), *columns[name][:]]).astype(np.int32)
            for name in ("tokens", "characters", "words")
        )
        starts = np.zeros(1, dtype=np.int64) if joined else self.lengths.cumsum() - self.lengths
        self.resets = np.zeros(len(self.tokens), dtype=bool)
        self.resets[starts[starts < len(self.tokens)]] = True
        self.inputs = np.where(self.resets, end_id, np.roll(self.tokens, 1)).astype(np.int32)

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.chunk_length)

    def __getitem__(self, place: int | Span) -> Row:
        span = place if isinstance(place, Span) else self._usual(place)
        part = slice(span.start, span.stop)
        return {
            "id": span.start,
            "tokens": self.tokens[part],
            "inputs": self.inputs[part],
            "resets": self.resets[part],
            "characters": self.characters[part],
            "words": self.words[part],
            "begins": span.begins,
            "scale": span.scale,
        }

    def __getitems__(self, places: Sequence[int | Span]) -> list[Row]:
        """Return several chunks at once."""
        return [self[place] for place in places]

    def _usual(self, place: int) -> Span:
        start = place * self.chunk_length
        return Span(start, min(start + self.chunk_length, len(self.tokens)), begins=place == 0)


class LaneSampler(EpochSampler[Span]):
    """Chunks of lanes that are read side by side: a pure function of seed, epoch, rank and number of processes.

    The stream is cut into lanes of equal length (or one token less), so no token is left out. A process reads lanes
    that stand next to each other; each batch continues every lane where the one before ended. All processes have as
    many lanes and batches; if there are fewer lanes than that needs, some are read twice.

    Args:
        length: tokens of the stream.
        lanes: of all processes together.
        chunk_length: steps of a chunk.
        vary: draw the length of each chunk: around `chunk_length`, or in 5 % of cases around half of it, with a
            standard deviation of 5, but at least 5 (Merity et al. 2018).
        anew: the share of chunks at which a lane begins anew though its text goes on.
        seed: of the lengths, and of the chunks that begin anew.
        rank: this process.
        world_size: number of processes.

    >>> [[tuple(span[:3]) for span in batch] for batch in LaneSampler(7, lanes=2, chunk_length=3)]
    [[(0, 3, True), (3, 6, True)], [(3, 3, False), (6, 7, False)]]
    """

    def __init__(
        self,
        length: int,
        *,
        lanes: int,
        chunk_length: int,
        vary: bool = False,
        anew: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        bounds = np.arange(lanes + 1) * length // lanes
        own = -(-lanes // world_size)
        self.lanes = [(rank * own + place) % lanes for place in range(own)]
        self.bounds = bounds.tolist()
        self.steps = int(np.diff(bounds).max())  # of the longest lane
        self.chunk_length = chunk_length
        self.vary = vary
        self.anew = anew
        self.seed = seed

    def picked(self) -> Iterator[list[Span]]:
        """Pick the spans of the batches of this process."""
        start = 0
        random = np.random.default_rng([self.seed, self.epoch, 1, *self.lanes[:1]])
        for size in self.sizes():
            batch = []
            begins = random.random(len(self.lanes)) < self.anew
            for lane, anew in zip(self.lanes, begins.tolist(), strict=True):
                first, last = self.bounds[lane], self.bounds[lane + 1]
                stop = min(first + start + size, last)
                batch.append(Span(min(first + start, last), stop, anew or start == 0, size / self.chunk_length))
            yield batch
            start += size

    def __len__(self) -> int:
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """Return the steps of each chunk of this epoch, as many in every epoch; the last may reach past the end.

        Lightning counts batches once: in an epoch with fewer of them it would never come to the validation.
        """
        if not self.vary:
            return [self.chunk_length] * -(-self.steps // self.chunk_length)
        random = np.random.default_rng([self.seed, self.epoch])
        count = max(1, round(self.steps / max(SHORTEST, (1 - HALF / 2) * self.chunk_length)))
        usual = np.where(random.random(count) < HALF, self.chunk_length / 2, self.chunk_length)
        drawn = np.maximum(SHORTEST, random.normal(usual, SPREAD))
        ends = np.round(drawn.cumsum() * (self.steps / drawn.sum())).astype(int)
        found: list[int] = np.diff(ends, prepend=0).tolist()
        return found
