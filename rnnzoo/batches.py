"""What the data produces and the models consume: one NamedTuple for each kind of input.

Every sample carries an id, its place in its split, so that a metric can drop a sample that a distributed sampler
handed out twice. Axes: B batch, T time, W characters of a word, I input, O output.
"""

from __future__ import annotations

from typing import NamedTuple

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


class TaggingBatch(NamedTuple):
    """Word sequences, one tag a word."""

    ids: Tensor  # [B] int64
    words: Tensor  # [B, T] int64
    lengths: Tensor  # [B] int64
    characters: Tensor | None  # [B, T, W] int64, padded on the right
    targets: Tensor | None  # [B, T] int64
    tags: tuple[tuple[str, ...], ...] | None  # the gold tags as text, B rows; a tag that training never saw is in here


class FrameBatch(NamedTuple):
    """Real-valued frames, one label (or number) a frame."""

    ids: Tensor  # [B] int64
    frames: Tensor  # [B, T, I] float
    lengths: Tensor  # [B] int64
    targets: Tensor | None  # [B, T] int64 classes, or [B, T, O] float for regression, NaN where there is none


Batch = VectorBatch | TextBatch | TaggingBatch | FrameBatch
