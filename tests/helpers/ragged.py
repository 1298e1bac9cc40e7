"""Ragged rows through a backend and through the plain loop."""

from __future__ import annotations

from typing import Any

import torch

from rnnzoo.backends import reference
from rnnzoo.cells import make_cell
from rnnzoo.state import flatten, map_state


def assert_as_reference(backend: Any, name: str, lengths: list[int]) -> None:
    """Check outputs, final state and all gradients on 8 rows of 9 steps; of lengths above, 9 count."""
    torch.manual_seed(0)
    cell = make_cell(name, input_size=3, hidden_size=4).double()
    values = torch.randn(8, 9, 3, dtype=torch.double)
    first = map_state(torch.randn_like, cell.initial_state(8))
    found = []
    for run, rows in ((backend.run, torch.tensor(lengths)), (reference.run, torch.tensor(lengths).clamp(max=9))):
        inputs = values.clone().requires_grad_()
        state = map_state(lambda field: field.clone().requires_grad_(), first)
        outputs, final = run(cell, inputs, rows, state)
        loss = outputs.sin().sum() + sum(field.cos().sum() for field in flatten(final))
        leaves = [inputs, *flatten(state), *cell.parameters()]
        found.append([outputs, *flatten(final), *torch.autograd.grad(loss, leaves, materialize_grads=True)])
    torch.testing.assert_close(*found)
