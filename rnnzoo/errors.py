"""One format for every error that a user can cause, and the "did you mean" behind it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message always reads ``where: expected …, got …; what to do``. The command line prints it as one line and
    exits with code 2; from Python it is a `ValueError`.

    Args:
        where: the file, argument, key or sample in question.
        expected: what would have been right.
        got: what came instead.
        fix: what to do about it; left out where it is obvious.

    >>> raise InputError("data.batch_size", expected="an integer of at least 1", got="0", fix="give 1 or more")
    Traceback (most recent call last):
    rnnzoo.errors.InputError: data.batch_size: expected an integer of at least 1, got 0; give 1 or more
    """

    def __init__(self, where: str, *, expected: str, got: str, fix: str = "") -> None:
        message = f"{where}: expected {expected}, got {got}" + (f"; {fix}" if fix else "")
        super().__init__(message.replace("\r", "\\r").replace("\n", "\\n"))  # names in data may hold line ends

    @classmethod
    def from_text(cls, text: str) -> InputError:
        """Return the error whose message is `text`."""
        error = cls.__new__(cls)
        error.args = (text,)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return InputError.from_text, (str(self),)  # so that it comes whole out of another process


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest of `choices`, or an empty string if none is near.

    >>> did_you_mean("lstmm", ["lstm", "gru"])
    "did you mean 'lstm'?"
    """
    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def unknown_name(where: str, name: object, choices: Iterable[str], *, hint: str = "") -> InputError:
    """Build the error for a name that is in no list, with all names and the nearest one, or `hint` if none is near.

    >>> str(unknown_name("cell", "lstmm", ["gru", "lstm"]))
    "cell: expected one of gru, lstm, got 'lstmm'; did you mean 'lstm'?"
    """
    names = sorted(choices)
    return InputError(
        where, expected=f"one of {', '.join(names)}", got=repr(name), fix=did_you_mean(str(name), names) or hint
    )


def check_share(where: str, share: float) -> float:
    """Return a share, such as that of dropout, if it is one.

    Raises:
        InputError: if it is below 0, or 1 and above.

    >>> check_share("model.dropout", 0.5)
    0.5
    """
    if not 0 <= share < 1:
        raise InputError(where, expected="a share of at least 0 and below 1", got=str(share))
    return share


def check_list(where: str, values: Any, of: str = "") -> Iterator[Any]:
    """Yield the values of a list; to Python, one text is a list of characters.

    Args:
        where: for the message.
        values: any iterable but a text or a mapping.
        of: what each value is a list of, if they are lists; they come as such then.

    Raises:
        InputError: for anything else than a list, or (where `of` says so) a list of lists.

    >>> list(check_list("tag", [("The", "cat")], of="words"))
    [['The', 'cat']]
    """
    for value in need_list(where, values, f"a list of lists of {of}" if of else "a list"):
        yield list(need_list(where, value, f"a list of {of} in the list")) if of else value


def need_list(where: str, values: Any, expected: str) -> Iterable[Any]:
    """Return `values` unless they are a text, a mapping or nothing that can be gone through."""
    if not isinstance(values, str | bytes | Mapping):
        try:
            iter(values)
        except TypeError:  # an array of no axes is called iterable, too
            pass
        else:
            found: Iterable[Any] = values
            return found
    raise InputError(where, expected=expected, got=repr(values)[:80], fix="put it into a list: [...]")


def refused_place(error: BaseException) -> InputError | None:
    """Return what to say of a file or folder that the system refuses; None for any other error.

    >>> str(refused_place(NotADirectoryError(20, "Not a directory", "a.csv/run")))
    'a.csv/run: expected a file or folder that can be used so, got Not a directory; --debug shows where'
    """
    if not isinstance(error, OSError) or error.filename is None or not error.strerror:
        return None
    return InputError(
        str(error.filename),
        expected="a file or folder that can be used so",
        got=error.strerror,
        fix="--debug shows where",
    )


def find_input_error(error: BaseException) -> InputError | None:
    """Return the `InputError` that is, or is behind, an error that a library has wrapped; None if there is none.

    Of an error in a worker process, torch hands on the text alone, as a `RuntimeError`.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return cause
        if isinstance(cause, RuntimeError) and str(cause).startswith("Caught InputError in "):
            return InputError.from_text(str(cause).rpartition("InputError: ")[2].strip())
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None
