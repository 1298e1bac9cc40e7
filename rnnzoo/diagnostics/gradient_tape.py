"""Running a model while everything that its cells give is kept, for gradients with respect to their states.

Axes: N rows of one call of a cell's step, H hidden, O output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rnnzoo.cells.base import Cell
from rnnzoo.layers.recurrent import Recurrent, inner_state
from rnnzoo.models.transfer import DIRECTIONS, recurrent_layers
from rnnzoo.state import State, map_state


class Call(NamedTuple):
    """One call of a cell's step, with what it gave."""

    output: Tensor  # [N, O]
    state: list[Tensor]  # [N, ...] each
    sigmoids: list[Tensor]  # [N, H] each, cut from the graph
    tangents: list[Tensor]  # [N, H] each, cut from the graph: hyperbolic tangents
    decay: Tensor | None  # [N, H], |a| of a linear recurrence


class Tape:
    """The calls of one cell: a list for each sequence that it ran over."""

    def __init__(self) -> None:
        self.sequences: list[list[Call]] = []
        self.running = False

    def begin(self) -> None:
        """Start a sequence."""
        self.sequences.append([])
        self.running = True

    def close(self) -> None:
        """End a sequence: a step after it, outside of `Recurrent.forward`, starts the next."""
        self.running = False

    def add(self, call: Call) -> None:
        """Keep a call. Rows may end before others, so that a later call has fewer, but none begins later."""
        if not self.running or (self.sequences[-1] and len(call.output) > len(self.sequences[-1][-1].output)):
            self.begin()
        self.sequences[-1].append(call)


class ActivationOutputs(TorchDispatchMode):
    """Collects the results of sigmoids, however they are spelled (of a logarithm, its exponential), and of tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoids: list[Tensor] = []
        self.tangents: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.sigmoid.default:
            self.sigmoids.append(result)
        elif func is torch.ops.aten.tanh.default:
            self.tangents.append(result)
        elif func is torch.ops.aten.log_sigmoid_forward.default:
            self.sigmoids.append(result[0].exp())
        elif func is torch.ops.aten.log_sigmoid.default:  # the same where no gradient is kept
            self.sigmoids.append(result.exp())
        return result


def cells_by_place(model: nn.Module) -> dict[str, Cell]:
    """Return the cells of all recurrent layers, by the name of their place such as ``encoder.layer 0 forward``."""
    found: dict[str, Cell] = {}
    for prefix, layers in recurrent_layers(model).items():
        for number, cell in enumerate(layers.cells):
            layer, direction = divmod(number, 1 + layers.bidirectional)
            found[f"{prefix}.layer {layer} {DIRECTIONS[direction]}"] = cell  # type: ignore[assignment]
    return found


@contextmanager
def recording(model: nn.Module) -> Iterator[dict[str, Tape]]:
    """Run all recurrent layers of a model on the ``reference`` backend and keep what each step of a cell gives."""
    tapes: dict[str, Tape] = {}
    with ExitStack() as undo:
        by_cell = {id(cell): place for place, cell in cells_by_place(model).items()}
        for layers in recurrent_layers(model).values():
            own = [tapes.setdefault(by_cell[id(cell)], Tape()) for cell in layers.cells]
            undo.callback(setattr, layers, "backend", layers.backend)
            layers.backend = "reference"
            watch(layers, own, undo)
            for cell, tape in zip(layers.cells, own, strict=True):
                decays: list[Tensor] = []
                if hasattr(cell, "coefficients"):
                    cell.coefficients = keeping_decay(cell.coefficients, decays)
                    undo.callback(delattr, cell, "coefficients")
                cell.step = recorded(cell, tape, decays)  # type: ignore[arg-type]
                undo.callback(delattr, cell, "step")
        yield tapes


def watch(layers: Recurrent, tapes: Sequence[Tape], undo: ExitStack) -> None:
    """Start a sequence on the tapes of a stack whenever it is called on whole sequences."""

    def before(*_: Any) -> None:
        for tape in tapes:
            tape.begin()

    def after(*_: Any) -> None:
        for tape in tapes:
            tape.close()

    undo.callback(layers.register_forward_pre_hook(before).remove)
    undo.callback(layers.register_forward_hook(after).remove)


def keeping_decay(coefficients: Any, kept: list[Tensor]) -> Any:
    """Return the `coefficients` of a linear cell that also keep |a|."""

    def run(projected: Tensor) -> tuple[Tensor, Tensor]:
        decay, addition = coefficients(projected)
        kept[:] = [decay.detach().abs()]
        return decay, addition

    return run


def recorded(cell: Cell, tape: Tape, decays: list[Tensor]) -> Any:
    """Return the `step` of a cell that also writes to a tape, with what its `coefficients` kept in `decays`.

    Output and state are given as copies of their own: the gradient of one then does not run through the other, as it
    would where both are the same tensor, or where h is computed from c.
    """
    step = cell.step

    def run(projected: Tensor, state: State) -> tuple[Tensor, State]:
        with ActivationOutputs() as activations:
            output, after = step(projected, state)
        output, after = own_copy(output), map_state(own_copy, after)
        fields = [each for each in inner_state(after) if each.is_floating_point()]
        sigmoids, tangents = (
            [block for result in results for block in split_gates(result.detach(), cell.hidden_size)]
            for results in (activations.sigmoids, activations.tangents)
        )
        tape.add(Call(output, fields, sigmoids, tangents, decays.pop() if decays else None))
        return output, after

    return run


def own_copy(tensor: Tensor) -> Tensor:
    """Return a copy that the gradient passes, and that has one."""
    copy = tensor.clone()
    return copy if copy.requires_grad or not copy.is_floating_point() else copy.requires_grad_()


def split_gates(activations: Tensor, hidden_size: int) -> list[Tensor]:
    """Return the gates [N, H] that were computed in one product, or the whole if they are no vectors of H."""
    width = activations.shape[-1]
    if activations.dim() != 2 or width % hidden_size:
        return [activations]
    return list(activations.split(hidden_size, dim=-1))
