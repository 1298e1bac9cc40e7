"""Going on with a run that was interrupted: what it left in its folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lightning import LightningModule
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger

from rnnzoo.cli.fit import TITLE
from rnnzoo.errors import InputError
from rnnzoo.report import write_whole


@dataclass(frozen=True)
class Interrupted:
    """A run that can be gone on with.

    Args:
        folder: its folder.
        title: the recipe it is a run of.
        config: its configuration.
        checkpoint: the last one.
        epochs: finished epochs that are in it.
        steps: optimizer steps that are in it.
    """

    folder: Path
    title: str
    config: Path
    checkpoint: Path
    epochs: int
    steps: int

    def check(self, model: LightningModule, *, epochs: int | None, steps: int) -> None:
        """See that there is something left to train, and that it is the same model; nothing is changed before this.

        Args:
            model: the model that was built anew.
            epochs: how many there are to be, if that is limited; None and -1 are no limit.
            steps: likewise.

        Raises:
            InputError: if not.
        """
        where = f"--resume {self.folder}"
        stored = read_checkpoint(self.checkpoint)
        if has_stopped(stored) and (self.folder / "report.json").is_file():
            raise InputError(
                where,
                expected="a run with something left to train",
                got=f"one that stopped by itself after {self.epochs} epochs",
                fix="train anew without EarlyStopping, or with more patience",
            )
        ended = 0 <= (-1 if epochs is None else epochs) <= self.epochs or 0 <= steps <= self.steps
        if ended and (self.folder / "report.json").is_file():
            raise InputError(
                where,
                expected="a run with something left to train",
                got=f"one that is finished after {self.epochs} epochs, {self.steps} steps",
                fix="give a higher --trainer.max_epochs or --trainer.max_steps",
            )
        weights = stored["state_dict"]
        shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        for name in sorted({*weights, *shapes}):
            before, now = (tuple(weights[name].shape) if name in weights else None), shapes.get(name)
            if before != now:
                raise InputError(
                    where,
                    expected=f"the model that was trained there, with {name} of shape {before}",
                    got=f"shape {now}",
                    fix="are the data others than they were?",
                )


def find_interrupted(folder: Path) -> Interrupted:
    """Look at what a run left.

    Raises:
        InputError: if this is no run folder, or the run had not finished an epoch.
    """
    config, checkpoint = folder / "config.yaml", folder / "checkpoints" / "last.ckpt"
    where = f"--resume {folder}"
    if not config.is_file():
        raise InputError(where, expected="a run folder, with the config.yaml of its run", got="none")
    if not checkpoint.is_file():
        fix = f"train anew: rnnzoo fit {config}"
        raise InputError(where, expected="a run that came to a checkpoint (checkpoints/last.ckpt)", got="none", fix=fix)
    first = config.read_text(encoding="utf-8").partition("\n")[0]
    title = first.removeprefix(TITLE) if first.startswith(TITLE) else folder.name
    stored = read_checkpoint(checkpoint)
    return Interrupted(folder, title, config, checkpoint, int(stored["epoch"]), int(stored["global_step"]))


def has_stopped(stored: Mapping[str, Any]) -> bool:
    """Return whether the training of a checkpoint was ended by a callback that watched a metric."""
    callbacks = stored.get("callbacks", {}).items()
    return any(name.startswith("EarlyStopping") and state.get("stopped_epoch", 0) > 0 for name, state in callbacks)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; its tensors stay on disk until they are looked at.

    Raises:
        InputError: if it cannot be read.
    """
    import torch

    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found["epoch"], found["global_step"], found["state_dict"]
    except (OSError, RuntimeError, UnpicklingError, EOFError, KeyError) as error:
        fix = f"train anew: rnnzoo fit {path.parents[1] / 'config.yaml'}"
        raise InputError(str(path), expected="a checkpoint", got="a file that is damaged", fix=fix) from error
    return found


class ContinuedCSVLogger(CSVLogger):
    """Lightning's CSV logger, but the rows of earlier steps stay; it would remove them.

    Args:
        steps: optimizer steps that a checkpoint contains; rows of later ones are made again.
        place: arguments of Lightning's logger.
    """

    def __init__(self, *, steps: int, **place: Any) -> None:
        super().__init__(**place)
        self.steps = steps

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return what writes the rows, with the earlier ones already there."""
        if self._experiment is not None:
            return self._experiment
        path = Path(self.log_dir) / "metrics.csv"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        lines = text.splitlines()
        header, *rows = list(csv.reader(lines)) or [[]]
        writer = super().experiment
        if "step" in header:
            place = header.index("step")
            kept = [line for line, row in zip(lines[1:], rows, strict=True) if int(row[place]) < self.steps]
            write_whole(path, "\n".join([lines[0], *kept]) + "\n")
            writer.metrics_keys = header
        return writer
