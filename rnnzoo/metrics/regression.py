"""Errors of numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.metrics.base import SampleMetric, ratio, rows_of


class RegressionError(SampleMetric):
    """Mean absolute error, root mean squared error and R² over all numbers that have a target.

    >>> errors = RegressionError()
    >>> errors.update(torch.tensor([0]), torch.tensor([[1.0, 5.0]]), torch.tensor([[2.0, float("nan")]]))
    >>> float(errors.compute()["mae"])
    1.0
    """

    def __init__(self) -> None:
        super().__init__(width=5)

    def update(self, ids: Tensor, predicted: Tensor, targets: Tensor) -> None:
        """Add predicted and gold numbers [B, ...]; a gold NaN is left out."""
        predicted, targets = rows_of(predicted).double(), rows_of(targets).double()  # [B, N]
        given = ~targets.isnan()
        targets = targets.nan_to_num()
        error = torch.where(given, predicted - targets, 0.0)
        means = targets.sum(1, keepdim=True) / given.sum(1, keepdim=True).clamp(min=1)  # [B, 1]
        deviation = torch.where(given, targets - means, 0.0)
        columns = [given.double(), error.abs(), error.square(), targets, deviation.square()]
        self.update_rows(ids, torch.stack([column.sum(1) for column in columns], dim=1))

    def sums(self) -> Tensor:
        """Return number, absolute and squared errors, sum, and squared deviation from the mean of all targets [5].

        The deviation is that within the samples and that of their means: squares of the numbers themselves would leave
        no digits of numbers far from zero.
        """
        samples = self.samples()  # [S, 5]
        sums = samples.sum(0)
        count, total = samples[:, 0], samples[:, 3]
        between = count * (total / count.clamp(min=1) - sums[3] / sums[0].clamp(min=1)).square()
        return torch.cat([sums[:4], sums[4:] + between.sum()])

    def from_sums(self, sums: Tensor) -> dict[str, Tensor]:
        """Return the errors."""
        count, absolute, squared, total, spread = sums
        rounding = 1e-14 * total / count.clamp(min=1)
        spread = torch.where(spread <= count * rounding.square(), 0.0, spread)  # equal numbers, but for rounding
        return {
            "mae": ratio(absolute, count),
            "rmse": ratio(squared, count).sqrt(),
            "r2": 1 - ratio(squared, spread),
        }

    @property
    def definitions(self) -> dict[str, str]:
        """What the values are."""
        return {
            "mae": "mean absolute error, in the units of the data",
            "rmse": "root of the mean squared error, in the units of the data",
            "r2": "1 - squared error / squared deviation of the gold numbers from their mean; "
            "undefined if they are all equal",
        }
