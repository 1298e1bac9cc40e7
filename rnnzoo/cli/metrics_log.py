"""The logged metrics of a run as a CSV file, which a resumed run continues."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from rnnzoo.documents import read_metrics
from rnnzoo.files import write_atomically

NAME = "metrics.csv"


class MetricsLog(Logger):
    """Write what is logged to ``metrics.csv``, a row for each call and a column for each metric.

    Lightning's `CSVLogger` removes the rows that are there, and rewrites the file in place when a metric is new.

    Args:
        folder: the run folder.
        steps: optimizer steps that the checkpoint contains from which the run is resumed; rows of later steps are
            logged again.
    """

    def __init__(self, folder: Path, *, steps: int = 0) -> None:
        super().__init__()
        self.folder = folder
        self.steps = steps
        self._columns: list[str] = []
        self._new: list[dict[str, Any]] = []
        self._started = False

    @property
    def name(self) -> str:
        """The name of the run folder."""
        return self.folder.name

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder; the Trainer takes it as its folder for logs."""
        return str(self.folder)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row, which `save` writes."""
        self._new.append({**metrics, "step": 0 if step is None else step})

    @rank_zero_only
    def save(self) -> None:
        """Write the new rows: at the end of the file if its columns suffice, else with a new header."""
        if not self._new:
            return
        path = self.folder / NAME
        self.folder.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        if not self._started:
            rows = [row for row in read_rows(path) if int(row["step"]) < self.steps]
        columns = sorted({*self._columns, *(name for row in [*rows, *self._new] for name in row)})
        if self._started and columns == self._columns:
            with path.open("a", newline="", encoding="utf-8") as file:
                file.write(as_csv(self._new, columns))
        else:
            rows = read_rows(path) if self._started else rows
            header = as_csv([dict(zip(columns, columns, strict=True))], columns)
            write_atomically(path, header + as_csv([*rows, *self._new], columns))
        self._columns, self._new, self._started = columns, [], True


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of metrics that tell their step."""
    return [dict(row) for row in read_metrics(path) if str(row.get("step")).isdecimal()]


def as_csv(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Return rows as lines of CSV; what a row lacks is empty."""
    text = io.StringIO()
    csv.DictWriter(text, fieldnames=columns, restval="").writerows(rows)
    return text.getvalue()
