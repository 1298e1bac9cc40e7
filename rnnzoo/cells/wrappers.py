"""Cells around cells: what changes a recurrence without being an equation of its own."""

from __future__ import annotations

from abc import ABC
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.cells.base import Cell, Run, StagedCell
from rnnzoo.cells.views import view_of
from rnnzoo.errors import InputError, did_you_mean
from rnnzoo.state import State

ZONED = ("hidden", "cell")  # fields of a state that may be zoned out


class DroppedState(NamedTuple):
    """The state of a cell with the dropout mask that holds for the whole sequence."""

    inner: State
    mask: Tensor  # [B, H], 0 or 1/(1-p); ones in evaluation


class Wrapper(StagedCell, ABC):
    """A staged cell around another one, whose products it takes over.

    Args:
        cell: the inner cell, which may be a wrapper itself.
    """

    def __init__(self, cell: StagedCell) -> None:
        super().__init__(input_size=cell.input_size, hidden_size=cell.hidden_size, output_size=cell.output_size)
        self.cell: StagedCell = cell

    def forward(self, inputs: Tensor, lengths: Tensor | None, state: State, *, run: Run) -> tuple[Tensor, State]:
        """Let `run` run this cell within a call of the inner one, whose hooks act too."""

        def run_around(inner: Cell, *arguments: Any) -> tuple[Tensor, State]:
            return run(self.around(inner), *arguments)

        return self.cell(inputs, lengths, state, run=run_around)

    def around(self, inner: Cell) -> Cell:
        """Return this wrapper around a view of its cell."""
        if inner is self.cell:
            return self
        view = view_of(self)
        view._modules = {**self._modules, "cell": inner}
        return view

    def project(self, inputs: Tensor) -> Tensor:
        """Project as the inner cell does."""
        return self.cell.project(inputs)

    def initial_state(self, batch_size: int) -> State:
        """Return the inner cell's initial state."""
        return self.cell.initial_state(batch_size)

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the inner cell."""
        return self.cell.product_weights()


def base_cell(cell: Cell) -> Cell:
    """Return the cell inside all wrappers, or the cell itself."""
    return base_cell(cell.cell) if isinstance(cell, Wrapper) else cell


class RecurrentDropout(Wrapper):
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
        if not isinstance(cell, StagedCell) or not cell.product_weights():
            raise InputError(
                "recurrent_dropout",
                expected="a cell whose hidden state enters by a matrix product",
                got=type(base_cell(cell)).__name__,
                fix="use dropout between layers instead",
            )
        super().__init__(cell)
        self.dropout = dropout

    def initial_state(self, batch_size: int) -> DroppedState:
        """Return the inner cell's initial state with a fresh mask."""
        return self.wrap(self.cell.initial_state(batch_size))

    def wrap(self, inner: State) -> DroppedState:
        """Return an inner state with a fresh mask."""
        mask = inner.hidden.new_ones(inner.hidden.shape)
        if self.training and self.dropout > 0:
            mask = mask.bernoulli(1 - self.dropout) / (1 - self.dropout)
        return DroppedState(inner, mask)

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


