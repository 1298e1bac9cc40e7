"""Lightning's checkpoints as files: written whole, read only as plain values and tensors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from rnnzoo.errors import InputError
from rnnzoo.files import atomic_file

FOLDER, BEST, LAST = "checkpoints", "best.ckpt", "last.ckpt"  # in a run folder


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's way of writing checkpoints, but beside their target and then renamed.

    Lightning writes into the system's temporary folder and moves the file; between two file systems that is a copy, and
    a process that is killed meanwhile leaves half a checkpoint in the place of the one before.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint to a file that is whole or as it was."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()  # where a disk is full, torch raises what does not say so
        torch.save(checkpoint, buffer)
        with atomic_file(path) as file:
            file.write(buffer.getbuffer())


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
        for key in ("epoch", "global_step", "state_dict", "callbacks"):
            checkpoint[key]
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
