"""One line per epoch on the terminal, beside or instead of the progress bar."""

from __future__ import annotations

import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from rnnzoo.terminal import echo, escape

COLUMN_WIDTH = 12


class EpochTable(Callback):
    """Print the metrics after each epoch as a row of a table.

    Args:
        columns: the logged values to show, in order; one that is not logged is left out.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self._started = 0.0
        self._header: list[str] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the row of this epoch."""
        if not trainer.is_global_zero:
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = [name for name in self.columns if name in values]
        if shown != self._header:
            self._header = shown
            self._show(trainer, ["epoch", *(name.rjust(COLUMN_WIDTH) for name in shown), "seconds".rjust(8)])
        cells = [f"{values[name]:.4g}".rjust(max(COLUMN_WIDTH, len(name))) for name in shown]
        seconds = f"{time.perf_counter() - self._started:.0f}".rjust(8)
        self._show(trainer, [f"{trainer.current_epoch:5d}", *cells, seconds])

    @staticmethod
    def _show(trainer: Trainer, cells: list[str]) -> None:
        bar = trainer.progress_bar_callback
        if isinstance(bar, TQDMProgressBar) and bar.is_enabled:
            bar.print(escape("  ".join(cells)))  # above the bar, not into it
        else:
            echo("  ".join(cells))
