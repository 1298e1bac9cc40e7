"""Gated recurrent units, in both dialects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, GatedCell, HiddenState, StagedCell, draw_weights


class GRUCell(GatedCell):
    """The gated recurrent unit that torch, cuDNN and Keras compute: the reset gate acts after the matrix product.

    r = σ(W_r x + R_r h + b_r)    z = σ(W_z x + R_z h + b_z)
    n = tanh(W_n x + b_n + r ⊙ (R_n h + b_m))
    h' = (1 - z) ⊙ n + z ⊙ h

    Gate order r, z, n. b_m is a parameter of its own, ``candidate_bias`` [H]: inside the reset product no other bias
    can stand in for it.

    Source: Cho et al. 2014, arXiv 1406.1078 version 1. In the paper's final version the reset gate acts before the
    product: `GRUResetBeforeCell`.
    """

    gate_count = 3
    gate_names = ("r", "z")
    tanh_names = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size))  # b_m

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gates and the new state."""
        projected_r, projected_z, projected_n = projected.chunk(3, dim=-1)  # [B, H] each
        recurrent_r, recurrent_z, recurrent_n = recurrent.chunk(3, dim=-1)
        reset = torch.sigmoid(projected_r + recurrent_r)
        update = torch.sigmoid(projected_z + recurrent_z)
        candidate = torch.tanh(projected_n + reset * (recurrent_n + self.candidate_bias))
        hidden = candidate + update * (state.hidden - candidate)
        return hidden, HiddenState(hidden)


class GRUResetBeforeCell(AffineCell, StagedCell):
    """The gated recurrent unit of the paper: the reset gate acts on the state before the matrix product.

    r = σ(W_r x + R_r h + b_r)    z = σ(W_z x + R_z h + b_z)
    n = tanh(W_n x + R_n (r ⊙ h) + b_n)
    h' = (1 - z) ⊙ n + z ⊙ h

    Gate order r, z, n; ``input_weight`` [3·H, I], ``recurrent_weight`` [3·H, H], ``bias`` [3·H]. Two products follow
    each other in a step.

    Source: Cho et al. 2014, arXiv 1406.1078 version 3; z and 1 - z are exchanged to torch's convention.
    """

    gate_names = ("r", "z")
    tanh_names = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight)

    def initial_state(self, batch_size: int) -> HiddenState:
        """Return zeros."""
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of both gates [2·H, H] and of the candidate [H, H]."""
        return self.recurrent_weight.split((2 * self.hidden_size, self.hidden_size))

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState) -> Tensor:
        """Return h, then r ⊙ h."""
        if index == 0:
            return state.hidden
        size = self.hidden_size
        return torch.sigmoid(projected[..., :size] + products[0][..., :size]) * state.hidden

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute the update gate, the candidate and the new state."""
        _, projected_z, projected_n = projected.chunk(3, dim=-1)  # [B, H] each
        update = torch.sigmoid(projected_z + products[0][..., self.hidden_size :])
        candidate = torch.tanh(projected_n + products[1])
        hidden = candidate + update * (state.hidden - candidate)
        return hidden, HiddenState(hidden)
