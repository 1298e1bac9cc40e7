"""Gated cells whose sums are normalised over the units, at each step: layer normalisation inside the recurrence.

LN(v; γ) = γ ⊙ (v - mean(v)) / √(var(v) + ε), over the numbers of one row. A gain γ starts at 1. The shifts of two
normalised sums that are added are one bias.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import GatedCell, HiddenState
from rnnzoo.cells.lstm import LSTMState
from rnnzoo.errors import InputError


class NormalisedLSTMCell(GatedCell):
    """What both normalised LSTMs have in common: the sums of the gates and the parameters.

    (a_i, a_f, a_g, a_o) = LN(W x; γ_x) + LN(R h; γ_h) + b    each LN over all four blocks, 4·H numbers

    ``input_gain`` γ_x [4·H], ``recurrent_gain`` γ_h [4·H], ``cell_gain`` γ_c and ``cell_bias`` b_c [H]; block order
    i, f, g, o.

    Args:
        input_size: I.
        hidden_size: H; with H = 1 the normalised memory is b_c whatever comes in.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.
        epsilon: ε.

    Raises:
        InputError: for an `epsilon` that is not above 0.
    """

    gate_count = 4

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0, epsilon: float = 1e-5) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.epsilon = checked(epsilon, self)
        self.input_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.recurrent_gain = nn.Parameter(torch.ones(4 * hidden_size))
        self.cell_gain = nn.Parameter(torch.ones(hidden_size))
        self.cell_bias = nn.Parameter(torch.zeros(hidden_size))
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def project(self, inputs: Tensor) -> Tensor:
        """Return LN(W x; γ_x) + b: [..., I] → [..., 4·H]."""
        return normalise(F.linear(inputs, self.input_weight), self.input_gain, self.epsilon) + self.bias

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return LSTMState(self.zeros(*size), self.zeros(*size))

    def sums(self, projected: Tensor, recurrent: Tensor) -> tuple[Tensor, ...]:
        """Return a_i, a_f, a_g and a_o, [B, H] each."""
        return (projected + normalise(recurrent, self.recurrent_gain, self.epsilon)).chunk(4, dim=-1)

    def normalised_cell(self, cell: Tensor) -> Tensor:
        """Return LN(c; γ_c) + b_c."""
        return normalise(cell, self.cell_gain, self.epsilon) + self.cell_bias


class LayerNormLSTMCell(NormalisedLSTMCell):
    """The layer-normalised LSTM of the paper: what is read from the memory is normalised, the memory is not.

    c' = σ(a_f) ⊙ c + σ(a_i) ⊙ tanh(a_g)    h' = σ(a_o) ⊙ tanh(LN(c'; γ_c) + b_c)

    with a as in `NormalisedLSTMCell`.

    Source: Ba, Kiros & Hinton 2016, "Layer Normalization", arXiv 1607.06450.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("g", "tanh c'")

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g, o = self.sums(projected, recurrent)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(self.normalised_cell(cell))
        return hidden, LSTMState(hidden, cell)


class StateNormLSTMCell(NormalisedLSTMCell):
    """A layer-normalised LSTM that carries its memory normalised.

    c' = LN(σ(a_f) ⊙ c + σ(a_i) ⊙ tanh(a_g); γ_c) + b_c    h' = σ(a_o) ⊙ tanh(c')

    with a as in `NormalisedLSTMCell`. The memory stays small however long the sequence, and what it holds fades with
    what is added to the other units.

    Source: the layer-normalised LSTM of torch's benchmark of recurrent networks, which often goes by the name of the
    paper's; that one is `LayerNormLSTMCell`.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("g", "tanh c'")

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g, o = self.sums(projected, recurrent)
        cell = self.normalised_cell(torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g))
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class LayerNormGRUCell(GatedCell):
    """The layer-normalised gated recurrent unit; the reset gate acts after the product.

    (a_r, a_z) = LN(W_rz x; γ_x) + LN(R_rz h; γ_h) + b    each LN over both blocks, 2·H numbers
    n = tanh(LN(W_n x; γ_xn) + b_n + σ(a_r) ⊙ (LN(R_n h; γ_hn) + b_m))
    h' = (1 - σ(a_z)) ⊙ n + σ(a_z) ⊙ h

    Block order r, z, n; ``input_gain`` (γ_x, γ_xn) and ``recurrent_gain`` (γ_h, γ_hn), [3·H] each; b_m is
    ``candidate_bias`` [H].

    Args:
        input_size: I.
        hidden_size: H; with H = 1 both parts of the candidate are their biases whatever comes in.
        epsilon: ε.

    Raises:
        InputError: for an `epsilon` that is not above 0.

    Source: Ba, Kiros & Hinton 2016, "Layer Normalization", arXiv 1607.06450, supplement; z and 1 - z are exchanged to
    torch's convention. Other code normalises all three blocks together.
    """

    gate_count = 3
    gate_names = ("r", "z")
    tanh_names = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int, epsilon: float = 1e-5) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.epsilon = checked(epsilon, self)
        self.input_gain = nn.Parameter(torch.ones(3 * hidden_size))
        self.recurrent_gain = nn.Parameter(torch.ones(3 * hidden_size))
        self.candidate_bias = nn.Parameter(torch.zeros(hidden_size))  # b_m

    def project(self, inputs: Tensor) -> Tensor:
        """Return both normalised parts of W x, and b: [..., I] → [..., 3·H]."""
        parts = self.normalised_parts(F.linear(inputs, self.input_weight), self.input_gain)
        return torch.cat(parts, dim=-1) + self.bias

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        """Compute the gates and the new state."""
        gates, candidate = self.normalised_parts(recurrent, self.recurrent_gain)
        split = 2 * self.hidden_size
        reset, update = torch.sigmoid(projected[..., :split] + gates).chunk(2, dim=-1)  # [B, H] each
        candidate = torch.tanh(projected[..., split:] + reset * (candidate + self.candidate_bias))
        hidden = candidate + update * (state.hidden - candidate)
        return hidden, HiddenState(hidden)

    def normalised_parts(self, sums: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return LN of the gates' sums [..., 2·H] and of the candidate's [..., H]."""
        split, epsilon = 2 * self.hidden_size, self.epsilon
        return normalise(sums[..., :split], gain[:split], epsilon), normalise(sums[..., split:], gain[split:], epsilon)


def normalise(values: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Return LN(v; γ) over the last axis, with a derivative also where all numbers are the same."""
    return F.layer_norm(values, values.shape[-1:], gain, eps=epsilon)


def checked(epsilon: float, cell: GatedCell) -> float:
    """Return ε if it is above 0: without it the norm of equal numbers is 0/0."""
    if not 0 < epsilon < math.inf:
        raise InputError(f"{type(cell).__name__}.epsilon", expected="a number above 0", got=str(epsilon))
    return epsilon
