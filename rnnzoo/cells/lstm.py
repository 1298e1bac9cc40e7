"""Long short-term memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import GatedCell


class LSTMState(NamedTuple):
    """The state of an LSTM, in torch's order."""

    hidden: Tensor  # [B, H]
    cell: Tensor  # [B, H]


class LSTMCell(GatedCell):
    """Long short-term memory with a forget gate.

    i = σ(W_i x + R_i h + b_i)    f = σ(W_f x + R_f h + b_f)
    g = tanh(W_g x + R_g h + b_g)    o = σ(W_o x + R_o h + b_o)
    c' = f ⊙ c + i ⊙ g    h' = o ⊙ tanh(c')

    Gate order i, f, g, o, as in torch, but one bias a gate instead of two that are added.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; its bias: Jozefowicz,
    Zaremba & Sutskever 2015.
    """

    gate_count = 4
    gate_names = ("f", "i", "o")
    tanh_names = ("g", "tanh c'")

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return LSTMState(self.zeros(*size), self.zeros(*size))

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the four gates and the new state."""
        i, f, g, o = (projected + recurrent).chunk(4, dim=-1)  # [B, H] each
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
