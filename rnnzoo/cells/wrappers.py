"""Cells around cells: what changes a recurrence without being an equation of its own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rnnzoo.cells.base import Cell, GatedCell
from rnnzoo.errors import InputError
from rnnzoo.state import State


class DroppedState(NamedTuple):
    """The state of a cell with the dropout mask that holds for the whole sequence."""

    inner: State
    mask: Tensor  # [B, H], 0 or 1/(1-p); ones in evaluation


class RecurrentDropout(Cell):
    """Dropout on the hidden state that enters the recurrent product, one mask for all steps of a sequence.

    The gates see R (m ⊙ h); what they carry over from h itself (as a GRU does) is not dropped. The mask is part of
    the state, drawn with `initial_state`.

    Args:
        cell: the cell, one whose state enters by a single product.
        dropout: share of units that are dropped.

    Raises:
        InputError: if the cell is no `GatedCell`.

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
    """

    def __init__(self, cell: Cell, *, dropout: float) -> None:
        super().__init__(input_size=cell.input_size, hidden_size=cell.hidden_size, output_size=cell.output_size)
        if not isinstance(cell, GatedCell):
            raise InputError(
                "recurrent_dropout",
                expected="a cell whose state enters by one matrix product",
                got=type(cell).__name__,
                fix="use dropout between layers instead",
            )
        self.cell: GatedCell = cell
        self.dropout = dropout

    def project(self, inputs: Tensor) -> Tensor:
        """Project as the inner cell does."""
        return self.cell.project(inputs)

    def initial_state(self, batch_size: int) -> DroppedState:
        """Return the inner cell's initial state with a fresh mask."""
        return self.wrap(self.cell.initial_state(batch_size))

    def wrap(self, inner: State) -> DroppedState:
        """Return an inner state with a fresh mask."""
        mask = inner.hidden.new_ones(inner.hidden.shape)
        if self.training and self.dropout > 0:
            mask = mask.bernoulli(1 - self.dropout) / (1 - self.dropout)
        return DroppedState(inner, mask)

    def step(self, projected: Tensor, state: DroppedState) -> tuple[Tensor, DroppedState]:
        """Do one step of the inner cell with the masked hidden state in its product."""
        recurrent = self.cell.recur(state.inner.hidden * state.mask)
        output, inner = self.cell.gates(projected, recurrent, state.inner)
        return output, DroppedState(inner, state.mask)
