"""Texts and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rnnzoo.batches import TextBatch
from rnnzoo.processors.base import Processor, Row, need, pad, row_ids
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer


class TextClassificationProcessor(Processor):
    """``{"text": str, "label": str}`` (or a list of labels) ↔ `TextBatch`.

    Blanks and tabs around a text are no part of it.

    Args:
        tokenizer: turns a text into ids.
        labels: the labels.
        multi_label: whether a text has a set of labels instead of one.
        max_length: the longest text in tokens; of a longer one the beginning is kept, and ``cut`` in its row says how
            many tokens were left out. None keeps all texts whole.
    """

    kind = "text_classification"
    inputs = ("text",)
    answer = "label"

    def __init__(
        self, *, tokenizer: Tokenizer, labels: LabelMap, multi_label: bool = False, max_length: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.labels = labels
        self.multi_label = multi_label
        self.max_length = max_length

    def encode(self, sample: Mapping[str, Any]) -> Row:
        """Return ``tokens``, ``length``, ``cut`` and, if the sample has a label, ``target``."""
        tokens = self.tokenizer.encode(need(sample, "text", str, "a text").strip(" \t"))
        kept = tokens if self.max_length is None else tokens[: self.max_length]
        row: Row = {"tokens": kept, "length": len(kept), "cut": len(tokens) - len(kept)}
        label = sample.get("label")
        if label not in (None, "", [""]):
            if self.multi_label:
                row["target"] = [self.labels.id(name) for name in need(sample, "label", list, "a list of labels")]
            else:
                row["target"] = self.labels.id(str(label))
        return row

    def collate(self, rows: Sequence[Row]) -> TextBatch:
        """Pad the texts; labels of a set become 0/1, and a last column counts those that training never saw."""
        targets = None
        if all("target" in row for row in rows):
            if self.multi_label:
                targets = torch.zeros(len(rows), len(self.labels) + 1)
                for place, row in enumerate(rows):
                    seen = [label for label in row["target"] if label >= 0]
                    targets[place, seen] = 1.0
                    targets[place, -1] = len(row["target"]) - len(seen)
            else:
                targets = torch.tensor([row["target"] for row in rows], dtype=torch.int64)
        lengths = torch.tensor([row["length"] for row in rows], dtype=torch.int64)
        return TextBatch(row_ids(rows), pad([row["tokens"] for row in rows]), lengths, targets)

    def to_json(self) -> dict[str, Any]:
        """Return tokenizer, labels and options."""
        return {
            "kind": self.kind,
            "tokenizer": self.tokenizer.to_json(),
            "labels": self.labels.labels,
            "multi_label": self.multi_label,
            "max_length": self.max_length,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TextClassificationProcessor:
        """Make a processor from what `to_json` gave."""
        return cls(
            tokenizer=Tokenizer(values["tokenizer"]),
            labels=LabelMap(values["labels"]),
            multi_label=values["multi_label"],
            max_length=values["max_length"],
        )
