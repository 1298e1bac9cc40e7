"""The independently recurrent network: each unit remembers itself alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, HiddenState, StagedCell
from rnnzoo.errors import InputError, unknown_name

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


class IndRNNCell(AffineCell, StagedCell):
    """A simple recurrent cell whose units see their own past alone, so that a step needs no matrix product.

    h' = act(W x + u ⊙ h + b)

    ``input_weight`` [H, I], ``recurrent_scale`` u [H] and ``bias`` [H]. Units exchange what they know in the next
    layer: use two layers or more.

    The rectified state grows as u^t. With `memory_steps` T, u is drawn from U(0, 2^(1/T)), so that within T steps no
    unit more than doubles what it holds; without, from U(0, 1).

    Args:
        input_size: I.
        hidden_size: H.
        activation: ``relu`` or ``tanh``.
        memory_steps: T, the length of the sequences; bounds u at the start of training.

    Raises:
        InputError: for an unknown activation, or `memory_steps` below 1.

    Source: Li, Li, Cook, Zhu & Gao 2018, "Independently Recurrent Neural Network (IndRNN)", arXiv 1803.04831. There, u
    is also clipped to the bound after each update, and kept above a lower bound in the last layer; here it is free.
    """

    def __init__(
        self, *, input_size: int, hidden_size: int, activation: str = "relu", memory_steps: int | None = None
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if activation not in ACTIVATIONS:
            raise unknown_name("IndRNNCell.activation", activation, ACTIVATIONS)
        if memory_steps is not None and memory_steps < 1:
            raise InputError("IndRNNCell.memory_steps", expected="at least 1", got=str(memory_steps))
        self.activation = activation
        self.input_weight = nn.Parameter(torch.empty(hidden_size, input_size))
        self.recurrent_scale = nn.Parameter(torch.empty(hidden_size))  # u
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        bound = input_size**-0.5
        nn.init.uniform_(self.input_weight, -bound, bound)
        nn.init.uniform_(self.recurrent_scale, 0.0, 1.0 if memory_steps is None else 2 ** (1 / memory_steps))

    def initial_state(self, batch_size: int) -> HiddenState:
        """Return zeros."""
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return nothing: there is no product."""
        return ()

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState) -> Tensor:
        """Refuse: there is no product."""
        raise IndexError(index)

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Add each unit's own past and squash."""
        hidden = ACTIVATIONS[self.activation](projected + self.recurrent_scale * state.hidden)  # [B, H]
        return hidden, HiddenState(hidden)
