"""Long short-term memory with another recurrence for each input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import AffineCell, StagedCell, draw_weights
from rnnzoo.cells.lstm import LSTMState


class MultiplicativeLSTMCell(AffineCell, StagedCell):
    """The multiplicative LSTM: each input chooses by its factors how the state enters the gates.

    m = (W_m x) ⊙ (R_m h)
    i = σ(W_i x + R_i m + b_i)    f = σ(W_f x + R_f m + b_f)
    g = tanh(W_g x + R_g m + b_g)    o = σ(W_o x + R_o m + b_o)
    c' = f ⊙ c + i ⊙ g    h' = o ⊙ tanh(c')

    Block order m, i, f, g, o; ``input_weight`` [5·H, I], ``recurrent_weight`` [5·H, H], ``bias`` [4·H], for m has
    none. Two products follow each other in a step.

    Args:
        input_size: I.
        hidden_size: H, also the size of m.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Source: Krause, Lu, Murray & Renals 2016, "Multiplicative LSTM for sequence modelling", arXiv 1609.07959; with
    biases. Some public code has no tanh in g and h' = tanh(o ⊙ c') instead. Not the mLSTM of xLSTM, which is
    `rnnzoo.cells.xlstm.MLSTMCell`.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("g", "tanh c'")

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(5 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(5 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return W_m and W [5·H, I], and the biases of both [5·H], of which the first is none."""
        return self.input_weight, F.pad(self.bias, (self.hidden_size, 0))

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return LSTMState(self.zeros(*size), self.zeros(*size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return R_m [H, H] and the weights of the gates [4·H, H]."""
        return self.recurrent_weight.split((self.hidden_size, 4 * self.hidden_size))

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> Tensor:
        """Return h, then m."""
        if index == 0:
            return state.hidden
        return projected[..., : self.hidden_size] * products[0]

    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the four gates and the new state."""
        i, f, g, o = (projected[..., self.hidden_size :] + products[1]).chunk(4, dim=-1)  # [B, H] each
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)
