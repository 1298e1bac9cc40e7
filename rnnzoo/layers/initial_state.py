"""The first state of recurrent layers, from one vector."""

from __future__ import annotations

from torch import Tensor, nn

from rnnzoo.cells.wrappers import RecurrentDropout, base_cell
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent, States, learnable_fields
from rnnzoo.state import State


class InitialState(nn.Module):
    """tanh(W x + b) for each layer and each field of its state, whatever the cell.

    A field that is no vector (a matrix memory), that the cell keeps for itself or never reads starts as the cell
    starts it.

    Args:
        input_size: I.
        recurrent: the layers whose first state is made; of one direction, without a learnt initial state.

    Raises:
        InputError: if the layers learn their initial state, which would then have no effect.
    """

    def __init__(self, *, input_size: int, recurrent: Recurrent) -> None:
        super().__init__()
        if len(recurrent.initial):
            raise InputError(
                "learn_initial_state",
                expected="layers whose first state is not given",
                got="layers that start from an image",
                fix="leave it out",
            )
        self._recurrent = [recurrent]  # in a list: its parameters are not ours
        self.maps = nn.ModuleList()
        for cell in recurrent.cells:
            first = base_cell(cell).initial_state(1)  # type: ignore[arg-type]
            fields = {name: getattr(first, name) for name in learnable_fields(base_cell(cell))}  # type: ignore[arg-type]
            linears = {
                name: nn.Linear(input_size, field.shape[1]) for name, field in fields.items() if field.dim() == 2
            }
            self.maps.append(nn.ModuleDict(linears))

    @property
    def carries(self) -> bool:
        """Whether the layers begin with anything of the vector."""
        return any(len(linears) > 0 for linears in self.maps)  # type: ignore[arg-type]

    def forward(self, vectors: Tensor) -> States:
        """Map vectors [B, I] to a state of B rows."""
        states: list[State] = []
        for cell, each in zip(self._recurrent[0].cells, self.maps, strict=True):
            linears: nn.ModuleDict = each  # type: ignore[assignment]
            first = base_cell(cell).initial_state(len(vectors))  # type: ignore[arg-type]
            state = first._replace(**{name: linear(vectors).tanh() for name, linear in linears.items()})
            states.append(cell.wrap(state) if isinstance(cell, RecurrentDropout) else state)
        return tuple(states)
