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
from rnnzoo.processors.normalisation import refuse_nan
from rnnzoo.processors.numeric import NumericProcessor


class FrameProcessor(NumericProcessor):
    """``{"frames": [[float]], "labels": [str]}`` (or lists of numbers) ↔ `FrameBatch`."""

    kind = "frames"
    inputs = ("frames",)
    answer = "labels"

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``frames``, ``length`` and, if the sample has labels, ``targets``."""
        where = str(sample.get("name", "sample"))
        raw = np.asarray(need(sample, "frames", (list, np.ndarray), "a list of frames"), dtype=object)
        frames = self.inputs_scale.apply(raw.tolist(), where)
        refuse_nan(frames, self.features, where)
        row: Row = {"frames": frames.tolist(), "length": len(frames)}
        labels = sample.get("labels")
        if labels is not None:
            if len(labels) != len(frames):
                raise InputError(where, expected=f"as many labels as frames, {len(frames)}", got=str(len(labels)))
            if self.labels is not None:
                row["targets"] = [self.labels.id(str(label)) for label in labels]
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
        return FrameBatch(
            row_ids(rows), pad_rows([row["frames"] for row in rows], len(self.features)), lengths, targets
        )


def pad_rows(tables: Sequence[Sequence[Sequence[float]]], width: int, value: float = 0.0) -> Tensor:
    """Return tables of `width` columns, padded with rows of `value`, as [B, T, width]."""
    padded = torch.full((len(tables), max((len(table) for table in tables), default=0), width), value)
    for place, table in enumerate(tables):
        if len(table):
            padded[place, : len(table)] = torch.as_tensor(np.asarray(table, dtype=np.float32))
    return padded
