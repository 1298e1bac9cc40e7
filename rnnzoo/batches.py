"""What the data produces and the models consume: one NamedTuple for each kind of input.

Every sample carries an id, its place in its split, so that a metric can drop a sample that a distributed sampler
handed out twice. Axes: B batch, T time, S source time, I input, O output, C captions.

A sequence to be generated ends with the id `Tokenizer.end_id`; the decoder is started with the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # a target that counts neither in the loss nor in a metric: padding, or a frame without a label
UNSEEN = -1  # the target is a label that training never saw: no prediction can be right, so it counts as a mistake


class VectorBatch(NamedTuple):
    """Fixed-size inputs, one target each."""

    ids: Tensor  # [B] int64
    inputs: Tensor  # [B, I] float
    targets: Tensor | None  # [B] int64 classes, or [B, O] float for regression


class TextBatch(NamedTuple):
    """Token sequences, one target (or set of labels) each."""

    ids: Tensor  # [B] int64
    tokens: Tensor  # [B, T] int64
    lengths: Tensor  # [B] int64
    targets: Tensor | None  # [B] int64 classes, or [B, C + 1] float 0/1 for several labels at once, then unseen ones


class WordCharacters(NamedTuple):
    """The characters of the words of a batch: each different word once, without padding.

    The first word has no characters: it is that of the padding.
    """

    ids: Tensor  # [N] int64, the characters of all D different words, one word after the other, shorter ones first
    lengths: Tensor  # [D] int64, characters of each different word, rising from 0
    indices: Tensor  # [B, T] int64, the number of each word among the D different ones; 0 on padding

    @classmethod
    def of(cls, rows: Sequence[Sequence[Sequence[int]]]) -> WordCharacters:
        """Make one of B rows of words, each a list of the ids of its characters.

        >>> WordCharacters.of([[[5, 6], [7]], [[7]]])
        WordCharacters(ids=tensor([7, 5, 6]), lengths=tensor([0, 1, 2]), indices=tensor([[2, 1],
                [1, 0]]))
        """
        tuples = [[tuple(word) for word in row] for row in rows]
        different = sorted(dict.fromkeys([(), *chain.from_iterable(tuples)]), key=len)
        numbers = {word: number for number, word in enumerate(different)}
        longest = max(map(len, tuples), default=0)
        indices = [[*(numbers[word] for word in row), *[0] * (longest - len(row))] for row in tuples]
        return cls(
            ids=torch.tensor(list(chain.from_iterable(different)), dtype=torch.int64),
            lengths=torch.tensor([len(word) for word in different], dtype=torch.int64),
            indices=torch.tensor(indices, dtype=torch.int64).reshape(len(tuples), longest),
        )


class TaggingBatch(NamedTuple):
    """Word sequences, one tag a word."""

    ids: Tensor  # [B] int64
    words: Tensor  # [B, T] int64
    lengths: Tensor  # [B] int64
    characters: WordCharacters | None
    targets: Tensor | None  # [B, T] int64 tags of the model; IGNORED on padding and where there is no label
    tags: (
        tuple[tuple[str, ...], ...] | None
    )  # the gold tags as the data write them, B rows, unseen ones too; "" if none


class FrameBatch(NamedTuple):
    """Real-valued frames, one label (or number) a frame."""

    ids: Tensor  # [B] int64
    frames: Tensor  # [B, T, I] float
    lengths: Tensor  # [B] int64
    targets: Tensor | None  # [B, T] int64 classes, or [B, T, O] float for regression, NaN where there is none


class StreamBatch(NamedTuple):
    """A chunk of each of B lanes of a stream of tokens; the next batch continues every lane where this one ends."""

    ids: Tensor  # [B] int64; the place in the stream of each lane's first token: unique over the split
    tokens: Tensor  # [B, T] int64
    targets: Tensor  # [B, T] int64, the tokens one step later; IGNORED on padding
    lengths: Tensor  # [B] int64 valid steps; below T only where a lane ends
    resets: Tensor  # [B, T] bool, true where a document begins: the state before that token is the initial one
    begins: Tensor  # [B] bool, true where the chunk is the first of its lane: no state is carried into it
    characters: Tensor  # [B] int64 characters of the raw text that the targets stand for, line ends included
    words: Tensor  # [B] int64 words of the raw text that the targets stand for; a line end is one too
    scale: Tensor  # [] float, steps of this chunk over those of a usual one; 1 where all chunks are meant to be equal


class PairBatch(NamedTuple):
    """Source sequences and the target sequences that they become."""

    ids: Tensor  # [B] int64
    source: Tensor  # [B, S] int64
    source_lengths: Tensor  # [B] int64
    pieces: tuple[tuple[str, ...], ...]  # the text of each source token, B rows: what unknown words are copied from
    targets: Tensor | None  # [B, T] int64 with the end, IGNORED on padding
    lengths: Tensor  # [B] int64 target tokens with the end; source lengths where there are no targets
    references: tuple[tuple[str, ...], ...] | None  # the raw reference texts, B rows


class CaptionBatch(NamedTuple):
    """Images, or their features, with any number of captions each."""

    ids: Tensor  # [B] int64
    images: Tensor | None  # [B, 3, Y, X] float, normalised; None where there are features
    regions: Tensor | None  # [B, L, D] float features of the grid or of regions
    region_counts: Tensor | None  # [B] int64 valid regions of each image
    captions: Tensor | None  # [C, T] int64 with the end, IGNORED on padding
    caption_rows: Tensor | None  # [C] int64, the row of the image that each caption belongs to
    lengths: Tensor  # [C] int64 caption tokens with the end; ones [B] where there are no captions
    references: tuple[tuple[str, ...], ...] | None  # the raw captions of each image, B rows
    grounding: tuple[Any, ...] | None = None  # of the first caption of each image; see `rnnzoo.metrics.pointing`


Batch = VectorBatch | TextBatch | TaggingBatch | FrameBatch | StreamBatch | PairBatch | CaptionBatch
