"""Laws of a cell itself. The docstring of each is the law, as an error quotes it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rnnzoo.cells.base import Cell, LinearCell, StagedCell
from rnnzoo.cells.registration import check_initial_state
from rnnzoo.state import State, map_state
from rnnzoo.testing.trial import ROWS, STEPS, DifferenceError, Subject, draw, flatten, same


def state_is_a_named_tuple(subject: Subject) -> None:
    """The state is a NamedTuple of real tensors, batch first, one of them hidden, a vector a row."""
    check_initial_state(first_cell(subject), subject.cell)


def initial_state_follows_the_parameters(subject: Subject) -> None:
    """The initial state has as many rows as asked for, on the device and in the type of the parameters (or float32)."""
    cell = first_cell(subject)
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        for rows in (0, 1, ROWS):
            state = cell.to(dtype).initial_state(rows)
            for name, field in state._asdict().items():
                if len(field) != rows:
                    raise DifferenceError(f"{name} of {rows} rows, got {list(field.shape)}")
                if field.dtype not in (dtype, torch.promote_types(dtype, torch.float32)):
                    raise DifferenceError(f"{name} in {dtype}, got {field.dtype}")
    for name, field in cell.to("meta").initial_state(ROWS)._asdict().items():
        if field.device.type != "meta":
            raise DifferenceError(f"{name} on the device of the parameters, got {field.device}")


def step_keeps_the_form(subject: Subject) -> None:
    """A step returns the output [B, O], and a state of the same type, shapes and number types as the one it got."""
    cell = first_cell(subject).double()
    projected = cell.project(draw(torch.Generator().manual_seed(3), ROWS, subject.input_size))
    state = cell.initial_state(ROWS)
    found = cell.step(projected, state)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor)):
        got = ", ".join(type(part).__name__ for part in found) if isinstance(found, tuple) else type(found).__name__
        raise DifferenceError(f"(output, state), got ({got})")
    output, after = found
    if output.shape != (ROWS, cell.output_size):
        raise DifferenceError(f"an output of shape {[ROWS, cell.output_size]}, got {list(output.shape)}")
    if type(after) is not type(state):
        raise DifferenceError(f"a {type(state).__name__}, got a {type(after).__name__}")
    for name, field in state._asdict().items():
        got = getattr(after, name)
        if got.shape != field.shape or got.dtype != field.dtype:
            raise DifferenceError(f"{name} {list(field.shape)} {field.dtype}, got {list(got.shape)} {got.dtype}")


def step_changes_nothing_in_place(subject: Subject) -> None:
    """A step leaves projected input, state, parameters and buffers as they are: new values are new tensors."""
    cell, projected, state = one_step(subject)
    held = {"the projected input": projected, **{f"the state's {name}": field for name, field in fields(state)}}
    held |= dict(cell.state_dict())
    copies = {name: value.clone() for name, value in held.items()}
    with torch.no_grad():
        cell.step(projected, state)
    for name, value in held.items():
        same(name, value, copies[name], (0, 0))


def projection_is_local_in_time(subject: Subject) -> None:
    """The projection of all steps is that of each: `project` looks at no other step and no other row."""
    cell, _, _ = one_step(subject)
    inputs = draw(torch.Generator().manual_seed(3), ROWS, STEPS, subject.input_size)
    whole = cell.project(inputs)
    for step in range(STEPS):
        same(f"projection of step {step}", cell.project(inputs[:, step]), whole[:, step])
    for row in range(ROWS):
        same(f"projection of row {row}", cell.project(inputs[row]), whole[row])


def all_that_counts_is_in_the_state_dict(subject: Subject) -> None:
    """A deep copy, and a new cell with the same state_dict, compute the same: nothing else is kept or drawn."""
    cell, projected, state = one_step(subject)
    fresh = subject.layers(seed=9).cells[0]
    fresh.load_state_dict(cell.state_dict())
    expected, _ = cell.step(projected, state)
    for name, other in (("the output of a copy", copy.deepcopy(cell)), ("the output of a loaded cell", fresh)):
        same(name, other.step(projected, state)[0], expected)  # type: ignore[operator]


def parameters_are_used(subject: Subject) -> None:
    """Every parameter gets a gradient: one that has none is not trained."""
    trial = subject.trial()
    for name, gradient in trial.result.gradients.items():
        if name in dict(trial.layer.named_parameters()) and not gradient.any():
            raise DifferenceError(f"a gradient of {name}, got zeros")


def no_branch_on_data(subject: Subject) -> None:
    """A step of a staged or linear cell is the same program for all numbers, so that it can be compiled."""
    cell, projected, state = one_step(subject)
    if not isinstance(cell, StagedCell | LinearCell):
        return

    def program(projected: Tensor, *values: Tensor) -> list[Tensor]:
        left = iter(values)
        output, after = cell.step(projected, map_state(lambda _: next(left), state))
        return [output, *flatten(after)]

    with torch.no_grad():
        make_fx(program)(projected, *flatten(state))


def first_cell(subject: Subject) -> Cell:
    """Return a cell as it begins."""
    cell: Cell = subject.layers(dtype=torch.float32).cells[0]  # type: ignore[assignment]
    return cell


def one_step(subject: Subject) -> tuple[Cell, Tensor, State]:
    """Return a cell in float64, one projected input [B, P] and a state."""
    trial = subject.trial()
    cell: Cell = trial.layer.cells[0]  # type: ignore[assignment]
    with torch.no_grad():
        projected = cell.project(trial.inputs[:, 0])
    return cell, projected.clone(), map_state(lambda field: field.detach().clone(), trial.state[0])


def fields(state: State) -> list[tuple[str, Tensor]]:
    """List the fields of a state with their names."""
    return list(state._asdict().items())


CELL_LAWS = (
    state_is_a_named_tuple,
    initial_state_follows_the_parameters,
    step_keeps_the_form,
    projection_is_local_in_time,
    step_changes_nothing_in_place,
    all_that_counts_is_in_the_state_dict,
    parameters_are_used,
    no_branch_on_data,
)
