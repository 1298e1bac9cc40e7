"""Sequences of frames of real numbers, with a label or numbers for each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnnzoo.batches import IGNORED, FrameBatch
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Row, need, pad, row_ids
from rnnzoo.processors.normalisation import Normalisation, as_table, refuse_nan
from rnnzoo.processors.numeric import NumericProcessor
from rnnzoo.text.labels import LabelMap


class FrameProcessor(NumericProcessor):
    """``{"frames": [[float]], "labels": [str]}`` (or lists of numbers) ↔ `FrameBatch`.

    Args:
        inputs_scale: names and normalisation of the inputs after derivation, measured on the training part.
        labels: the labels; None for regression.
        targets_scale: names and normalisation of the numbers to predict; None for labels.
        features: names of the numbers of a raw frame; those of `inputs_scale` if left out.
        normalise_sequences: see `derive`.
        deltas: see `derive`.

    Raises:
        InputError: for a delta below 1, or if inputs and features do not agree in number.
    """

    kind = "frames"
    inputs = ("frames",)
    answer = "labels"

    def __init__(
        self,
        *,
        inputs_scale: Normalisation,
        labels: LabelMap | None,
        targets_scale: Normalisation | None = None,
        features: Sequence[str] | None = None,
        normalise_sequences: bool = False,
        deltas: Sequence[int] = (),
    ) -> None:
        super().__init__(inputs_scale=inputs_scale, labels=labels, targets_scale=targets_scale)
        self.raw_features = list(features or inputs_scale.names)
        self.normalise_sequences = normalise_sequences
        self.deltas = list(deltas)
        if any(delta < 1 for delta in self.deltas):
            raise InputError("deltas", expected="at least 1", got=str(min(self.deltas)))
        if len(self.raw_features) * (1 + len(self.deltas)) != len(inputs_scale.names):
            expected = f"{len(self.raw_features)} features and as many slopes for each of {len(self.deltas)} deltas"
            raise InputError("inputs_scale", expected=expected, got=f"{len(inputs_scale.names)} names")

    @property
    def features(self) -> list[str]:
        """Names of the numbers of a raw frame, in their order."""
        return self.raw_features

    def to_json(self) -> dict[str, Any]:
        """Return normalisations, labels and what is derived."""
        own = {"features": self.raw_features, "normalise_sequences": self.normalise_sequences, "deltas": self.deltas}
        return {**super().to_json(), **own}

    @classmethod
    def extra_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments that this processor has beside those of all."""
        return {name: values[name] for name in ("features", "normalise_sequences", "deltas")}

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``frames``, ``length`` and, if the sample has labels, ``targets``."""
        where = str(sample.get("name", "sample"))
        raw = as_table(need(sample, "frames", (list, np.ndarray), "a list of frames"), self.features, where)
        refuse_nan(raw, self.features, where)
        derived = derive(raw, normalise_sequences=self.normalise_sequences, deltas=self.deltas)
        frames = self.inputs_scale.apply(derived, where)
        row: Row = {"frames": frames.tolist(), "length": len(frames)}
        labels = sample.get("labels")
        if labels is not None:
            if len(labels) != len(frames):
                raise InputError(where, expected=f"as many labels as frames, {len(frames)}", got=str(len(labels)))
            if self.labels is not None:
                row["targets"] = [self.labels.id("" if label is None else str(label)) for label in labels]
            else:
                assert self.targets_scale is not None
                row["targets"] = self.targets_scale.apply(labels, where).tolist()
        return row

    def collate(self, rows: Sequence[Row]) -> FrameBatch:
        """Pad the sequences."""
        lengths = torch.tensor([row["length"] for row in rows], dtype=torch.int64)
        targets = None
        if all("targets" in row for row in rows):
            if self.labels is not None:
                targets = pad([row["targets"] for row in rows], IGNORED)
            else:
                targets = pad_rows([row["targets"] for row in rows], len(self.targets), float("nan"))
        return FrameBatch(row_ids(rows), pad_rows([row["frames"] for row in rows], self.input_size), lengths, targets)


def derive(frames: np.ndarray, *, normalise_sequences: bool, deltas: Sequence[int]) -> np.ndarray:
    """Return the inputs of a model [T, I·(1 + D)] from the raw frames [T, I] of one sequence.

    Args:
        frames: the raw frames.
        normalise_sequences: bring each column of this sequence to mean 0 and deviation 1, so that people and devices
            that differ by an offset look alike; it needs the whole sequence.
        deltas: for each k, append the slope (x[t + k] - x[t - k]) / 2k, with the first and last frame repeated
            beyond the ends.

    >>> derive(np.array([[1.0], [3.0]]), normalise_sequences=False, deltas=[1]).tolist()
    [[1.0, 1.0], [3.0, 1.0]]
    """
    if normalise_sequences and len(frames):
        deviation = frames.std(0)
        frames = (frames - frames.mean(0)) / np.where(deviation < 1e-12, 1.0, deviation)
    steps = np.arange(len(frames))
    last = max(0, len(frames) - 1)
    slopes = [
        (frames[np.minimum(steps + delta, last)] - frames[np.maximum(steps - delta, 0)]) / (2 * delta)
        for delta in deltas
    ]
    return np.concatenate([frames, *slopes], axis=1)


def derived_names(features: Sequence[str], deltas: Sequence[int]) -> list[str]:
    """Return the names of the columns that `derive` makes."""
    return [*features, *(f"{name} slope {delta}" for delta in deltas for name in features)]


def pad_rows(tables: Sequence[Sequence[Sequence[float]]], width: int, value: float = 0.0) -> Tensor:
    """Return tables of `width` columns, padded with rows of `value`, as [B, T, width]."""
    padded = torch.full((len(tables), max((len(table) for table in tables), default=0), width), value)
    for place, table in enumerate(tables):
        if len(table):
            padded[place, : len(table)] = torch.as_tensor(np.asarray(table, dtype=np.float32))
    return padded
