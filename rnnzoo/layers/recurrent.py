"""Recurrent layers: any cell, stacked, in one direction or both, on whatever backend can run it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rnnzoo.backends.select import choose
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import Cell, run_one_step
from rnnzoo.cells.views import view_of
from rnnzoo.cells.wrappers import DroppedState, RecurrentDropout, Zoneout, base_cell, drop_weights
from rnnzoo.errors import InputError, check_share
from rnnzoo.kernels.cuda_graphs import replay
from rnnzoo.layers.dropout import locked_dropout
from rnnzoo.layers.torch_weights import load_torch, to_torch
from rnnzoo.lengths import is_tracing, reverse_padded, zero_padding
from rnnzoo.state import State, flatten, map_state, unflatten

States = tuple[State, ...]

_marks: WeakKeyDictionary[nn.Module, object] = WeakKeyDictionary()


class Recurrent(nn.Module):
    """A stack of recurrent layers over right-padded sequences.

    The state is a tuple of cell states in torch's order: layer 0 forward, layer 0 backward, layer 1 forward, ...

    Args:
        cell: name of the cell; `rnnzoo.list_cells()` has them all.
        input_size: I.
        hidden_size: H, units per direction.
        num_layers: L.
        bidirectional: run a second cell from the end of each row to its start, and concatenate both outputs.
        dropout: dropout on the outputs of all layers but the last.
        recurrent_dropout: dropout on the hidden state that enters the recurrence, one mask a sequence.
        zoneout: probability that a unit keeps its value of the step before, alike for the hidden state and a memory
            ``cell``; or both by name, such as ``{"hidden": 0.05, "cell": 0.5}``.
        weight_drop: dropout on the recurrent weights of all layers, one mask a call for all rows and steps.
        locked_dropout: `dropout` keeps one mask for all steps of a sequence instead of one a step.
        residual: add a layer's input to its output, in each layer where their sizes agree.
        layer_norm: normalise the output of each layer (before the residual is added).
        learn_initial_state: the state before the first step is a parameter (from zeros) instead of zeros, but for
            fields that the cell keeps for itself (`Cell.fixed_fields`) or never reads.
        recompute: in training keep only what enters each layer, and run it again for the gradient: less memory, and
            a third more time.
        backend: ``auto``, or the name of a backend that can run the cell.
        cell_options: further arguments of the cell.

    Raises:
        InputError: for an unknown name, a value out of range, or options that make no sense together.

    >>> layer = Recurrent(cell="gru", input_size=3, hidden_size=5, bidirectional=True)
    >>> outputs, state = layer(torch.zeros(2, 4, 3), torch.tensor([4, 1]))
    >>> outputs.shape, len(state), state[0].hidden.shape
    (torch.Size([2, 4, 10]), 2, torch.Size([2, 5]))
    """

    def __init__(
        self,
        *,
        cell: str = "lstm",
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | Mapping[str, float] = 0.0,
        weight_drop: float = 0.0,
        locked_dropout: bool = False,
        residual: bool = False,
        layer_norm: bool = False,
        learn_initial_state: bool = False,
        recompute: bool = False,
        backend: str = "auto",
        cell_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        shares = {"dropout": dropout, "recurrent_dropout": recurrent_dropout, "weight_drop": weight_drop}
        check_options(num_layers, shares, locked_dropout=locked_dropout)
        self.cell_name = cell
        self.backend = backend
        self.recompute = recompute
        self.bidirectional = bidirectional
        self.num_layers = num_layers
        self.dropout = dropout
        self.weight_drop = weight_drop
        self.locked_dropout = locked_dropout
        self.residual = residual

        cells: list[Cell] = []
        sizes = [input_size]
        for _ in range(num_layers):
            for _ in range(1 + bidirectional):
                made = make_cell(cell, input_size=sizes[-1], hidden_size=hidden_size, **(cell_options or {}))
                inner = Zoneout.of(made, zoneout)
                cells.append(RecurrentDropout(inner, dropout=recurrent_dropout) if recurrent_dropout > 0 else inner)
            sizes.append(cells[-1].output_size * (1 + bidirectional))
        self.cells = nn.ModuleList(cells)
        self.input_size = input_size
        self.output_size = sizes[-1]
        if residual and all(before != after for before, after in pairwise(sizes)):
            raise InputError(
                "residual",
                expected=f"a layer whose input is as large as its output of {self.output_size}",
                got=f"layers with inputs of {sizes[:-1]}",
                fix="add layers, or choose input_size equal to the output size",
            )
        self._state_shapes = [
            {name: field.shape[1:] for name, field in base_cell(each).initial_state(1)._asdict().items()}
            for each in cells
        ]
        choose(cells[0], backend)  # refuse now what cannot run later
        if weight_drop > 0 and "recurrent_weight" not in base_cell(cells[0])._parameters:
            raise InputError(
                "weight_drop", expected="a cell with recurrent weights", got=repr(cell), fix="use dropout instead"
            )
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes[1:] if layer_norm)
        self.initial = nn.ParameterList()
        if learn_initial_state:
            self._learned = [learnable_fields(base_cell(each)) for each in cells]
            if not any(self._learned):
                raise InputError(
                    "learn_initial_state", expected="a cell that reads a first state others may set", got=repr(cell)
                )
            for each, names in zip(cells, self._learned, strict=True):
                first = base_cell(each).initial_state(1)
                self.initial.extend(nn.Parameter(getattr(first, name)[0].detach().clone()) for name in names)

    def forward(
        self, inputs: Tensor, lengths: Tensor | None = None, state: States | None = None
    ) -> tuple[Tensor, States]:
        """Run all layers.

        Args:
            inputs: [B, T, I], padded on the right.
            lengths: [B] valid steps of each row; None means T for all.
            state: the state before the first step; None takes `initial_state`.

        Returns:
            Outputs [B, T, O], exactly zero at and past each row's length, and the state after each row's last valid
            step (for the backward direction: after its first).

        Raises:
            InputError: if the inputs are not [B, T, I], or lengths not from 0 to T (a GPU is not asked).
        """
        if inputs.dim() != 3 or inputs.shape[-1] != self.input_size:
            raise InputError(
                "inputs of Recurrent", expected=f"shape [B, T, {self.input_size}]", got=str(list(inputs.shape))
            )
        lengths = checked_lengths(lengths, inputs)
        state = self.initial_state(inputs.shape[0]) if state is None else state
        self._check_state(state, inputs.shape[0])
        cells = self.hold_masks().cells
        directions = 1 + self.bidirectional
        final: list[State] = []
        for layer in range(self.num_layers):
            if layer > 0:
                inputs = self._drop(inputs)
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                cell: Cell = cells[place]  # type: ignore[assignment]
                seen = reverse_padded(inputs, lengths) if direction else inputs
                output, after = cell(seen, lengths, state[place], run=self._run)
                outputs.append(reverse_padded(output, lengths) if direction else output)
                final.append(after)
            joined = torch.cat(outputs, dim=-1) if self.bidirectional else outputs[0]  # [B, T, O]
            inputs = self._finish_layer(layer, inputs, joined, lengths)
        return inputs, tuple(final)

    def step(self, inputs: Tensor, state: States) -> tuple[Tensor, States]:
        """Do one step of all layers: inputs [B, I] and state → outputs [B, O] and state.

        The cells are called directly, without a backend between: the same numbers as `forward` on one step. On a GPU,
        without gradients, what comes often is recorded and launched as a whole.

        Raises:
            InputError: if the layers are bidirectional, since the backward direction begins at the end; in training
                with locked dropout, whose mask holds for a whole sequence, or with weight drop, unless these are the
                layers that `hold_masks` returned.
        """
        if self.bidirectional:
            raise InputError("Recurrent.step", expected="layers of one direction", got="bidirectional layers")
        if self.training and self.locked_dropout:
            raise InputError(
                "Recurrent.step in training",
                expected="dropout that is drawn for each step",
                got="locked_dropout, which holds for a whole sequence",
                fix="turn off locked_dropout, or what makes the model run step by step",
            )
        if self.training and self.weight_drop > 0:
            raise InputError(
                "Recurrent.step in training",
                expected="weights that hold for a whole sequence",
                got="weight_drop, drawn anew for each step",
                fix="take the steps with what Recurrent.hold_masks() returns, or turn off weight_drop",
            )
        if not inputs.is_cuda or torch.is_grad_enabled() or self.training or torch.compiler.is_compiling():
            return self.plain_step(inputs, state)
        if any(each._forward_pre_hooks or each._forward_hooks for each in self.modules()):  # they run at each step
            return self.plain_step(inputs, state)
        # A graph reads parameters and buffers where they are, and another module may have them in the same place later.
        mark = (
            _marks.setdefault(self, object()),
            tuple(each.data_ptr() for each in chain(self.parameters(), self.buffers())),
            torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
        )

        def once(inputs: Tensor, *fields: Tensor) -> list[Tensor]:
            outputs, after = self.plain_step(inputs, unflatten(state, fields))
            return [outputs, *flatten(after)]

        outputs, *fields = replay(once, mark, [inputs, *flatten(state)])
        return outputs, unflatten(state, fields)

    def plain_step(self, inputs: Tensor, state: States) -> tuple[Tensor, States]:
        """Do as `step` does, with one operation after the other."""
        final: list[State] = []
        for layer, each in enumerate(self.cells):
            cell: Cell = each  # type: ignore[assignment]
            if layer > 0:
                inputs = F.dropout(inputs, self.dropout, self.training)
            outputs, after = cell(inputs, None, state[layer], run=run_one_step)
            final.append(after)
            if len(self.norms):
                outputs = self.norms[layer](outputs)
            if self.residual and inputs.shape[-1] == outputs.shape[-1]:
                outputs = outputs + inputs
            inputs = outputs
        return inputs, tuple(final)

    def hold_masks(self) -> Recurrent:
        """Return a view of these layers with one draw of weight drop, for several calls or steps on the same batch.

        All else is shared. Out of training, or without weight drop, they are these layers themselves.
        """
        if not self.training or self.weight_drop == 0:
            return self
        view = view_of(self)
        dropped = nn.ModuleList(drop_weights(cell, self.weight_drop) for cell in self.cells)  # type: ignore[arg-type]
        view._modules = {**self._modules, "cells": dropped}
        view.weight_drop = 0.0
        return view

    def initial_state(self, batch_size: int) -> States:
        """Return the state before the first step of `batch_size` sequences."""
        learned = iter(self.initial)
        states = []
        for place, cell in enumerate(self.cells):
            inner = base_cell(cell).initial_state(batch_size)  # type: ignore[arg-type]
            if len(self.initial):
                first = {name: next(learned).expand_as(getattr(inner, name)) for name in self._learned[place]}
                inner = inner._replace(**first)
            states.append(cell.wrap(inner) if isinstance(cell, RecurrentDropout) else inner)
        return tuple(states)

    def load_torch(self, module: nn.RNNBase) -> None:
        """Copy the weights of a `torch.nn.RNN`, `LSTM` or `GRU` of the same shape; its two biases are added up.

        Raises:
            InputError: if cell, sizes, depth or direction differ.
        """
        load_torch(self, module)

    def to_torch(self) -> nn.RNNBase:
        """Return a `torch.nn.RNN`, `LSTM` or `GRU` with the same weights and the same outputs.

        Raises:
            InputError: if torch has no such layer.
        """
        return to_torch(self)

    def _run(self, cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Run one cell by the backend that is chosen for it. Hooks of the cell are outside, and never run again."""
        run = choose(cell, self.backend, inputs, lengths).run
        if self.recompute and self.training and torch.is_grad_enabled():
            return checkpoint(run, cell, inputs, lengths, state, use_reentrant=False)
        return run(cell, inputs, lengths, state)

    def _check_state(self, state: States, batch_size: int) -> None:
        """Refuse a state of another shape: torch's kernels would read past its end."""
        if len(state) != len(self.cells):
            raise InputError("state of Recurrent", expected=f"{len(self.cells)} cell states", got=str(len(state)))
        for shapes, each in zip(self._state_shapes, state, strict=True):
            for name, shape in shapes.items():
                got = getattr(inner_state(each), name).shape
                if got != (batch_size, *shape):
                    raise InputError(
                        f"state of Recurrent, {name}", expected=f"shape {[batch_size, *shape]}", got=str(list(got))
                    )

    def _finish_layer(self, layer: int, inputs: Tensor, outputs: Tensor, lengths: Tensor | None) -> Tensor:
        if not len(self.norms) and not self.residual:
            return outputs
        if len(self.norms):
            outputs = self.norms[layer](outputs)
        if self.residual and inputs.shape[-1] == outputs.shape[-1]:
            outputs = outputs + inputs
        return zero_padding(outputs, lengths)

    def _drop(self, outputs: Tensor) -> Tensor:
        if self.locked_dropout:
            return locked_dropout(outputs, self.dropout, training=self.training)
        return F.dropout(outputs, self.dropout, self.training)


