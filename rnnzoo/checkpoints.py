"""Lightning's checkpoints as files: written whole, read only as plain values and tensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from rnnzoo.errors import InputError
from rnnzoo.files import atomic_file
from rnnzoo.recipes import read_recipe

CONFIG = "config.yaml"  # of a run: itself a recipe
FOLDER, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"  # in a run folder


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way of writing checkpoints, but beside their target and then renamed.

    Lightning writes into the system's temporary folder and moves the file; between two file systems that is a copy, and
    a process that is killed meanwhile leaves half a checkpoint where the one before was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint to a file that is whole or as it was."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # where a disk is full, torch raises what does not say so
        torch.save(checkpoint, buffer)
        with atomic_file(path) as file:
            file.write(buffer.getbuffer())


class StoredModel(NamedTuple):
    """What a run folder without a finished model tells of its model.

    Args:
        path: the checkpoint.
        config: class, arguments and data of the model, as in the ``config.json`` of a model folder.
        processor: as JSON values.
        weights: the ``state_dict``.
        note: a sentence that says what was taken.
    """

    path: Path
    config: dict[str, Any]
    processor: Any
    weights: dict[str, Tensor]
    note: str


def is_unfinished(run: Path) -> bool:
    """Return whether a folder is that of a run with a checkpoint and without a finished model."""
    finished = (run / "model").is_dir() or not (run / CONFIG).is_file()
    return not finished and any((run / FOLDER / name).is_file() for name in (BEST, LAST))


def stored_model(run: Path) -> StoredModel:
    """Return the model of a run that was interrupted or still runs: its best checkpoint, or the last.

    Raises:
        InputError: if neither can be read, or the configuration of the run is damaged.
    """
    path, stored = newest_readable(run, (BEST, LAST))
    recipe = read_recipe(run / CONFIG)
    try:
        arguments = dict(stored["hyper_parameters"])
        processor = arguments.pop("processor")
        name = str(recipe["model"]["class_path"]).rpartition(".")[2]
        imports = [str(each) for each in recipe.get("imports") or []]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(str(path), expected="a checkpoint of a run of rnnzoo", got=f"no {error}") from error
    own = {arguments["cell"]: " --import ".join(imports)} if imports and isinstance(arguments.get("cell"), str) else {}
    config = {"model": name, "arguments": arguments, "own_cells": own, "data": recipe.get("data")}
    note = (
        f"{run} has no finished model: the weights are those of {FOLDER}/{path.name}, after {stored['epoch']} epochs, "
        f"{stored['global_step']} steps"
    )
    return StoredModel(path, config, processor, stored["state_dict"], note)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, after a comparison with the checksums in it, which torch leaves out.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()
        if damaged is not None:
            raise BadZipFile(damaged)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for key, kind in (("epoch", int), ("global_step", int), ("state_dict", dict), ("callbacks", dict)):
            if not isinstance(checkpoint[key], kind):
                raise TypeError(key)
    except Exception as error:  # damaged bytes make torch and pickle raise anything
        state = "a file that is damaged" if path.is_file() else "nothing"
        raise InputError(str(path), expected="a checkpoint", got=state) from error
    return checkpoint


def newest_readable(run: Path, names: tuple[str, ...]) -> tuple[Path, dict[str, Any]]:
    """Return the first checkpoint of a run folder that can be read, and what it holds.

    Args:
        run: the run folder.
        names: file names in the order of preference.

    Raises:
        InputError: for the first that is there, if none can be read.
    """
    refused: InputError | None = None
    for name in names:
        path = run / FOLDER / name
        if not path.is_file():
            continue
        try:
            return path, read_checkpoint(path)
        except InputError as error:
            refused = refused or error
    raise refused or InputError(str(run / FOLDER), expected=f"a checkpoint ({' or '.join(names)})", got="none")
