"""Simple recurrent networks."""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.cells.base import GatedCell, HiddenState


class ElmanCell(GatedCell):
    """The simple recurrent cell.

    h' = tanh(W x + R h + b)

    Source: Elman 1990, "Finding Structure in Time"; as there, but with tanh for the logistic function.

    >>> ElmanCell(input_size=3, hidden_size=5).initial_state(2).hidden.shape
    torch.Size([2, 5])
    """

    gate_count = 1

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Add and squash."""
        hidden = torch.tanh(projected + recurrent)  # [B, H]
        return hidden, HiddenState(hidden)


class ReluElmanCell(GatedCell):
    """The simple recurrent cell with rectified units.

    h' = max(0, W x + R h + b)

    Its state is not bounded: clip gradients, and keep the learning rate low.
    """

    gate_count = 1

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Add and rectify."""
        hidden = torch.relu(projected + recurrent)  # [B, H]
        return hidden, HiddenState(hidden)
