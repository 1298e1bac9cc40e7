"""Gated recurrent units, in both dialects."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import Cell, GatedCell, HiddenState


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

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size))  # b_m

    def recur(self, hidden: Tensor) -> Tensor:
        """Return R h with b_m added to the block of the candidate: [B, H] → [B, 3·H]."""
        return F.linear(hidden, self.recurrent_weight, F.pad(self.candidate_bias, (2 * self.hidden_size, 0)))

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gates and the new state."""
        projected_r, projected_z, projected_n = projected.chunk(3, dim=-1)  # [B, H] each
        recurrent_r, recurrent_z, recurrent_n = recurrent.chunk(3, dim=-1)
        reset = torch.sigmoid(projected_r + recurrent_r)
        update = torch.sigmoid(projected_z + recurrent_z)
        candidate = torch.tanh(projected_n + reset * recurrent_n)
        hidden = candidate + update * (state.hidden - candidate)
        return hidden, HiddenState(hidden)


class GRUResetBeforeCell(Cell):
    """The gated recurrent unit of the paper: the reset gate acts on the state before the matrix product.

    r = σ(W_r x + R_r h + b_r)    z = σ(W_z x + R_z h + b_z)
    n = tanh(W_n x + R_n (r ⊙ h) + b_n)
    h' = (1 - z) ⊙ n + z ⊙ h

    Gate order r, z, n; ``input_weight`` [3·H, I], ``recurrent_weight`` [3·H, H], ``bias`` [3·H]. Two products follow
    each other in a step, so it is no `GatedCell`.

    Source: Cho et al. 2014, arXiv 1406.1078 version 3; z and 1 - z are exchanged to torch's convention.
    """

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        nn.init.uniform_(self.input_weight, -(input_size**-0.5), input_size**-0.5)
        for block in self.recurrent_weight.data.chunk(3):
            nn.init.orthogonal_(block)

    def project(self, inputs: Tensor) -> Tensor:
        """Return W x + b: [..., I] → [..., 3·H]."""
        return F.linear(inputs, self.input_weight, self.bias)

    def initial_state(self, batch_size: int) -> HiddenState:
        """Return zeros."""
        return HiddenState(self.recurrent_weight.new_zeros(batch_size, self.hidden_size))

    def step(self, projected: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gates, then the candidate from the reset state."""
        hidden, size = state.hidden, self.hidden_size
        gate_weight, candidate_weight = self.recurrent_weight.split((2 * size, size))
        gates = torch.sigmoid(projected[..., : 2 * size] + F.linear(hidden, gate_weight))  # [B, 2·H]
        reset, update = gates.chunk(2, dim=-1)
        candidate = torch.tanh(projected[..., 2 * size :] + F.linear(reset * hidden, candidate_weight))
        hidden = candidate + update * (hidden - candidate)
        return hidden, HiddenState(hidden)
