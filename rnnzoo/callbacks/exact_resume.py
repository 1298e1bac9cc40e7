"""What a checkpoint needs beside Lightning's own so that a resumed training is the uninterrupted one."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from rnnzoo.errors import InputError
from rnnzoo.models.training import gathered

BATCHES_BETWEEN_LOOKS = 20  # at the clock: all processes have to agree


class BestCheckpoint(ModelCheckpoint):
    """The best checkpoint by a validation metric; a folder that was moved still knows its own.

    Of two that are equal in the metric, the one with the lower validation loss is better: a metric that stays at 0 for
    some epochs would else keep the weights of the first.

    Args:
        folder: where it goes, as ``best.ckpt``.
        metric: the logged metric, without ``val/``.
        mode: ``min`` or ``max``.
    """

    def __init__(self, folder: Path, *, metric: str, mode: str) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=f"val/{metric}",
            mode=mode,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )
        self._best_loss: float | None = None  # validation loss of the best

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current weights are better than the best before."""
        better = super().check_monitor_top_k(trainer, current)
        logged = trainer.callback_metrics.get("val/loss")
        loss = None if logged is None else float(logged)
        tied = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        if not better and tied and loss is not None and self._best_loss is not None:
            better = trainer.strategy.reduce_boolean_decision(loss < self._best_loss)
        if better:
            self._best_loss = loss
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the state of Lightning's class, and the loss of the best."""
        return {**super().state_dict(), "best_loss": self._best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best, at the place where the folder is now."""
        here = str(self.dirpath)
        found = dict(state_dict, dirpath=here)
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            found[name] = moved(found[name], here)
        found["best_k_models"] = {moved(path, here): score for path, score in found["best_k_models"].items()}
        self._best_loss = found.pop("best_loss", None)
        super().load_state_dict(found)


def moved(path: str, folder: str) -> str:
    """Return the path of the same file in another folder.

    >>> moved("/old/best.ckpt", "/new"), moved("", "/new")
    ('/new/best.ckpt', '')
    """
    return str(Path(folder) / Path(path).name) if path else path


class LastCheckpoint(Checkpoint):
    """A checkpoint from which a training goes on as if it had never stopped, ``last.ckpt``.

    It is written between epochs, every few minutes within one, and when the training ends. To what Lightning stores it
    adds the random generators of all processes and the place in the data; and it comes later than Lightning's own, for
    at the end of an epoch, schedulers that watch a metric have yet to take their step. The same weights come
    out, on CPUs bit by bit: on as many processes (one or two; the sums of more may be in another order) and threads, if
    no worker draws random numbers. Metrics of the training split are those of the rest of the epoch.

    Args:
        folder: where it goes.
        seconds: time between two of them within an epoch.
    """

    def __init__(self, folder: Path, *, seconds: float = 600) -> None:
        self.path = folder / "last.ckpt"
        self.seconds = seconds
        self._written = time.monotonic()
        self._random: list[dict[str, Any]] = []  # of each process, until training goes on
        self._between = False  # whether a checkpoint is being written at the beginning of an epoch
        self._resumed = False  # whether the first epoch goes on from a checkpoint
        self._place: list[int] = []  # epoch and batch at which the training goes on, and the batches of an epoch then

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators as they were, if this goes on from a checkpoint: getting here draws numbers too.

        Raises:
            InputError: if it goes on within an epoch that is cut into other batches now.
        """
        if self._place and self._place[1] > 0 and self._place[2] != trainer.num_training_batches:
            raise InputError(
                f"going on within epoch {self._place[0]}",
                expected=f"{self._place[2]} batches an epoch, as there were",
                got=str(trainer.num_training_batches),
                fix="leave the data and the size of batches as they were",
            )
        if len(self._random) == trainer.world_size:  # other processes get numbers of their own
            set_random_state(self._random[trainer.global_rank])
        self._resumed = len(self._random) > 0
        self._random = []
        self._written = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write a checkpoint of the epochs before."""
        if trainer.current_epoch > 0 and not self._resumed:
            self._between = True
            self._write(trainer)
            self._between = False
        self._resumed = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if it is time to, and nothing is left of this batch but what is in it."""
        loop = trainer.fit_loop.epoch_loop
        trainer.fit_loop._restarting = False  # else a resumed epoch ends without its schedulers' steps
        asked = (batch_idx + 1) % BATCHES_BETWEEN_LOOKS == 0 and not loop.batch_progress.is_last_batch
        validated = trainer.val_check_batch  # None where time decides
        asked = asked and not (validated and (batch_idx + 1) % validated == 0)  # what comes now would not be in it
        if asked and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            late = time.monotonic() - self._written >= self.seconds
            if trainer.strategy.reduce_boolean_decision(late, all=False):
                self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last checkpoint."""
        self._write(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the place in the data, and make Lightning's counts those of a training that stands between batches."""
        loop = checkpoint["loops"]["fit_loop"]
        epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]
        done = batches["current"]["ready"]
        state = checkpoint["callbacks"][self.state_key]
        if self._between:  # the epoch that begins is counted, and would be taken for one that was broken off
            shift(epochs, "ready")
            batches["current"] = dict.fromkeys(batches["current"], 0)  # with limited steps they would end it
            batches["is_last_batch"] = False
            done = 0
        elif epochs["current"]["completed"] == epochs["current"]["ready"] and 0 < done < trainer.num_training_batches:
            # The training ended within an epoch, which is counted as one that was finished.
            shift(epochs, "processed", "completed")
            shift(batches, "completed")
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
            checkpoint["epoch"] -= 1
        elif epochs["current"]["completed"] < epochs["current"]["ready"]:  # the best, which comes before the last
            if trainer.validating:  # within an epoch or at its end: the step is not counted yet
                loop["epoch_loop.state_dict"]["_batches_that_stepped"] += done % trainer.accumulate_grad_batches == 0
            if done == trainer.num_training_batches:
                shift(epochs, *(["processed"] if trainer.validating else []), "completed", by=1)
                batches["current"] = dict.fromkeys(batches["current"], 0)
                batches["is_last_batch"] = False
                checkpoint["epoch"] += 1
                done = 0
        within = epochs["current"]["completed"] < epochs["current"]["ready"]
        state["place"] = [checkpoint["epoch"], done if within else 0, trainer.num_training_batches]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators of all processes, as plain numbers and tensors."""
        return {"random": gathered(random_state())}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Tell the data where the training goes on; a data module of another kind cannot be told."""
        resume_at = getattr(trainer.datamodule, "resume_at", None)  # type: ignore[attr-defined]
        self._place = checkpoint["callbacks"][self.state_key]["place"]
        if resume_at is not None:
            resume_at(*self._place[:2])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of the generators until the training goes on."""
        self._random = list(state_dict["random"])

    def _write(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._written = time.monotonic()


def shift(progress: dict[str, dict[str, int]], *counts: str, by: int = -1) -> None:
    """Change each of some counts of Lightning's progress."""
    for part in ("total", "current"):
        for count in counts:
            progress[part][count] += by


def random_state() -> dict[str, Any]:
    """Return the state of the generators of Python, NumPy and torch."""
    name, keys, *rest = np.random.get_state(legacy=True)
    version, numbers, spare = random.getstate()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "python": [version, list(numbers), spare],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *map(float, rest)],
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators as `random_state` found them."""
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
    name, keys, place, has_spare, spare_normal = state["numpy"]
    assert isinstance(keys, Tensor)
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(place), int(has_spare), spare_normal))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
