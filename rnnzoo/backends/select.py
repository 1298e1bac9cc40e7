"""Which backend runs a cell, and why."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from rnnzoo.backends import BACKENDS, native
from rnnzoo.cells.base import Cell
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.state import State


class Run(Protocol):
    """What a backend is."""

    def __call__(self, cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State | None) -> tuple[Tensor, State]:
        """Run `cell` over `inputs`; see `rnnzoo.backends.reference.run`."""
        ...


class Choice(NamedTuple):
    """A backend, by name and as a function, with the reason for it."""

    name: str
    run: Run
    reason: str


def choose(cell: Cell, backend: str = "auto") -> Choice:
    """Return the backend that runs `cell`: the one asked for, or with ``auto`` the fastest that can.

    Raises:
        InputError: for an unknown backend, or one that cannot run this cell.
    """
    refused = native.refusal(cell)
    if backend == "auto":
        name = "reference" if refused else "native"
        return Choice(name, BACKENDS[name], refused or "torch has a kernel for this cell")
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, ["auto", *BACKENDS])
    if backend == "native" and refused:
        raise InputError(
            "backend", expected="one that can run the cell", got=f"'native', but {refused}", fix="use auto"
        )
    return Choice(backend, BACKENDS[backend], "asked for")
