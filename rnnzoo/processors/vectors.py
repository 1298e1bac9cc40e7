"""Fixed-size inputs, with a label or numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rnnzoo.batches import VectorBatch
from rnnzoo.processors.base import Row, need, row_ids
from rnnzoo.processors.normalisation import refuse_nan
from rnnzoo.processors.numeric import NumericProcessor


class VectorProcessor(NumericProcessor):
    """``{"vector": [float], "label": str}`` (or a list of numbers) ↔ `VectorBatch`."""

    kind = "vectors"
    inputs = ("vector",)
    answer = "label"

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``inputs``, ``length`` (always 1) and, if the sample has a label, ``target``."""
        where = str(sample.get("name", "sample"))
        inputs = self.inputs_scale.apply([need(sample, "vector", list, "a list of numbers")], where)
        refuse_nan(inputs, self.features, where)
        row: Row = {"inputs": inputs[0].tolist(), "length": 1}
        label = sample.get("label")
        if label is not None and label != "":
            if self.labels is not None:
                row["target"] = self.labels.id(str(label))
            else:
                assert self.targets_scale is not None
                numbers = label if isinstance(label, list) else [label]
                row["target"] = self.targets_scale.apply([numbers], where)[0].tolist()
        return row

    def collate(self, rows: Sequence[Row]) -> VectorBatch:
        """Stack the samples."""
        targets = None
        if all("target" in row for row in rows):
            kind = torch.int64 if self.labels is not None else torch.float32
            targets = torch.tensor([row["target"] for row in rows], dtype=kind)
        inputs = torch.tensor([row["inputs"] for row in rows], dtype=torch.float32).reshape(len(rows), -1)
        return VectorBatch(row_ids(rows), inputs, targets)
