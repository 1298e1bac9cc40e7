"""Which backend runs a cell, and why."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends import BACKENDS, native
from rnnzoo.backends.base import Backend
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells.base import Cell
from rnnzoo.cells.gru import GRUCell
from rnnzoo.cells.lstm import LSTMCell
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.kernels.compile.cache import can_compile
from rnnzoo.kernels.products import panels
from rnnzoo.kernels.products.linear import is_traced_or_transformed


class Choice(NamedTuple):
    """A backend, by name and as a function, with the reason for it."""

    name: str
    run: Backend
    reason: str


MIN_STATE_NUMBERS_FOR_FUSED = (
    8192  # numbers in a state, B · H, from which compiling is soon made up for, and even plain kernels are fast
)
LARGE = 512  # units from which an LSTM is trained faster by compiled kernels
RAGGED = 0.92  # share of the padded steps that are valid, below which what computes no padding is faster
REFUSALS = {"native": native.refusal, "fused": fused.refusal, "scan": scan.refusal}


def choose(cell: Cell, backend: str = "auto", inputs: Tensor | None = None, lengths: Tensor | None = None) -> Choice:
    """Return the backend that runs `cell`: the one asked for, or with ``auto`` the fastest that can.

    Args:
        cell: the cell.
        backend: a name, or ``auto``.
        inputs: [B, T, I], of which the shape counts; None stands for many rows.
        lengths: [B] valid steps of each row; None means T for all.

    Raises:
        InputError: for an unknown backend, or one that cannot run this cell.
    """
    if backend == "auto":
        name, reason = fastest(cell, inputs, lengths)
        return Choice(name, BACKENDS[name], reason)
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, ["auto", *BACKENDS])
    refused = REFUSALS[backend](cell) if backend in REFUSALS else ""
    if refused:
        raise InputError(
            "backend", expected="one that can run the cell", got=f"{backend!r}, but {refused}", fix="use auto"
        )
    return Choice(backend, BACKENDS[backend], "asked for")


def fastest(cell: Cell, inputs: Tensor | None, lengths: Tensor | None) -> tuple[str, str]:
    """Return the name of the fastest backend for a cell, and why it is that.

    The figures are of ``rnnzoo bench`` on two threads of CPUs with AVX-512 and AVX2 (torch 2.13, float32), and hold
    in bfloat16 on those with AMX.
    """
    device = next(cell.parameters()).device
    wide = inputs is None or inputs.shape[0] * cell.hidden_size >= MIN_STATE_NUMBERS_FOR_FUSED
    compiles = can_compile(device)
    if not scan.refusal(cell):
        return "scan", "the cell is linear in its state: one pass over memory, no product between steps"
    if not native.refusal(cell):
        why = faster_fused(cell, inputs, lengths) if device.type == "cpu" and wide and compiles else ""
        return ("fused", why) if why else ("native", "torch has a kernel for this cell")
    if fused.refusal(cell):
        return "reference", f"no other backend runs it: {fused.refusal(cell)}, {native.refusal(cell)}"
    if compiles or wide:
        between = "compiled kernels" if compiles else "plain torch (kernels are not compiled here)"
        return "fused", f"{native.refusal(cell)}; one product a step and {between} between"
    return "reference", "the batch is small and kernels are not compiled: plain torch between products takes longer"


def faster_fused(cell: Cell, inputs: Tensor | None, lengths: Tensor | None) -> str:
    """Return why a cell that torch has a kernel for is faster by compiled ones on a CPU, or an empty string."""
    if isinstance(cell, GRUCell):
        return "torch has no fast GRU for CPUs: compiled kernels take 0.4 to 0.7 of its time here"
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    if (
        next(cell.parameters()).dtype != torch.float32
        or is_traced_or_transformed()
        or not panels.offers_products(dtype)
    ):
        return ""  # programs in C++ keep float32, and native is what torch can transform
    if inputs is not None and lengths is not None and lengths.sum() < RAGGED * inputs.shape[0] * inputs.shape[1]:
        return (
            "rows differ much in length, and compiled kernels compute no padding: 0.4 to 0.9 of the time of torch's own"
        )
    if not torch.is_grad_enabled():
        return ""
    if not isinstance(cell, LSTMCell):
        return "compiled kernels train it in 0.5 to 0.9 of the time of torch's own"
    if cell.hidden_size < LARGE or dtype != torch.float32:
        return ""
    return "compiled kernels train it in 0.7 to 1.0 of the time of torch's own"