def check_options(num_layers: int, shares: Mapping[str, float], *, locked_dropout: bool) -> None:
    """See that the depth and the shares of dropout (name → share) are possible.

    Raises:
        InputError: for the first that is not.
    """
    if num_layers < 1:
        raise InputError("num_layers", expected="at least 1", got=str(num_layers))
    for name, share in shares.items():
        check_share(name, share)
    dropout = shares["dropout"]
    if dropout > 0 and num_layers == 1:
        raise InputError(
            "dropout", expected="0 for a single layer: it acts between layers", got=str(dropout), fix="add layers"
        )
    if locked_dropout and dropout == 0:
        raise InputError("locked_dropout", expected="a dropout above 0 whose mask it locks", got="dropout 0")


def checked_lengths(lengths: Tensor | None, inputs: Tensor) -> Tensor | None:
    """Return lengths in int64, one for each row of `inputs` [B, T, I], none above T as far as that is free to see.

    Raises:
        InputError: naming the first row whose length cannot be.
    """
    if lengths is None:
        return None
    where = "lengths of Recurrent"
    if not isinstance(lengths, Tensor):
        raise InputError(where, expected="a tensor", got=repr(lengths)[:80], fix="give torch.tensor([...])")
    if lengths.shape != inputs.shape[:1]:
        raise InputError(where, expected=f"shape [{len(inputs)}]", got=str(list(lengths.shape)))
    if lengths.is_floating_point() or lengths.is_complex():
        raise InputError(where, expected="whole numbers", got=str(lengths.dtype))
    lengths = lengths.long()  # differences of unsigned numbers would be wrong, and T may be none of a narrow type
    if lengths.device.type != "cpu" or is_tracing():
        return lengths
    wrong = ((lengths < 0) | (lengths > inputs.shape[1])).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            where, expected=f"numbers from 0 to {inputs.shape[1]}", got=f"{int(lengths[row])} of row {row}"
        )
    return lengths


def learnable_fields(cell: Cell) -> list[str]:
    """Return the fields of a state that a step reads and that the cell does not keep for itself."""
    first = cell.initial_state(1)
    with torch.enable_grad():
        state = map_state(lambda field: field.detach().requires_grad_(), first)
        projected = cell.project(torch.zeros(1, cell.input_size, dtype=first[0].dtype, device=first[0].device))
        output, after = cell.step(projected, state)
        results = [value for value in (output, *flatten(after)) if value.requires_grad]
        found = torch.autograd.grad([value.sum() for value in results], list(state), allow_unused=True)
    names = zip(state._fields, found, strict=True)
    return [name for name, gradient in names if gradient is not None and name not in cell.fixed_fields]


def inner_state(state: State) -> State:
    """Return the state of the cell itself, without the masks of a wrapper around it."""
    return state.inner if isinstance(state, DroppedState) else state
