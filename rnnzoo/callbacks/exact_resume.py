"""What a checkpoint needs beside Lightning's own so that a resumed training is the uninterrupted one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor


class BestCheckpoint(ModelCheckpoint):
    """The best checkpoint by a validation metric; a folder that was moved still knows its own.

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

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was best, at the place where the folder is now."""
        here = str(self.dirpath)
        found = dict(state_dict, dirpath=here)
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            found[name] = moved(found[name], here)
        found["best_k_models"] = {moved(path, here): score for path, score in found["best_k_models"].items()}
        super().load_state_dict(found)


def moved(path: str, folder: str) -> str:
    """Return the path of the same file in another folder.

    >>> moved("/old/best.ckpt", "/new"), moved("", "/new")
    ('/new/best.ckpt', '')
    """
    return str(Path(folder) / Path(path).name) if path else path


class LastCheckpoint(Checkpoint):
    """A checkpoint of all finished epochs, ``last.ckpt``, with the state of the random generators.

    It is written when the next epoch begins or the training ends: at the end of an epoch, where Lightning writes its
    own, schedulers that watch a metric have yet to take their step. A training that is resumed from it goes on as if it
    had never stopped: on as many processes, with no worker that draws random numbers, and but for kernels that were
    compiled meanwhile, which round otherwise.

    Args:
        folder: where it goes.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self._random: list[dict[str, Any]] = []  # of each process, until training goes on
        self._between = False  # whether a checkpoint is being written at the beginning of an epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators as they were, if this goes on from a checkpoint; else write one of the epochs before."""
        if self._random:
            if len(self._random) == trainer.world_size:  # other processes get numbers of their own
                set_random_state(self._random[trainer.global_rank])
            self._random = []
        elif trainer.current_epoch > 0:
            self._between = True
            trainer.save_checkpoint(self.path)
            self._between = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the checkpoint of all epochs."""
        trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take back that Lightning has counted the epoch that begins: it would count as one that was broken off."""
        if self._between:
            counts = checkpoint["loops"]["fit_loop"]["epoch_progress"]
            counts["total"]["ready"] -= 1
            counts["current"]["ready"] -= 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the generators of all processes, as plain numbers and tensors."""
        states: list[Any] = [random_state()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, random_state())
        return {"random": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state of the generators until the first epoch begins, since getting there draws numbers too."""
        self._random = list(state_dict["random"])


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