class Zoneout(Wrapper):
    """Units that now and then keep their value of the step before.

    c' = d_c ⊙ c + (1 - d_c) ⊙ c̃    h' = d_h ⊙ h + (1 - d_h) ⊙ h̃

    with what the inner cell computes, c̃ and h̃ (of c̃, not of c'), and masks d of their own for both fields, 1 with the
    probability of the field's rate and drawn for each step and unit. In evaluation each d is its rate, its mean. An
    output that is the hidden state is h'. Other fields of the state are as the inner cell has them.

    The masks are drawn with the projection, of which they are the last columns: no step draws random numbers, and the
    gradient of a step sees the masks that the step saw.

    Args:
        cell: the cell.
        hidden_rate: probability that a hidden unit keeps its value.
        cell_rate: the same of the field ``cell``.

    Raises:
        InputError: for a rate outside [0, 1), a cell that is not staged or in dropout (which goes around), or a rate
            of a memory that is none or that the cell scales for itself.

    Source: Krueger et al. 2017, "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations".
    """

    def __init__(self, cell: Cell, *, hidden_rate: float, cell_rate: float = 0.0) -> None:
        for name, rate in (("hidden", hidden_rate), ("cell", cell_rate)):
            if not 0 <= rate < 1:
                raise InputError(f"zoneout.{name}", expected="a rate of at least 0 and below 1", got=str(rate))
        if not isinstance(cell, StagedCell):
            kind = type(cell).__name__
            raise InputError("zoneout", expected="a gated or staged cell", got=kind, fix="use dropout between layers")
        if isinstance(cell, RecurrentDropout):
            raise InputError(
                "zoneout", expected="a cell without dropout", got="RecurrentDropout", fix="put the dropout around it"
            )
        if cell_rate > 0 and not has_memory(cell):
            got = f"{type(base_cell(cell)).__name__}, whose state has {', '.join(cell.initial_state(1)._fields)}"
            raise InputError("zoneout.cell", expected="a cell with a memory c of its own", got=got, fix="leave it out")
        super().__init__(cell)
        self.hidden_rate = hidden_rate
        self.cell_rate = cell_rate
        with torch.no_grad():
            self.projected_size = cell.project(next(cell.parameters()).new_zeros(1, cell.input_size)).shape[-1]

    @classmethod
    def of(cls, cell: Cell, rates: float | Mapping[str, float]) -> Cell:
        """Return `cell` in a zoneout; the cell itself if all rates are 0.

        Args:
            cell: the cell.
            rates: one for h, and for c where there is one; or by name, such as ``{"hidden": 0.1, "cell": 0.5}``.

        Raises:
            InputError: for other keys, and as the constructor.
        """
        if isinstance(rates, Mapping):
            for name in rates:
                if name not in ZONED:
                    raise InputError(
                        "zoneout", expected="rates of hidden and cell", got=repr(name), fix=did_you_mean(name, ZONED)
                    )
            hidden, memory = rates.get("hidden", 0.0), rates.get("cell", 0.0)
        else:
            hidden, memory = rates, rates if has_memory(cell) else 0.0
        return cell if hidden == memory == 0 else cls(cell, hidden_rate=hidden, cell_rate=memory)

    def project(self, inputs: Tensor) -> Tensor:
        """Project as the inner cell does; in training followed by the masks: [..., I] → [..., P + masks]."""
        projected = self.cell.project(inputs)
        if not self.training:
            return projected
        state = self.cell.initial_state(1)
        masks = [
            projected.new_full((*projected.shape[:-1], getattr(state, name).shape[-1]), rate).bernoulli()
            for name, rate in self.rates()
        ]
        return torch.cat([projected, *masks], dim=-1)

    def rates(self) -> list[tuple[str, float]]:
        """Return the fields that are zoned out, with their rates."""
        both = (("hidden", self.hidden_rate), ("cell", self.cell_rate))
        return [(name, rate) for name, rate in both if rate > 0]

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: State) -> Tensor:
        """Return what the inner cell multiplies."""
        return self.cell.operand(index, projected[..., : self.projected_size], products, state)

    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """Do as the inner cell does, then keep some of the old state."""
        start = self.projected_size
        output, after = self.cell.combine(projected[..., :start], products, state)
        fields = {}
        for name, rate in self.rates():
            old, new = getattr(state, name), getattr(after, name)
            keep: Any = rate
            if projected.shape[-1] > self.projected_size:  # there are masks
                keep = projected[..., start : start + old.shape[-1]].to(old.dtype)
                start += old.shape[-1]
            fields[name] = new + keep * (old - new)
        if output is after.hidden:
            output = fields.get("hidden", output)
        return output, after._replace(**fields)


def has_memory(cell: Cell) -> bool:
    """Return whether the state of a cell has a field ``cell`` that another layer may set."""
    return "cell" in cell.initial_state(1)._fields and "cell" not in base_cell(cell).fixed_fields


def drop_weights(cell: Cell, dropout: float) -> Any:
    """Return a view of a cell, a share of whose recurrent weights is dropped ("weight drop", DropConnect).

    R' = m ⊙ R with m = 0 or 1/(1-p)

    The mask is drawn here and holds as long as the view is used, in any backend; all else is shared with the cell.
    The weights stay the parameters that they were: gradients go to them through the mask, and names, optimizer and
    checkpoints know nothing of it. The view is for one forward pass: it holds a tensor of the graph.

    Args:
        cell: a cell with ``recurrent_weight``, or one inside wrappers.
        dropout: share of the weights that are dropped.

    Source: Merity, Keskar & Socher 2018, "Regularizing and Optimizing LSTM Language Models".
    """
    view: Any = view_of(cell)
    if isinstance(cell, Wrapper):
        view._modules = {**cell._modules, "cell": drop_weights(cell.cell, dropout)}
        return view
    weight = cell._parameters.get("recurrent_weight")
    if weight is not None:
        view._parameters = {**cell._parameters, "recurrent_weight": F.dropout(weight, dropout)}  # not those of the cell
        return view
    mask = F.dropout(torch.ones_like(view.recurrent_weight), dropout)

    def drop(view: Any, arguments: Any) -> None:
        vars(view)["recurrent_weight"] = mask * view.recurrent_weight

    # The weight is computed from others at each call: the mask comes after the hooks that do so.
    view._forward_pre_hooks = OrderedDict(cell._forward_pre_hooks)
    view.register_forward_pre_hook(drop)
    return view
