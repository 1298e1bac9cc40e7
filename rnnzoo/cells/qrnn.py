"""Quasi-recurrent neural networks: a convolution over time for the gates, a linear recurrence for the memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import HiddenState, LinearCell, draw_weights
from rnnzoo.errors import InputError
from rnnzoo.lengths import last_valid
from rnnzoo.numerics import widen
from rnnzoo.state import State


class QRNNState(NamedTuple):
    """The state of a QRNN that looks at two inputs."""

    hidden: Tensor  # [B, H], the memory c
    previous: Tensor  # [B, 3·H], V x of the step before; zeros before the first


class QRNNCell(LinearCell):
    """The quasi-recurrent cell with fo-pooling.

    z = tanh(W_z x + V_z x⁻ + b_z)    f = σ(W_f x + V_f x⁻ + b_f)    o = σ(W_o x + V_o x⁻ + b_o)
    c' = f ⊙ c + (1 - f) ⊙ z    y = o ⊙ c'

    with the input x⁻ of the step before, 0 at the start; with ``window`` 1 there is no V. Gate order z, f, o;
    ``input_weight`` [3·H, 2·I] holds W and V side by side, ``bias`` [3·H]. The memory c is the state's ``hidden``.
    V x⁻ is part of the state, so that chunks, single steps and beams give the numbers of the whole.

    Args:
        input_size: I.
        hidden_size: H.
        window: 2 to look at this input and the one before, 1 for this one alone.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Raises:
        InputError: for another window.

    Source: Bradbury et al. 2016, "Quasi-Recurrent Neural Networks", arXiv 1611.01576; its zoneout is not here, and the
    forget bias is ours.
    """

    gate_names = ("f", "o")
    tanh_names = ("z",)
    fixed_fields = ("previous",)

    def __init__(self, *, input_size: int, hidden_size: int, window: int = 2, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if window not in (1, 2):
            raise InputError("QRNNCell.window", expected="1 or 2", got=str(window))
        self.window = window
        self.input_weight = nn.Parameter(torch.empty(3 * hidden_size, window * input_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        draw_weights(self.input_weight)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros."""
        hidden = self.zeros(batch_size, self.hidden_size, widened=True)
        if self.window == 1:
            return HiddenState(hidden)
        return QRNNState(hidden, self.zeros(batch_size, 3 * self.hidden_size, widened=True))

    def project(self, inputs: Tensor) -> Tensor:
        """Return W x + b and V x: [..., I] → [..., 6·H], or W x + b alone with a window of 1."""
        now, *before = self.input_weight.split(self.input_size, dim=1)  # [3·H, I] each
        gates = F.linear(inputs, now, self.bias)
        return torch.cat([gates, F.linear(inputs, before[0])], dim=-1) if before else gates

    def project_sequence(self, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Return W x + V x⁻ + b of all steps as one product [B, T, 3·H], and the state with the last V x."""
        if self.window == 1:
            return self.project(inputs), state
        batch_size, steps, _ = inputs.shape
        seen = torch.cat([inputs, F.pad(inputs, (0, 0, 1, -1))], dim=-1).flatten(0, 1)  # [B·T, 2·I]
        gates = F.linear(seen, self.input_weight, self.bias)  # [B·T, 3·H]
        gates = AddToFirst.apply(gates, state.previous, steps)
        last = F.linear(last_valid(inputs, lengths), self.input_weight[:, self.input_size :])
        last = last.to(state.previous.dtype)  # [B, 3·H]
        if lengths is not None:
            last = torch.where((lengths > 0).unsqueeze(1), last, state.previous)
        return gates.unflatten(0, (batch_size, steps)), state._replace(previous=last)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and (1 - f) ⊙ z."""
        z, f, _ = widen(projected).chunk(3, dim=-1)  # [..., H] each
        forget = torch.sigmoid(f)
        return forget, (1 - forget) * torch.tanh(z)

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return o ⊙ c."""
        return (torch.sigmoid(projected.chunk(3, dim=-1)[2]) * hidden).to(projected.dtype)

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step: add what the input before has to say, and remember V x of this one."""
        if self.window == 1:
            return super().step(projected, state)
        gates, last = projected.chunk(2, dim=-1)  # [B, 3·H] each
        gates = gates + state.previous.to(gates.dtype)
        return super().step(gates, state._replace(previous=last.to(state.previous.dtype)))


class AddToFirst(torch.autograd.Function):
    """Add to the first step of each row, in place: a sum by other means would copy all steps."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, previous: Tensor, steps: int) -> Tensor:
        """Add previous [B, P] to the rows 0, T, 2·T, ... of gates [B·T, P]."""
        ctx.steps, ctx.dtype = steps, previous.dtype
        ctx.mark_dirty(gates)
        gates[::steps] += previous
        return gates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Hand the gradient on to both."""
        return grad, grad[:: ctx.steps].to(ctx.dtype), None
