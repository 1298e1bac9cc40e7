"""Cells around cells: what changes a recurrence without being an equation of its own."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from rnnzoo.cells.base import Cell, StagedCell
from rnnzoo.errors import InputError
from rnnzoo.state import State


class DroppedState(NamedTuple):
    """The state of a cell with the dropout mask that holds for the whole sequence."""

    inner: State
    mask: Tensor  # [B, H], 0 or 1/(1-p); ones in evaluation


class RecurrentDropout(StagedCell):
    """Dropout on the hidden state that enters the recurrent products, one mask for all steps of a sequence.

    The products see m ⊙ h; what the cell carries over from h itself (as a GRU does) is not dropped. The mask is part
    of the state, drawn with `initial_state`.

    Args:
        cell: the cell, one whose state enters by matrix products.
        dropout: share of units that are dropped.

    Raises:
        InputError: if no product of the cell takes the hidden state.

    Source: Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks".
    """

    def __init__(self, cell: Cell, *, dropout: float) -> None:
        super().__init__(input_size=cell.input_size, hidden_size=cell.hidden_size, output_size=cell.output_size)
        if not isinstance(cell, StagedCell) or not cell.product_weights():
            raise InputError(
                "recurrent_dropout",
                expected="a cell whose hidden state enters by a matrix product",
                got=type(cell).__name__,
                fix="use dropout between layers instead",
            )
        self.cell: StagedCell = cell
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

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the inner cell."""
        return self.cell.product_weights()

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: DroppedState) -> Tensor:
        """Return what the inner cell multiplies when its hidden state is masked."""
        masked = state.inner._replace(hidden=state.inner.hidden * state.mask)
        return self.cell.operand(index, projected, products, masked)

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: DroppedState
    ) -> tuple[Tensor, DroppedState]:
        """Do as the inner cell does, with its state unmasked."""
        output, inner = self.cell.combine(projected, products, state.inner)
        return output, DroppedState(inner, state.mask)


def drop_weights(cell: Cell, dropout: float) -> Any:
    """Return a view of a cell, a share of whose recurrent weights is dropped ("weight drop", DropConnect).

    R' = m ⊙ R with m = 0 or 1/(1-p)

    The mask is drawn here and holds as long as the view is used, in any backend; all else is shared with the cell.
    The weights stay the parameters that they were: gradients go to them through the mask, and names, optimizer and
    checkpoints know nothing of it. The view is for one forward pass: it holds a tensor of the graph.

    Args:
        cell: a cell with ``recurrent_weight``, or one inside a `RecurrentDropout`.
        dropout: share of the weights that are dropped.

    Source: Merity, Keskar & Socher 2018, "Regularizing and Optimizing LSTM Language Models".
    """
    view: Any = copy.copy(cell)
    if isinstance(cell, RecurrentDropout):
        view._modules = {**cell._modules, "cell": drop_weights(cell.cell, dropout)}
        return view
    view._parameters = dict(cell._parameters)  # a copied module shares this dict with the original
    weight = view._parameters.pop("recurrent_weight")
    view.recurrent_weight = F.dropout(weight, dropout)
    return view
