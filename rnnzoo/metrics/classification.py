"""Right and wrong classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.metrics.base import SampleMetric, begins, f1_values, percent, rows_of

MIXING = (0x9E3779B1, 0x2545F4914F6CDD1D)  # odd, of many bits
MARKS = 2**53  # as many whole numbers are exact in float64


class ClassificationCounts(SampleMetric):
    """Accuracy and macro F1, with the confusion matrix behind them.

    A target that training never saw (`UNSEEN`) is a mistake, whatever was predicted, and is counted; an `IGNORED`
    one is left out.

    Args:
        labels: names of the C classes.
        item: what is classified.

    >>> counts = ClassificationCounts(labels=["a", "b"], item="text")
    >>> counts.update(torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([1, 0]))
    >>> float(counts.compute()["accuracy"])
    50.0
    """

    def __init__(self, *, labels: Sequence[str], item: str) -> None:
        # What tells predictions of one sample apart, a place in the confusion matrix, how often the sample is there.
        super().__init__(width=3)
        self.labels = list(labels)
        self.item = item

    def update(self, ids: Tensor, predicted: Tensor, targets: Tensor) -> None:
        """Add predicted and gold classes [B] or [B, T]."""
        classes = len(self.labels)
        predicted, targets = rows_of(predicted), rows_of(targets)  # [B, N]
        valid = targets != IGNORED
        gold = torch.where(targets == UNSEEN, classes, targets)
        cells = (classes + 1) * classes
        samples = torch.arange(len(ids), device=ids.device).unsqueeze(1)  # [B, 1]
        places = (samples * cells + gold * classes + predicted)[valid]
        places, counts = places.unique(return_counts=True)  # [M]
        sample, place = places // cells, places % cells
        marks = ((place + 1) * MIXING[0] + counts) * MIXING[1] % MARKS  # int64 wraps around, alike everywhere
        marks = torch.zeros(len(ids), dtype=marks.dtype, device=marks.device).index_add_(0, sample, marks) % MARKS
        self.update_rows(ids[sample], torch.stack([marks[sample], place, counts], dim=1))

    def sums(self) -> Tensor:
        """Return the counts over different samples [(C + 1)·C]: gold classes, then unseen ones, by predicted.

        Of a sample that came twice with other predictions (rounding differs between batches), one is kept.
        """
        cells = (len(self.labels) + 1) * len(self.labels)
        rows = torch.unique(self.all_rows(), dim=0)  # [N, 4], by id, then by mark
        first = begins(rows[:, 0])
        kept = rows[:, 1] == rows[first, 1][first.cumsum(0) - 1]
        places, counts = rows[kept, 2].long(), rows[kept, 3]
        return torch.zeros(cells, dtype=rows.dtype, device=rows.device).index_add_(0, places, counts)

    def matrix(self) -> Tensor:
        """Return the counts [C + 1 gold, C predicted] of the latest `compute`; the last row is of unseen labels."""
        sums = self.sums() if self.latest_sums is None else self.latest_sums
        return sums.reshape(len(self.labels) + 1, len(self.labels))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return accuracy, macro F1 and the number of unseen labels."""
        matrix = sums.reshape(len(self.labels) + 1, len(self.labels))
        right, predicted, gold = matrix[:-1].diagonal(), matrix.sum(0), matrix[:-1].sum(1)  # [C]
        _, _, f1 = f1_values(right, predicted, gold)
        present = (gold > 0).double()
        return {
            "accuracy": percent(right.sum(), matrix.sum()),
            "macro_f1": (f1 * present).sum() / present.sum().clamp(min=1),
            "unseen_labels": matrix[-1].sum(),
        }

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are."""
        return {
            "accuracy": f"percent of {self.item}s whose most probable label is the gold one; "
            "a gold label that training never saw counts as a mistake",
            "macro_f1": "mean of the F1 (percent) of each label that occurs in the gold data",
            "unseen_labels": f"number of {self.item}s whose gold label training never saw",
        }


class MultiLabel(SampleMetric):
    """Sets of labels: F1 over decisions, and the share of sets that are exactly right.

    Args:
        labels: names of the C labels.
    """

    def __init__(self, *, labels: Sequence[str]) -> None:
        super().__init__(width=3 * len(labels) + 3)
        self.labels = list(labels)

    def update(self, ids: Tensor, predicted: Tensor, targets: Tensor) -> None:
        """Add predicted sets [B, C] and gold sets [B, C + 1] of 0/1; the last column counts labels never seen."""
        guess, gold, unseen = predicted.bool(), targets[:, :-1].bool(), targets[:, -1:]
        exact = (guess == gold).all(1, keepdim=True) & (unseen == 0)
        columns = [guess & gold, guess, gold, exact, torch.ones_like(exact), unseen]
        self.update_rows(ids, torch.cat([column.double() for column in columns], dim=1))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return micro and macro F1 and the exact share."""
        right, predicted, gold = sums[:-3].reshape(3, -1)  # [C] each
        exact, samples, unseen = sums[-3:]
        _, _, micro = f1_values(right.sum(), predicted.sum(), gold.sum() + unseen)
        _, _, macro = f1_values(right, predicted, gold)
        present = (gold > 0).double()
        return {
            "micro_f1": micro,
            "macro_f1": (macro * present).sum() / present.sum().clamp(min=1),
            "exact_match": percent(exact, samples),
            "unseen_labels": unseen,
        }

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are."""
        return {
            "micro_f1": "F1 (percent) over all yes/no decisions of all labels, at probability 1/2; "
            "a gold label that training never saw counts as missed",
            "macro_f1": "mean of the F1 (percent) of each label that occurs in the gold data",
            "exact_match": "percent of samples whose predicted set of labels is exactly the gold one",
            "unseen_labels": "number of gold labels that training never saw",
        }
