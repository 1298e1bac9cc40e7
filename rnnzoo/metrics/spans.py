"""Spans of tags, scored as conlleval scores them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnzoo.metrics.base import SampleMetric, f1_values
from rnnzoo.text.tags import spans


class SpanF1(SampleMetric):
    """Precision, recall and F1 of spans: right only if type, first and last word are.

    >>> metric = SpanF1()
    >>> metric.update(torch.tensor([0]), [["B-PER", "O", "B-LOC"]], [["B-PER", "O", "B-ORG"]])
    >>> float(metric.compute()["f1"])
    50.0
    """

    def __init__(self) -> None:
        super().__init__(width=3)

    def update(self, ids: Tensor, predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]]) -> None:
        """Add B sentences of predicted and gold tags in any scheme; a gold type that training never saw counts."""
        counts = []
        for guess, truth in zip(predicted, gold, strict=True):
            found, wanted = set(spans(guess)), set(spans(truth))
            counts.append([len(found & wanted), len(found), len(wanted)])
        self.update_rows(ids, torch.tensor(counts, dtype=torch.float64, device=ids.device).reshape(len(ids), 3))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return precision, recall and F1."""
        precision, recall, f1 = f1_values(*sums)
        return {"precision": precision, "recall": recall, "f1": f1}

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are."""
        rule = "a span is right if its type, first and last word are (micro average, as conlleval)"
        return {
            "precision": f"percent of predicted spans that are right; {rule}",
            "recall": f"percent of gold spans that were found; {rule}",
            "f1": f"harmonic mean of precision and recall of spans, percent; {rule}",
        }
