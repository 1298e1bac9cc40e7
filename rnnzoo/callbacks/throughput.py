"""How fast the training runs, and how much memory it took."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from rnnzoo.memory import peak_resident

MEBIBYTE = 2**20


class Throughput(Callback):
    """Log the items per second of each training epoch, validation excluded.

    An item is what lengths count: a token, a frame; for batches without lengths, a sample. Logged as
    ``train/items_per_second``, summed over all processes. `steady_rate` is the median over batches: pauses that come
    once, such as for compiling, do not show in it. All counts go on in a training that is resumed, and so does the wall
    time, which begins with this object.
    """

    def __init__(self) -> None:
        self.epochs_before: list[int] = []  # after how many epochs the training was resumed, each time
        self._wall_before = 0.0
        self._created = time.perf_counter()
        self.items = 0  # of this process, over the whole training
        self.seconds = 0.0
        self.batch_rates: list[float] = []  # items per second of each batch of this process, with its loading
        self._epoch_items = 0
        self._epoch_seconds = 0.0
        self._started = 0.0
        self._batch_started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock: a training that is resumed within an epoch does not come to its start."""
        self._started = self._batch_started = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new count."""
        self._epoch_items, self._epoch_seconds, self._started = 0, 0.0, time.perf_counter()
        self._batch_started = self._started

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the items of a batch."""
        lengths = getattr(batch, "lengths", None)
        items = int(lengths.sum()) if lengths is not None else len(batch.ids)
        self._epoch_items += items
        now = time.perf_counter()
        self.batch_rates.append(items / max(now - self._batch_started, 1e-9))
        self._batch_started = now

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        if self._started:
            self._epoch_seconds += time.perf_counter() - self._started
            self._started = 0.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        if not trainer.sanity_checking:
            self._started = self._batch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rate of the epoch."""
        self._epoch_seconds += time.perf_counter() - self._started
        self._started = 0.0
        self.items += self._epoch_items
        self.seconds += self._epoch_seconds
        pl_module.log("train/items_per_second", self.rate(self._epoch_items, self._epoch_seconds, trainer.world_size))

    def wall_seconds(self) -> float:
        """Return the seconds since this was made, and those of the processes before that this one resumes."""
        return self._wall_before + time.perf_counter() - self._created

    def state_dict(self) -> dict[str, Any]:
        """Return all counts, as plain numbers and tensors."""
        return {
            "items": self.items,
            "seconds": self.seconds,
            "batch_rates": torch.tensor(self.batch_rates, dtype=torch.float64),
            "wall_seconds": self.wall_seconds(),
            "epochs_before": self.epochs_before,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the counts of a checkpoint."""
        self.items, self.seconds = state_dict["items"], state_dict["seconds"]
        self.batch_rates = state_dict["batch_rates"].tolist()
        self._wall_before = state_dict["wall_seconds"]
        self.epochs_before = [*state_dict["epochs_before"], *self.epochs_before]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note where the training is resumed; the counts are loaded after this."""
        self.epochs_before = [checkpoint["epoch"]]

    def steady_rate(self, processes: int) -> float:
        """Return the median over batches of the items per second, over all processes as `rate` does."""
        return median(self.batch_rates) * processes if self.batch_rates else 0.0

    @staticmethod
    def rate(items: int, seconds: float, processes: int) -> float:
        """Return items per second over all processes, taking each to have had as many."""
        return items * processes / max(seconds, 1e-9)


def peak_memory(device: torch.device) -> float:
    """Return the largest memory this process has held, in MiB: of the GPU it trains on, else resident memory."""
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()
    return held / MEBIBYTE
