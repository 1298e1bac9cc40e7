"""The laws that hold for every cell on every backend, to be run on a cell of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from rnnzoo.backends import BACKENDS
from rnnzoo.backends.select import REFUSALS, choose
from rnnzoo.cells import CELLS, make_cell
from rnnzoo.cells.base import Cell
from rnnzoo.cells.registration import check_cell_class, register_cell
from rnnzoo.testing.backend_laws import BACKEND_LAWS, SETTINGS, fewer_digits_are_near, reference_is_equalled
from rnnzoo.testing.cell_laws import CELL_LAWS
from rnnzoo.testing.trial import DifferenceError, Subject, Trial

__all__ = ["BrokenLawError", "check_cell", "list_laws"]


class BrokenLawError(AssertionError):
    """A cell does not keep a law; the message has the law, the backend, the setting and what differs."""


def check_cell(
    cell: str | type[Cell],
    *,
    input_size: int = 3,
    hidden_size: int = 4,
    backends: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Run all laws on a cell, on every backend that can run it.

    Lengths, chunks, single steps, rows, padding, both directions, in-place changes, gradients against the reference,
    number types; see `list_laws`. It takes about a second, needs no test framework, and leaves random numbers alone.

    Args:
        cell: a class, registered or not, or the name of a registered one.
        input_size: I of the cells that are built.
        hidden_size: H, for a cell that cannot have any.
        backends: names of those to look at; None takes all that can run the cell.
        options: further arguments of the cell.

    Raises:
        BrokenLawError: for the first law that does not hold.
        InputError: for a class that cannot be registered, an unknown name or option, or a backend that cannot run it.

    >>> check_cell("gru", backends=["native"])
    """
    with torch.random.fork_rng(devices=[]), without_compiler(), named_cell(cell) as name:
        first = make_cell(name, input_size=input_size, hidden_size=hidden_size, **options)
        if backends is None:
            backends = [each for each in BACKENDS if each not in REFUSALS or not REFUSALS[each](first)]
        for backend in backends:
            choose(first, backend)
        title = cell if isinstance(cell, str) else cell.__name__
        subjects = [Subject(name, backend, input_size, hidden_size, options) for backend in backends]
        for law in CELL_LAWS:
            keep(law, title, "", "", Subject(name, "reference", input_size, hidden_size, options))
        for subject in subjects:
            check_backend(subject, title)


def check_backend(subject: Subject, title: str) -> None:
    """Run the laws of backends in all settings."""
    for lengths, layers, both in SETTINGS:
        setting = describe(lengths, layers, both)
        make = partial(subject.trial, lengths, num_layers=layers, bidirectional=both)
        trial = make()
        if subject.backend != "reference":
            keep(reference_is_equalled, title, subject.backend, setting, subject, trial, make(backend="reference"))
        for law in BACKEND_LAWS:
            keep(law, title, subject.backend, setting, subject, trial)
        if both:
            narrow = make(dtype=torch.float32)
            keep(fewer_digits_are_near, title, subject.backend, f"{setting}, float32", subject, narrow, trial)


def keep(law: Callable[..., None], title: str, backend: str, setting: str, *arguments: Subject | Trial) -> None:
    """Try a law.

    Raises:
        BrokenLawError: if it does not hold, or what it calls raises an error.
    """
    try:
        law(*arguments)
    except Exception as error:
        got = f"expected {error}" if isinstance(error, DifferenceError) else f"got {type(error).__name__}: {error}"
        where = f"cell {title}" + (f", backend {backend} ({setting})" if backend else "")
        raise BrokenLawError(f"{where}: {text_of(law)} Here: {got}") from error


def text_of(law: Callable[..., None]) -> str:
    """Return a law in words."""
    return " ".join((law.__doc__ or law.__name__).split())


def list_laws() -> list[str]:
    """Return the laws that `check_cell` runs, in words."""
    return [text_of(law) for law in (*CELL_LAWS, *BACKEND_LAWS, reference_is_equalled, fewer_digits_are_near)]


def describe(lengths: list[int] | None, layers: int, both: bool) -> str:
    """Return a setting in words."""
    given = "no lengths" if lengths is None else f"lengths {' '.join(map(str, lengths))}"
    return f"{given}, {layers} layer{'s' if layers > 1 else ''}, {'both directions' if both else 'one direction'}"


@contextmanager
def named_cell(cell: str | type[Cell]) -> Iterator[str]:
    """Give a class a name for as long as it is looked at; a name is kept."""
    if isinstance(cell, str):
        check_cell_class(CELLS[cell], f"cell {cell!r}")
        yield cell
        return
    name = f"{getattr(cell, '__name__', 'cell')}_under_test"
    register_cell(name)(cell)
    try:
        yield name
    finally:
        CELLS.remove(name)


@contextmanager
def without_compiler() -> Iterator[None]:
    """Run plain kernels: compiling takes longer than all laws."""
    before = os.environ.get("RNNZOO_COMPILE")
    os.environ["RNNZOO_COMPILE"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["RNNZOO_COMPILE"]
        else:
            os.environ["RNNZOO_COMPILE"] = before
