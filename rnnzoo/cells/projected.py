"""Long short-term memory whose output is smaller than its memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, StagedCell
from rnnzoo.cells.lstm import LSTMState
from rnnzoo.errors import InputError


class ProjectedLSTMCell(AffineCell, StagedCell):
    """An LSTM that hands on a projection of its output, so that a large memory needs few weights.

    i = σ(W_i x + R_i h + b_i)    f = σ(W_f x + R_f h + b_f)
    g = tanh(W_g x + R_g h + b_g)    o = σ(W_o x + R_o h + b_o)
    c' = f ⊙ c + i ⊙ g    h' = P (o ⊙ tanh(c'))

    With p the projection's size, h is [B, p], also the output, and c is [B, H]. Gate order i, f, g, o, as in torch;
    ``input_weight`` [4·H, I], ``recurrent_weight`` [4·H, p] (orthogonal columns in each block), ``projection_weight``
    P [p, H] (orthogonal rows), ``bias`` [4·H]. Two products follow each other in a step.

    Args:
        input_size: I.
        hidden_size: H, units of the memory.
        projection_size: p, from 1 to H; None takes half of H.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Raises:
        InputError: for a `projection_size` out of range.

    Source: Sak, Senior & Beaufays 2014, "Long Short-Term Memory Based Recurrent Neural Network Architectures", arXiv
    1402.1128; as in torch (``proj_size``), without that paper's peepholes and its second, non-recurrent projection.

    >>> ProjectedLSTMCell(input_size=3, hidden_size=8, projection_size=5).initial_state(2).hidden.shape
    torch.Size([2, 5])
    """

    gate_names = ("o", "f", "i", "f", "i")
    tanh_names = ("g", "tanh c'", "g")

    def __init__(
        self, *, input_size: int, hidden_size: int, projection_size: int | None = None, forget_bias: float = 1.0
    ) -> None:
        size = max(1, hidden_size // 2) if projection_size is None else projection_size
        super().__init__(input_size=input_size, hidden_size=hidden_size, output_size=size)
        if not 1 <= size <= hidden_size:
            raise InputError(
                "ProjectedLSTMCell.projection_size", expected=f"from 1 to hidden_size {hidden_size}", got=str(size)
            )
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, size))
        self.projection_weight = nn.Parameter(torch.empty(size, hidden_size))  # P
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        bound = input_size**-0.5
        nn.init.uniform_(self.input_weight, -bound, bound)
        for block in (*self.recurrent_weight.data.split(hidden_size), self.projection_weight.data):
            nn.init.orthogonal_(block)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros, h [B, p] and c [B, H]."""
        return LSTMState(self.zeros(batch_size, self.output_size), self.zeros(batch_size, self.hidden_size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return R [4·H, p] and P [p, H]."""
        return self.recurrent_weight, self.projection_weight

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> Tensor:
        """Return h, then o ⊙ tanh(c')."""
        if index == 0:
            return state.hidden
        o = (projected + products[0])[..., 3 * self.hidden_size :]  # [B, H]
        return torch.sigmoid(o) * torch.tanh(self.memory(projected, products[0], state))

    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Put out the projection, and keep the memory."""
        hidden = products[1]  # [B, p]
        return hidden, LSTMState(hidden, self.memory(projected, products[0], state))

    def memory(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> Tensor:
        """Return c' [B, H]."""
        i, f, g, _ = (projected + recurrent).chunk(4, dim=-1)  # [B, H] each
        return torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
