"""The law: one loop over time, differentiated by autograd. All other backends must equal it, gradients included."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.cells.base import Cell
from rnnzoo.lengths import zero_padding
from rnnzoo.state import State, where


def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State | None) -> tuple[Tensor, State]:
    """Run a cell over right-padded sequences, step by step.

    Args:
        cell: any cell.
        inputs: [B, T, I].
        lengths: [B] valid steps of each row; None means T for all.
        state: the state before the first step; None takes the cell's initial state.

    Returns:
        Outputs [B, T, O], zero at and past each row's length, and the state after each row's last valid step.
    """
    batch_size, steps, _ = inputs.shape
    state = cell.initial_state(batch_size) if state is None else state
    if steps == 0:
        return inputs.new_zeros(batch_size, 0, cell.output_size), state
    projected = cell.project(zero_padding(inputs, lengths))  # [B, T, P]; the padding may hold anything, even NaN
    outputs = []
    for t in range(steps):
        output, after = cell.step(projected[:, t], state)  # [B, O]
        if lengths is None:
            state = after
        else:
            valid = t < lengths  # [B]
            state = where(valid, after, state)
            output = torch.where(valid.unsqueeze(1), output, 0.0)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state
