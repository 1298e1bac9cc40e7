"""What all metrics share, and the metric from which most are made: counts of each sample, summed once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ZooMetric(Metric, ABC):
    """A metric that gives its values by name, and says what each is."""

    @property
    @abstractmethod
    def definitions(self) -> dict[str, str]:
        """What exactly each value is, by name, with its unit."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """Return the values by name."""


class SampleMetric(ZooMetric):
    """A metric that is a function of sums over samples.

    The state is a table with a row for each sample: its id, and K numbers that are summed over the samples. Rows of
    all processes are put together; a sample that a distributed sampler handed out twice counts once.

    Args:
        width: K.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.width = width
        self.latest_sums: Tensor | None = None
        # One empty row table to begin with: a process without samples must still take part when states are gathered.
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.rows.append(self._empty())

    @abstractmethod
    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the values by name from the sums [K]."""

    def update_rows(self, ids: Tensor, numbers: Tensor) -> None:
        """Add the numbers [B, K] of samples with `ids` [B]."""
        self.rows.append(torch.cat([ids.double().unsqueeze(1), numbers.detach().double()], dim=1))

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self.rows.append(self._empty())
        self.latest_sums = None

    def all_rows(self) -> Tensor:
        """Return the rows [N, 1 + K] as they came, of all processes once they are put together."""
        return torch.cat(list(self.rows)) if isinstance(self.rows, list) else self.rows

    def samples(self) -> Tensor:
        """Return the numbers [S, K] of different samples, in the order of their ids."""
        rows = self.all_rows()
        rows = rows[rows[:, 0].argsort(stable=True)]
        return rows[begins(rows[:, 0]), 1:]

    def sums(self) -> Tensor:
        """Return the sums [K] over different samples."""
        return self.samples().sum(0)

    def compute(self) -> dict[str, Tensor]:
        """Return the values by name; the sums behind them, over all processes, stay in `latest_sums`."""
        self.latest_sums = self.sums()
        return self.from_sums(self.latest_sums)

    def _empty(self) -> Tensor:
        return torch.zeros(0, 1 + self.width, dtype=torch.float64, device=self.device)


class MeanLoss(SampleMetric):
    """The mean of a loss over items (words, texts, frames); label smoothing and class weights are never in it.

    Args:
        item: what is counted.
        unit: what the loss is measured in.

    >>> loss = MeanLoss(item="word")
    >>> loss.update(torch.tensor([0, 1, 1]), torch.tensor([3.0, 1.0, 1.0]), torch.tensor([3, 1, 1]))
    >>> float(loss.compute()["loss"])
    1.0
    """

    def __init__(self, *, item: str, unit: str = "nats") -> None:
        super().__init__(width=2)
        self.item = item
        self.unit = unit

    def update(self, ids: Tensor, totals: Tensor, counts: Tensor) -> None:
        """Add the summed losses and the item counts, all [B], of samples."""
        self.update_rows(ids, torch.stack([totals.double(), counts.double()], dim=1))

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the mean."""
        return {"loss": ratio(sums[0], sums[1])}

    @property
    def definitions(self) -> dict[str, str]:
        """What the loss is."""
        return {
            "loss": f"mean loss per {self.item} in {self.unit}, without label smoothing and class weights; "
            f"a {self.item} whose label training never saw has no loss"
        }


def begins(values: Tensor) -> Tensor:
    """Return where sorted values [N] are others than before, as a mask [N]."""
    found = torch.ones(len(values), dtype=torch.bool, device=values.device)
    found[1:] = values[1:] != values[:-1]
    return found


def rows_of(values: Tensor) -> Tensor:
    """Return values [B] or [B, ...] as [B, N]."""
    return values.unsqueeze(1) if values.dim() == 1 else values.flatten(1)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and NaN where there is nothing."""
    return torch.where(whole == 0, torch.nan, part / whole.clamp(min=1e-300))


def percent(part: Tensor, whole: Tensor) -> Tensor:
    """Return 100 · part / whole, and 0 where there is nothing."""
    return torch.where(whole == 0, 0.0, 100 * part / whole.clamp(min=1e-300))


def f1_values(right: Tensor, predicted: Tensor, gold: Tensor) -> tuple[Any, Any, Any]:
    """Return precision, recall and F1 in percent from counts; 0 where nothing was predicted or nothing is there."""
    return percent(right, predicted), percent(right, gold), percent(2 * right, predicted + gold)
