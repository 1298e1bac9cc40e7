"""Where a command writes: seen to be possible before the work begins, and there only when it is whole."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rnnzoo.errors import InputError
from rnnzoo.files import atomic_file
from rnnzoo.terminal import echo


def print_note(text: str) -> None:
    """Print a line to standard error about what was decided."""
    echo(f"note: {text}", file=sys.stderr)


@contextmanager
def open_target(option: str, target: str, *, keep: bool = False) -> Iterator[IO[Any]]:
    """Open standard output, or a new text file that appears under its name only when it is closed.

    Args:
        option: the option that names it, for messages.
        target: the file, or - for standard output.
        keep: whether what was written before an error is kept; else there is no file then.

    Raises:
        InputError: if there cannot be such a file.
    """
    if target == "-":
        yield sys.stdout
        sys.stdout.flush()
        return
    path = Path(target)
    check_file(option, path)
    failure: BaseException | None = None
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8")
        try:
            yield text
        except BaseException as error:
            text.flush()
            if not keep or file.tell() == 0:
                raise
            failure = error
        finally:
            text.detach()  # which flushes it
    if failure is not None:
        raise failure


def check_file(option: str, path: Path) -> None:
    """See that a new file can be written in a folder that is there.

    Raises:
        InputError: if not, with why.
    """
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}", expected="a file in a folder that exists", got=f"no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{option} {path}", expected="a file", got="a folder")
    if path.exists():
        raise InputError(f"{option} {path}", expected="a new file", got="one that exists", fix="name another")
    check_writable(option, path)


def check_writable(option: str, path: Path) -> None:
    """See that a file or folder can be made, with the folders above it that are missing.

    Raises:
        InputError: naming the folder in which it cannot.
    """
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise InputError(f"{option} {path}", expected="a place in a folder", got=f"{above}, which is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {path}", expected="a folder that can be written to", got=f"{above}, which this user may not"
        )
