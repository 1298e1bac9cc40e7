"""The state of a recurrent network, and the few things that are done to it.

A state is a tensor whose axis 0 is the batch, or a (named) tuple of states, nested as deep as needed: a cell's state
is a `NamedTuple` of tensors, the state of a stack is a tuple of those. Nothing here knows which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

State = Any  # Tensor | tuple[State, ...]; Python's type checkers cannot follow a map over nested NamedTuples


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """Apply `function` to the tensors at the same place of all `states`, keeping the structure of the first.

    >>> map_state(torch.add, (torch.ones(2), torch.zeros(2)), (torch.ones(2), torch.ones(2)))
    (tensor([2., 2.]), tensor([1., 1.]))
    """
    first = states[0]
    if isinstance(first, Tensor):
        return function(*states)
    parts = [map_state(function, *fields) for fields in zip(*states, strict=True)]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def flatten(state: State) -> list[Tensor]:
    """List the tensors of a state, in a fixed order."""
    return [state] if isinstance(state, Tensor) else [field for part in state for field in flatten(part)]


def unflatten(template: State, fields: Sequence[Tensor]) -> State:
    """Put tensors in the order of `flatten` into the structure of `template`."""
    left = iter(fields)
    return map_state(lambda _: next(left), template)


def detach(state: State) -> State:
    """Cut the state from the graph that made it, so that gradients stop here."""
    return map_state(Tensor.detach, state)


def select_rows(state: State, rows: Tensor) -> State:
    """Take the rows with the indices `rows` [N] of the batch axis: reorders, repeats or drops sequences."""
    return map_state(lambda field: field.index_select(0, rows), state)


def where(condition: Tensor, chosen: State, otherwise: State) -> State:
    """Take each row from `chosen` where `condition` [B] is true, and from `otherwise` where it is false."""

    def pick(yes: Tensor, no: Tensor) -> Tensor:
        return torch.where(condition.reshape(-1, *[1] * (yes.dim() - 1)), yes, no)

    return map_state(pick, chosen, otherwise)
