"""The two cells of xLSTM: exponential gates, and a memory of vectors or of matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import AffineCell, GatedCell
from rnnzoo.errors import InputError
from rnnzoo.numerics import wide

MOST = 80.0  # exp of it is a float32
EPSILON = 1e-6


class SLSTMState(NamedTuple):
    """The state of an sLSTM."""

    hidden: Tensor  # [B, H]
    cell: Tensor  # c [B, H]
    normaliser: Tensor  # n [B, H], 0 before the first step and at least 1 after it
    stabiliser: Tensor  # m [B, H], the logarithm by which c and n are scaled down


class SLSTMCell(GatedCell):
    """The LSTM with an exponential input gate, whose memory is an average with weights ("sLSTM").

    a_i, a_f, a_g, a_o = W x + R h + b, block by block
    m' = max(log σ(a_f) + m, a_i), or a_i where n = 0    i = exp(a_i - m')    f = exp(log σ(a_f) + m - m')
    c' = f ⊙ c + i ⊙ tanh(a_g)    n' = f ⊙ n + i    h' = σ(a_o) ⊙ c' / n'

    The output does not depend on m: it only keeps exp from overflowing. Block order i, f, g, o; the recurrent weights
    are one full head. c, n and m are float32 or wider whatever the weights are: n sums up as many steps as the gates
    remember.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Source: Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", arXiv 2405.04517, with the sigmoid forget gate;
    g is the paper's z. There the first step of a whole batch is told by n = 0 in all of it; here each unit tells its
    own, so that a row alone and a row reset within a batch are the same.
    """

    gate_count = 4
    gate_names = ("f", "o")
    tanh_names = ("g",)
    fixed_fields = ("cell", "normaliser", "stabiliser")

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> SLSTMState:
        """Return zeros."""
        hidden = self.zeros(batch_size, self.hidden_size)
        return SLSTMState(hidden, *(torch.zeros_like(hidden, dtype=wide(hidden.dtype)) for _ in range(3)))

    def gates(self, projected: Tensor, recurrent: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
        """Compute the four gates and the new state."""
        i, f, g, o = (projected + recurrent).to(state.cell.dtype).chunk(4, dim=-1)  # [B, H] each
        kept = F.logsigmoid(f) + state.stabiliser
        stabiliser = torch.where(state.normaliser == 0, i, torch.maximum(kept, i))
        write = torch.exp(i - stabiliser)
        keep = torch.exp((kept - stabiliser).clamp(max=0.0))  # above 0 only where there is nothing to keep
        cell = keep * state.cell + write * torch.tanh(g)
        normaliser = keep * state.normaliser + write
        hidden = (torch.sigmoid(o) * cell / normaliser).to(state.hidden.dtype)
        return hidden, SLSTMState(hidden, cell, normaliser, stabiliser)


class MLSTMState(NamedTuple):
    """The state of an mLSTM with N heads of size D."""

    hidden: Tensor  # [B, H]
    memory: Tensor  # C [B, N, D, D], key by value
    normaliser: Tensor  # n [B, N, D]
    stabiliser: Tensor  # m [B, N], the logarithm by which C and n are scaled down


class MLSTMCell(AffineCell):
    """The LSTM with a matrix memory: values are written under keys, and read by queries ("mLSTM").

    q, k, v, o = W x + b, H numbers each; a_i, a_f = W x + b, one number a head
    m' = max(log σ(a_f) + m, a_i)    i = exp(a_i - m')    f = exp(log σ(a_f) + m - m')
    C' = f C + i (k/√D) vᵀ    n' = f n + i (k/√D)    in each of N heads, D = H/N
    h' = σ(o) ⊙ (C'ᵀ q) / (max(|qᵀ n'|, exp(-m')) + 10⁻⁶)

    ``input_weight`` [4·H + 2·N, I] and ``bias``, block order q, k, v, o, i, f. Nothing depends on the last h: it is in
    the state for what asks with it, an attention, and setting it changes no output. But for the 10⁻⁶ the output does
    not depend on m. C, n and m are float32 or wider whatever the weights are.

    The gates do not see the input at first: their weights are 0, the forget gates' biases lie evenly from 3 (a head
    that remembers 20 steps) to 6 (400 steps), those of the input gates are drawn from N(0, 0.1²).

    Args:
        input_size: I.
        hidden_size: H.
        heads: N, a divisor of H; None takes the largest of 4, 2 and 1 that is one. The memory is H·H/N numbers a row.

    Raises:
        InputError: if `heads` is no divisor of H.

    Source: Beck et al. 2024, "xLSTM: Extended Long Short-Term Memory", arXiv 2405.04517, with the sigmoid forget gate;
    the start and 10⁻⁶ are those of its code. The norm of each head, which that code puts after the cell, is left out.
    """

    gate_names = ("f", "o")
    fixed_fields = ("memory", "normaliser", "stabiliser")

    def __init__(self, *, input_size: int, hidden_size: int, heads: int | None = None) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        heads = math.gcd(4, hidden_size) if heads is None else heads
        if heads < 1 or hidden_size % heads:
            raise InputError("MLSTMCell.heads", expected=f"a divisor of hidden_size {hidden_size}", got=str(heads))
        self.heads = heads
        self.input_weight = nn.Parameter(torch.zeros(4 * hidden_size + 2 * heads, input_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size + 2 * heads))
        bound = input_size**-0.5
        nn.init.uniform_(self.input_weight.data[: 4 * hidden_size], -bound, bound)
        nn.init.normal_(self.bias.data[4 * hidden_size : -heads], std=0.1)
        self.bias.data[-heads:] = torch.linspace(3.0, 6.0, heads)

    def initial_state(self, batch_size: int) -> MLSTMState:
        """Return zeros."""
        size = self.hidden_size // self.heads
        shapes = ((self.heads, size, size), (self.heads, size), (self.heads,))
        hidden = self.zeros(batch_size, self.hidden_size)
        return MLSTMState(hidden, *(hidden.new_zeros(batch_size, *shape, dtype=wide(hidden.dtype)) for shape in shapes))

    def step(self, projected: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
        """Write, then read."""
        vectors, gates = projected.to(state.memory.dtype).split((4 * self.hidden_size, 2 * self.heads), dim=-1)
        q, k, v, o = vectors.unflatten(-1, (4, self.heads, -1)).unbind(-3)  # [B, N, D] each
        a_i, a_f = gates.chunk(2, dim=-1)  # [B, N] each
        kept = F.logsigmoid(a_f) + state.stabiliser
        stabiliser = torch.maximum(kept, a_i)
        keep = torch.exp(kept - stabiliser).unsqueeze(-1)  # [B, N, 1]
        key = torch.exp(a_i - stabiliser).unsqueeze(-1) * k / math.sqrt(k.shape[-1])  # [B, N, D]
        memory = keep.unsqueeze(-1) * state.memory + key.unsqueeze(-1) * v.unsqueeze(-2)  # [B, N, D, D]
        normaliser = keep * state.normaliser + key  # [B, N, D]
        read = (q.unsqueeze(-2) @ memory).squeeze(-2)  # [B, N, D]
        least = torch.exp((-stabiliser).clamp(max=MOST))  # [B, N]
        scale = torch.maximum((q * normaliser).sum(-1).abs(), least) + EPSILON
        hidden = (torch.sigmoid(o) * read / scale.unsqueeze(-1)).flatten(-2).to(state.hidden.dtype)  # [B, H]
        return hidden, MLSTMState(hidden, memory, normaliser, stabiliser)
