"""Numbers brought to mean 0 and deviation 1, by what the training part showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from rnnzoo.errors import InputError


class Normalisation:
    """Names of numbers with their means and deviations.

    Args:
        names: I names.
        mean: I means.
        deviation: I standard deviations; 1 for a number that never changed.

    Raises:
        InputError: if there are not as many of each, or a deviation is not above 0.
    """

    def __init__(self, *, names: Sequence[str], mean: Sequence[float], deviation: Sequence[float]) -> None:
        self.names = list(names)
        self.mean = [float(value) for value in mean]
        self.deviation = [float(value) for value in deviation]
        if not len(self.names) == len(self.mean) == len(self.deviation):
            sizes = f"{len(self.names)}, {len(self.mean)} and {len(self.deviation)}"
            raise InputError("normalisation", expected="as many names as means and deviations", got=sizes)
        if not all(value > 0 for value in self.deviation):
            raise InputError("normalisation", expected="deviations above 0", got=str(min(self.deviation)))

    @classmethod
    def learn(cls, names: Sequence[str], tables: Iterable[Any]) -> Normalisation:
        """Measure mean and deviation over all rows of all tables [N, I]; NaN is left out."""
        count, total, squares = np.zeros(len(names)), np.zeros(len(names)), np.zeros(len(names))
        shift = np.full(len(names), np.nan)  # a first value of each column: squares about it lose no digits
        for table in tables:
            rows = np.asarray(table, dtype=np.float64).reshape(-1, len(names))
            given = ~np.isnan(rows)
            for column in np.flatnonzero(np.isnan(shift) & given.any(0)):
                shift[column] = rows[given[:, column], column][0]
            rows = np.where(given, rows - shift, 0.0)
            count += given.sum(0)
            total += rows.sum(0)
            squares += (rows**2).sum(0)
        count = np.maximum(count, 1)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
        deviation[deviation < np.finfo(np.float64).tiny] = 1.0  # constant columns: whatever their unit, exactly 0
        mean = mean + np.nan_to_num(shift)
        return cls(names=names, mean=mean.tolist(), deviation=deviation.tolist())

    def apply(self, table: Any, where: str) -> np.ndarray:
        """Return a table [N, I] of raw numbers as normalised float32.

        Raises:
            InputError: if rows are of another width or not numbers.
        """
        rows = as_table(table, self.names, where)
        return ((rows - self.mean) / self.deviation).astype(np.float32)

    def restore(self, numbers: Tensor) -> Tensor:
        """Return normalised numbers [..., I] in their own units."""
        return numbers * numbers.new_tensor(self.deviation) + numbers.new_tensor(self.mean)

    def to_json(self) -> dict[str, Any]:
        """Return names, means and deviations."""
        return {"names": self.names, "mean": self.mean, "deviation": self.deviation}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normalisation:
        """Make a normalisation from what `to_json` gave."""
        return cls(names=values["names"], mean=values["mean"], deviation=values["deviation"])


def as_table(table: Any, names: Sequence[str], where: str) -> np.ndarray:
    """Return rows of numbers as a table [N, I] in float64.

    Raises:
        InputError: if rows are of another width or not numbers.
    """
    try:
        rows = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(where, expected=f"rows of {len(names)} numbers", got=str(error)) from error
    rows = rows.reshape(0, len(names)) if rows.shape == (0,) else rows
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise InputError(
            where, expected=f"rows of {len(names)} numbers: {', '.join(names)}", got=f"shape {list(rows.shape)}"
        )
    return rows


def refuse_nan(rows: np.ndarray, names: Sequence[str], where: str) -> None:
    """Refuse NaN and infinite numbers among inputs.

    Raises:
        InputError: naming the first row and column.
    """
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{where}, row {row}, column {names[column]!r}",
            expected="a finite number",
            got=str(rows[row, column]),
            fix="fill or drop such rows",
        )
