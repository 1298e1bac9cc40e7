"""What a cell is: a projection of its input, a state, and one step.

Letters: B batch, I input, H hidden, O output, P projected input.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.errors import InputError, did_you_mean
from rnnzoo.state import State


class HiddenState(NamedTuple):
    """The state of a cell that remembers its hidden vector alone."""

    hidden: Tensor  # [B, H]


class Cell(nn.Module, ABC):
    """Any recurrence: a backend runs it over time, through `project` once and `step` for each step.

    Args:
        input_size: I.
        hidden_size: H.
        output_size: O, the numbers that a step puts out; H unless the cell says otherwise.

    Raises:
        InputError: if a size is below 1.
    """

    def __init__(self, *, input_size: int, hidden_size: int, output_size: int | None = None) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise InputError(f"{type(self).__name__}.{name}", expected="at least 1", got=str(size))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size if output_size is None else output_size

    @abstractmethod
    def project(self, inputs: Tensor) -> Tensor:
        """Compute everything that does not need the state: [..., I] → [..., P], one product for all steps."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step, zeros on the device and dtype of the parameters."""

    @abstractmethod
    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step: projected input [B, P] and state → output [B, O] and state."""


class GatedCell(Cell, ABC):
    """A cell in which the hidden state enters by one matrix product and the rest is pointwise.

    The gates are stacked in ``gate_count`` blocks of H rows: ``input_weight`` [G·H, I], ``recurrent_weight`` [G·H, H]
    and one ``bias`` [G·H] for both.

    Input weights are drawn from U(-1/√I, 1/√I), recurrent weights are orthogonal block by block, biases are zero.
    """

    gate_count: int

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        rows = self.gate_count * hidden_size
        self.input_weight = nn.Parameter(torch.empty(rows, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias = nn.Parameter(torch.empty(rows))
        nn.init.uniform_(self.input_weight, -(input_size**-0.5), input_size**-0.5)
        for block in self.recurrent_weight.data.chunk(self.gate_count):
            nn.init.orthogonal_(block)
        nn.init.zeros_(self.bias)

    def project(self, inputs: Tensor) -> Tensor:
        """Return W x + b: [..., I] → [..., G·H]."""
        return F.linear(inputs, self.input_weight, self.bias)

    def recur(self, hidden: Tensor) -> Tensor:
        """Return R h: [B, H] → [B, G·H]."""
        return F.linear(hidden, self.recurrent_weight)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros."""
        return HiddenState(self.recurrent_weight.new_zeros(batch_size, self.hidden_size))

    @abstractmethod
    def gates(self, projected: Tensor, recurrent: Tensor, state: State) -> tuple[Tensor, State]:
        """Combine W x + b and R h, both [B, G·H], with the state, pointwise → output [B, H] and state."""

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step: one matrix product, then the gates."""
        return self.gates(projected, self.recur(state.hidden), state)


def check_options(name: str, kind: type[Cell], options: Mapping[str, Any]) -> None:
    """Refuse options that a cell does not have.

    Raises:
        InputError: naming the options that there are.
    """
    known = [key for key in inspect.signature(kind).parameters if key not in ("input_size", "hidden_size")]
    for key in options:
        if key not in known:
            listed = f"one of {', '.join(known)}" if known else "no options"
            raise InputError(f"options of cell {name!r}", expected=listed, got=repr(key), fix=did_you_mean(key, known))
