"""The law: one loop over time, differentiated by autograd. All other backends must equal it, gradients included."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.backends.base import backend
from rnnzoo.cells.base import Cell
from rnnzoo.state import State, where


@backend
def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run a cell over right-padded sequences, step by step."""
    projected = cell.project(inputs)  # [B, T, P]
    outputs = []
    for t in range(inputs.shape[1]):
        output, after = cell.step(projected[:, t], state)  # [B, O]
        if lengths is None:
            state = after
        else:
            valid = t < lengths  # [B]
            state = where(valid, after, state)
            output = torch.where(valid.unsqueeze(1), output, 0.0)
        outputs.append(output)
    return torch.stack(outputs, dim=1), state
