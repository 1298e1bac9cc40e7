"""Text for terminals: what is in data never moves the cursor, changes colours or turns the order of letters."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any

# C0 but tab and line feed, DEL, C1, marks of the writing direction, and surrogates, which no encoding holds.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    r"""Return a text with control characters and marks of the writing direction as they are written in Python.

    >>> print(escape("\x1b[2Jred\u202e"))
    \x1b[2Jred\u202e
    """
    return UNSAFE.sub(lambda found: f"\\x{ord(found[0]):02x}" if found[0] < "\u0100" else as_unicode(found), text)


def as_unicode(found: re.Match[str]) -> str:
    """Return a character as JSON and Python write it by its number."""
    return f"\\u{ord(found[0]):04x}"


def to_json(value: Any, **options: Any) -> str:
    r"""Return a value as JSON that is safe to print: unsafe characters by their numbers, all others as they are.

    >>> print(to_json({"täg": "\x9b\u202e"}))
    {"täg": "\u009b\u202e"}
    """
    return UNSAFE.sub(as_unicode, json.dumps(value, ensure_ascii=False, **options))


def echo(text: object = "", *, file: IO[str] | None = None, end: str = "\n") -> None:
    """Print a text without unsafe characters, at once.

    Args:
        text: what to print.
        file: standard output if left out.
        end: what follows.
    """
    print(escape(str(text)), end=end, file=file, flush=True)


class EscapedOutput:
    """A stream that escapes what is written to it, and is in all else the stream behind it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without unsafe characters."""
        return self._stream.write(escape(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def escaped_stdout() -> Iterator[None]:
    """Escape what libraries print."""
    with redirect_stdout(EscapedOutput(sys.stdout)):
        yield


def format_warning(message: Any, category: Any, filename: str, lineno: int, line: str | None = None) -> str:
    """Return a warning as Python prints it, without unsafe characters; for `warnings.formatwarning`."""
    return escape(f"{filename}:{lineno}: {category.__name__}: {message}\n")


def print_traceback(kind: Any, error: Any, trace: Any) -> None:
    """Print an error that is a bug, as Python does, without unsafe characters; for `sys.excepthook`."""
    echo("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), file=sys.stderr)
