"""Going on with a run that was interrupted: what it left in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule

from rnnzoo.checkpoints import BEST, CONFIG, FOLDER, LAST, newest_readable, read_checkpoint
from rnnzoo.cli.output import print_note
from rnnzoo.cli.run_folder import lock_folder
from rnnzoo.documents import read_json, read_whole
from rnnzoo.errors import InputError

TITLE = "# a run of "  # how the configuration of a run begins; the recipe follows


@dataclass(frozen=True)
class Interrupted:
    """A run that can be resumed.

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

    def reported_steps(self) -> int:
        """Return the optimizer steps of the model that the run's report is about; -1 if there is none."""
        try:
            report = read_json(self.folder / "report.json", size="FILE_BYTES", values="JSON_VALUES")
            return int(report["training"]["steps"])
        except (ValueError, KeyError, TypeError):
            return -1

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
        if ended and self.reported_steps() >= self.steps:
            raise InputError(
                where,
                expected="a run with something left to train",
                got=f"one that is finished after {self.epochs} epochs, {self.steps} steps",
                fix="give a higher --trainer.max_epochs or --trainer.max_steps",
            )
        for name, limit, done in (("max_epochs", epochs, self.epochs), ("max_steps", steps, self.steps)):
            if limit is not None and 0 <= limit < done:
                expected = f"a limit of at least the {done} that are in its checkpoint"
                raise InputError(f"{where}: trainer.{name}", expected=expected, got=str(limit))
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


@contextmanager
def resume(folder: Path) -> Iterator[Interrupted]:
    """Lock the folder of a run that is to be resumed, and look at what the run left.

    Raises:
        InputError: as `find_interrupted`, and if another process works on the run.
    """
    check_run_folder(folder)
    with lock_folder(folder, f"--resume {folder}"):
        interrupted = find_interrupted(folder)
        if interrupted.checkpoint.name != LAST:
            state = "is damaged" if (folder / FOLDER / LAST).is_file() else "is missing"
            text = f"{folder / FOLDER / LAST} {state}: resumed from {BEST} ({interrupted.epochs} epochs finished)"
            print_note(text)
        yield interrupted


def check_run_folder(folder: Path) -> None:
    """See that there is a run folder.

    Raises:
        InputError: if there is none.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(f"--resume {folder}", expected=f"a run folder, with the {CONFIG} of its run", got="none")


def find_interrupted(folder: Path) -> Interrupted:
    """Look at what a run left: of its checkpoints the last, or the best if the last is damaged.

    Raises:
        InputError: if this is no run folder, or the run left no checkpoint that can be read.
    """
    check_run_folder(folder)
    config = folder / CONFIG
    fix = f"train anew: rnnzoo fit {config}"
    if not any((folder / FOLDER / name).is_file() for name in (LAST, BEST)):
        raise InputError(
            f"--resume {folder}",
            expected=f"a run that came to a checkpoint ({FOLDER}/{LAST})",
            got="none",
            fix=fix,
        )
    try:
        checkpoint, stored = newest_readable(folder, (LAST, BEST))
    except InputError as error:
        raise InputError.from_text(f"{error}; {fix}") from error
    first = read_whole(config, "CONFIG_BYTES").partition("\n")[0]
    title = first.removeprefix(TITLE) if first.startswith(TITLE) else folder.name
    return Interrupted(folder, title, config, checkpoint, int(stored["epoch"]), int(stored["global_step"]))


def has_stopped(stored: Mapping[str, Any]) -> bool:
    """Return whether the training of a checkpoint was ended by a callback that watched a metric."""
    callbacks = stored.get("callbacks", {}).items()
    return any(name.startswith("EarlyStopping") and state.get("stopped_epoch", 0) > 0 for name, state in callbacks)
