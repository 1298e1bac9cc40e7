"""Writing files so that each is whole or as it was: the only module that opens files for writing."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rnnzoo.errors import InputError

SUFFIX = ".tmp"  # of temporary files and folders: .NAME.XXXXXXXX.tmp, beside what they become
REPLACED = ".old"  # of a folder that is being replaced: .NAME.XXXXXXXX.old
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`, which takes its name once it is written and on disk.

    If anything is raised meanwhile, or the process is killed, what was at `path` stays as it was. The file gets the
    mode that any new file gets here, by the umask.

    Args:
        path: the file to write; its folder exists.

    Raises:
        InputError: naming the folder, if it is full or cannot be written to.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with named_folder(path):
            temporary = temporary_path(path)
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
            sync_folder(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is whole or as it was; see `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the name of `folder` once all of its files are written.

    A folder that is there is replaced. Two names cannot be exchanged at once everywhere: a process that is killed
    between the two steps leaves the old folder beside, from where `remove_leftovers` brings it back.

    Raises:
        InputError: naming the folder above, if it is full or cannot be written to.
    """
    folder = Path(folder)
    temporary: Path | None = None
    try:
        with named_folder(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_path(folder)
            temporary.mkdir()
            yield temporary
            replaced = temporary.with_suffix(REPLACED)
            if folder.exists():
                os.replace(folder, replaced)
            os.replace(temporary, folder)
            temporary = None
            sync_folder(folder.parent)
            shutil.rmtree(replaced, ignore_errors=True)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in a folder and the folders in it.

    A folder that was about to be replaced comes back. Only who knows that nobody else writes there may call this.
    """
    for path in sorted(folder.rglob(f".*{REPLACED}")):
        name = original_name(path)
        if name and path.is_dir():
            target = path.with_name(name)
            if target.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.replace(path, target)
    for path in sorted(folder.rglob(f".*{SUFFIX}")):
        if original_name(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def original_name(path: Path) -> str:
    """Return the name of what a temporary file or folder was to become; an empty string if it is none.

    >>> original_name(Path(".last.ckpt.k3_9xq0a.tmp")), original_name(Path(".hidden.tmp"))
    ('last.ckpt', '')
    """
    parts = path.name.split(".")
    return ".".join(parts[1:-2]) if parts[0] == "" and len(parts) > 3 and len(parts[-2]) == 8 else ""


@contextmanager
def named_folder(path: Path) -> Iterator[None]:
    """Turn what the system says of a full or protected folder into one line that names the folder.

    Raises:
        InputError: for such an `OSError`.
    """
    try:
        yield
    except OSError as error:
        ours = error.filename is None or Path(error.filename).parent == path.parent  # what is written has no name
        if error.errno not in (*NO_ROOM, *NOT_ALLOWED) or not ours:
            raise
        full = error.errno in NO_ROOM
        raise InputError(
            str(path.parent.absolute()),
            expected=f"{'room for' if full else 'a folder that can be written to, for'} {path.name}",
            got=os.strerror(error.errno or 0),
            fix="make room, or write elsewhere" if full else "",
        ) from error


def temporary_path(path: Path) -> Path:
    """Return a new name beside `path`."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")


def sync_folder(folder: Path) -> None:
    """Bring the names of a folder to disk, where the system can."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError:  # some network file systems refuse to
        pass
    finally:
        os.close(number)
