"""Cells with a single gate: as little as a gated cell can be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, GatedCell, HiddenState, StagedCell, draw_weights
from rnnzoo.errors import InputError


class UGRNNCell(GatedCell):
    """The update gate network: one gate says whether a unit keeps what it holds or computes anew.

    z = σ(W_z x + R_z h + b_z)    n = tanh(W_n x + R_n h + b_n)
    h' = z ⊙ h + (1 - z) ⊙ n

    Gate order z, n: a GRU without its reset gate.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the gate; 1 lets the memory last from the start.

    Source: Collins, Sohl-Dickstein & Sussillo 2017, "Capacity and Trainability in Recurrent Neural Networks"; the gate
    g of the paper is z here, its candidate c is n.
    """

    gate_count = 2
    gate_names = ("z",)
    tanh_names = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[:hidden_size], forget_bias)

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gate, the candidate and the new state."""
        z, n = (projected + recurrent).chunk(2, dim=-1)  # [B, H] each
        candidate = torch.tanh(n)
        hidden = candidate + torch.sigmoid(z) * (state.hidden - candidate)
        return hidden, HiddenState(hidden)


class JANETCell(GatedCell):
    """An LSTM of which the forget gate alone is left ("just another network").

    s = W_f x + R_f h + b_f    n = tanh(W_n x + R_n h + b_n)
    h' = σ(s) ⊙ h + (1 - σ(s - β)) ⊙ n

    Gate order f, n. With β above 0 more is written than is forgotten.

    Args:
        input_size: I.
        hidden_size: H.
        beta: β; 1 in the paper.
        forget_bias: initial bias of the forget gate.
        memory_steps: T, the longest dependency; draws b_f from log U(1, T - 1) in place of `forget_bias`, so that the
            units begin with memories between 1 and T steps ("chrono" initialisation; what the paper uses).

    Raises:
        InputError: if `memory_steps` is below 3.

    Source: van der Westhuizen & Lasenby 2018, "The Unreasonable Effectiveness of the Forget Gate", arXiv 1804.04849;
    the initialisation: Tallec & Ollivier 2018. The candidate c̃ of the paper is n here.
    """

    gate_count = 2
    gate_names = ("f", "i")
    tanh_names = ("n",)

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        beta: float = 1.0,
        forget_bias: float = 1.0,
        memory_steps: int | None = None,
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if memory_steps is not None and memory_steps < 3:
            raise InputError("JANETCell.memory_steps", expected="at least 3", got=str(memory_steps))
        self.beta = beta
        forget = self.bias.data[:hidden_size]
        if memory_steps is None:
            nn.init.constant_(forget, forget_bias)
        else:
            nn.init.uniform_(forget, 1.0, memory_steps - 1.0).log_()

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gate, the candidate and the new state."""
        s, n = (projected + recurrent).chunk(2, dim=-1)  # [B, H] each
        hidden = torch.sigmoid(s) * state.hidden + torch.sigmoid(self.beta - s) * torch.tanh(n)
        return hidden, HiddenState(hidden)


class MGUCell(AffineCell, StagedCell):
    """The minimal gated unit: a GRU whose one gate is both reset and update gate.

    f = σ(W_f x + R_f h + b_f)    n = tanh(W_n x + R_n (f ⊙ h) + b_n)
    h' = (1 - f) ⊙ h + f ⊙ n

    Gate order f, n; ``input_weight`` [2·H, I], ``recurrent_weight`` [2·H, H], ``bias`` [2·H]. An open f forgets, so
    its bias starts at 0, not at 1. Two products follow each other in a step.

    Source: Zhou, Wu, Zhang & Zhou 2016, "Minimal Gated Unit for Recurrent Neural Networks", arXiv 1603.09420; the
    candidate h̃ of the paper is n here.
    """

    gate_names = ("f", "f")
    tanh_names = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(2 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight)

    def initial_state(self, batch_size: int) -> HiddenState:
        """Return zeros."""
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the gate and of the candidate, [H, H] each."""
        return self.recurrent_weight.split(self.hidden_size)

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState) -> Tensor:
        """Return h, then f ⊙ h."""
        if index == 0:
            return state.hidden
        return torch.sigmoid(projected[..., : self.hidden_size] + products[0]) * state.hidden

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute the gate again, the candidate and the new state."""
        projected_f, projected_n = projected.chunk(2, dim=-1)  # [B, H] each
        gate = torch.sigmoid(projected_f + products[0])
        candidate = torch.tanh(projected_n + products[1])
        hidden = state.hidden + gate * (candidate - state.hidden)
        return hidden, HiddenState(hidden)
