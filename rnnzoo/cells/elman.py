"""Simple recurrent networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


class IdentityElmanCell(ReluElmanCell):
    """The rectified simple recurrent cell that starts by adding up its inputs ("IRNN").

    h' = max(0, W x + R h + b)    with R = s I at the start

    With s = 1 a unit keeps what it holds until it learns otherwise, and gradients neither vanish nor explode at first;
    a smaller s forgets. Input weights are drawn from N(0, d²), so small that the sum over a long sequence stays small.

    Args:
        input_size: I.
        hidden_size: H.
        identity_scale: s; 1 for long dependencies, 0.01 for short ones (speech, in the paper).
        input_deviation: d, the standard deviation of the input weights.

    Source: Le, Jaitly & Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units".
    """

    def __init__(
        self, *, input_size: int, hidden_size: int, identity_scale: float = 1.0, input_deviation: float = 0.001
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.normal_(self.input_weight, std=input_deviation)
        with torch.no_grad():
            nn.init.eye_(self.recurrent_weight).mul_(identity_scale)
