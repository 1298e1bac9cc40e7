"""What a backend is, and what all of them begin with."""

from __future__ import annotations

from functools import wraps
from typing import Protocol

from torch import Tensor

from rnnzoo.cells.base import Cell
from rnnzoo.lengths import zero_padding
from rnnzoo.state import State


class Backend(Protocol):
    """A backend: a function that runs a cell over time."""

    def __call__(self, cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State | None) -> tuple[Tensor, State]:
        """Run a cell over right-padded sequences.

        Args:
            cell: a cell that the backend can run.
            inputs: [B, T, I].
            lengths: [B] valid steps of each row; None means T for all.
            state: the state before the first step; None takes the cell's initial state.

        Returns:
            Outputs [B, T, O], zero at and past each row's length, and the state after each row's last valid step.
        """
        ...


class Steps(Protocol):
    """What is special of a backend: a batch with rows and steps, zeros for its padding, and a state."""

    def __call__(self, cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Do as a `Backend`."""
        ...


def backend(steps: Steps) -> Backend:
    """Make a backend of a function that need not care for an empty batch, a missing state or what stands on padding."""

    @wraps(steps)
    def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State | None) -> tuple[Tensor, State]:
        rows, size, _ = inputs.shape
        state = cell.initial_state(rows) if state is None else state
        if rows == 0 or size == 0:
            return inputs.new_zeros(rows, size, cell.output_size), state
        lengths = None if lengths is None else lengths.long()  # no index, and no number above T, in narrow ones
        return steps(cell, zero_padding(inputs, lengths), lengths, state)

    return run
