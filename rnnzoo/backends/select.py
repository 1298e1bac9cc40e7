"""Which backend runs a cell, and why."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rnnzoo.backends import BACKENDS, fused, native, scan
from rnnzoo.backends.base import Backend
from rnnzoo.backends.kernels import can_compile
from rnnzoo.cells.base import Cell
from rnnzoo.cells.gru import GRUCell
from rnnzoo.errors import InputError, unknown_name


class Choice(NamedTuple):
    """A backend, by name and as a function, with the reason for it."""

    name: str
    run: Backend
    reason: str


WIDE = 8192  # numbers in a state, B · H, from which a GRU is faster by compiled kernels, and any cell by plain ones
REFUSALS = {"native": native.refusal, "fused": fused.refusal, "scan": scan.refusal}


def choose(cell: Cell, backend: str = "auto", inputs: Tensor | None = None) -> Choice:
    """Return the backend that runs `cell`: the one asked for, or with ``auto`` the fastest that can.

    Args:
        cell: the cell.
        backend: a name, or ``auto``.
        inputs: what it will run on, [B, T, I]; None takes a batch large enough for any backend.

    Raises:
        InputError: for an unknown backend, or one that cannot run this cell.
    """
    if backend == "auto":
        name, reason = fastest(cell, inputs)
        return Choice(name, BACKENDS[name], reason)
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, ["auto", *BACKENDS])
    refused = REFUSALS[backend](cell) if backend in REFUSALS else ""
    if refused:
        raise InputError(
            "backend", expected="one that can run the cell", got=f"{backend!r}, but {refused}", fix="use auto"
        )
    return Choice(backend, BACKENDS[backend], "asked for")


def fastest(cell: Cell, inputs: Tensor | None = None) -> tuple[str, str]:
    """Return the name of the fastest backend for a cell, and why it is that.

    The figures are of ``rnnzoo bench cells`` on two threads of a CPU with AVX-512 (torch 2.13, float32).
    """
    device = next(cell.parameters()).device
    wide = inputs is None or inputs.shape[0] * cell.hidden_size >= WIDE
    compiles = can_compile(device)
    if not scan.refusal(cell):
        return "scan", "the cell is linear in its state: one pass over memory, no product between steps"
    if not native.refusal(cell):
        if isinstance(cell, GRUCell) and device.type == "cpu" and wide and compiles:
            return "fused", "torch has no fast GRU for CPUs: compiled kernels take 0.5 to 0.8 of its time here"
        return "native", "torch has a kernel for this cell"
    if fused.refusal(cell):
        return "reference", f"no other backend runs it: {fused.refusal(cell)}, {native.refusal(cell)}"
    if compiles or wide:
        between = "compiled kernels" if compiles else "plain torch (kernels are not compiled here)"
        return "fused", f"{native.refusal(cell)}; one product a step and {between} between"
    return "reference", "the batch is small and kernels are not compiled: plain torch between products takes longer"
