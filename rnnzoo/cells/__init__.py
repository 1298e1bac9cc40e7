"""The equations of one time step; `CELLS` lists them without importing torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rnnzoo.registry import Registry

if TYPE_CHECKING:
    from rnnzoo.cells.base import Cell

__all__ = ["CELLS", "list_cells", "make_cell"]

CELLS = Registry("cell")
CELLS.add("rnn", "rnnzoo.cells.elman:ElmanCell", "h' = tanh(W x + R h + b)", kind="gated", source="Elman 1990")
CELLS.add(
    "rnn_relu",
    "rnnzoo.cells.elman:ReluElmanCell",
    "h' = max(0, W x + R h + b)",
    kind="gated",
    source="Elman 1990; Le, Jaitly & Hinton 2015",
)
CELLS.add(
    "lstm",
    "rnnzoo.cells.lstm:LSTMCell",
    "long short-term memory with a forget gate",
    kind="gated",
    source="Hochreiter & Schmidhuber 1997; Gers et al. 2000",
)
CELLS.add(
    "gru",
    "rnnzoo.cells.gru:GRUCell",
    "gated recurrent unit, reset after the product (torch, cuDNN)",
    kind="gated",
    source="Cho et al. 2014, first version",
)
CELLS.add(
    "gru_reset_before",
    "rnnzoo.cells.gru:GRUResetBeforeCell",
    "gated recurrent unit, reset before the product (the paper)",
    kind="staged",
    source="Cho et al. 2014, final version",
)


def list_cells() -> list[str]:
    """Return the names of all cells.

    >>> "lstm" in list_cells()
    True
    """
    return list(CELLS)


def make_cell(name: str, *, input_size: int, hidden_size: int, **options: Any) -> Cell:
    """Build a cell by its name.

    Args:
        name: one of `list_cells`.
        input_size: numbers per step of the input.
        hidden_size: units.
        options: further arguments of the cell, such as ``forget_bias``.

    Raises:
        InputError: for an unknown cell, an option that it does not have, or a size below 1.
    """
    from rnnzoo.cells.base import check_options

    kind = CELLS[name]
    check_options(name, kind, options)
    return kind(input_size=input_size, hidden_size=hidden_size, **options)
