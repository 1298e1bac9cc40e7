"""What a staged cell is made of, found out by running one step of it on random numbers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import StagedCell
from rnnzoo.state import State, flatten, map_state, unflatten

PLAIN = (int, float, str, bool, type(None))


@dataclass(frozen=True)
class Form:
    """How one step of a cell hangs together.

    The state is a flat list of its fields here, in the order of `flatten`.

    Args:
        operands: for each product, the place of the state field that it multiplies, or None if it is computed.
        output: the place of the state field that is also the output, or None.
        constant: for each field, whether a step hands it on as it is (a dropout mask).
        additive: whether the one product is added to the projected input and enters in no other way.
        parameters: names of the parameters that `operand` and `combine` use.
        template: a state of no rows, for `unflatten`.
    """

    operands: tuple[int | None, ...]
    output: int | None
    constant: tuple[bool, ...]
    additive: bool
    parameters: tuple[str, ...]
    template: State


def signature(cell: nn.Module) -> tuple[Any, ...]:
    """Return what tells two cells apart whose steps are different programs; equal ones may share compiled code.

    Constants of a cell belong into buffers: of a plain tensor the shape alone is looked at, for it may be a parameter
    that was dropped out.
    """
    plain = tuple((name, value) for name, value in vars(cell).items() if isinstance(value, PLAIN) or callable(value))
    tensors = [*cell._parameters.items(), *((name, value) for name, value in vars(cell).items() if is_tensor(value))]
    shapes = tuple((name, tuple(value.shape)) for name, value in sorted(tensors) if value is not None)
    buffers = tuple((name, id(value)) for name, value in cell._buffers.items())  # compiled code holds the very tensor
    inner = tuple(signature(child) for child in cell._modules.values() if child is not None)
    return (type(cell), plain, shapes, buffers, inner)


def is_tensor(value: object) -> bool:
    """Return whether an attribute is a tensor: the dropped weight of a view is no parameter."""
    return isinstance(value, Tensor)


def with_parameters(cell: Any, values: dict[str, Tensor]) -> Any:
    """Return a view of `cell` in which the parameters of the given (dotted) names are other tensors."""
    if not values:
        return cell
    view = copy.copy(cell)
    own = {name: value for name, value in values.items() if "." not in name}
    view._parameters = {name: value for name, value in cell._parameters.items() if name not in own}
    view._modules = dict(cell._modules)
    for name, value in own.items():
        object.__setattr__(view, name, value)
    for child in {name.partition(".")[0] for name in values if name not in own}:
        start = f"{child}."
        inner = {name[len(start) :]: value for name, value in values.items() if name.startswith(start)}
        view._modules[child] = with_parameters(cell._modules[child], inner)
    return view


def run_step(cell: StagedCell, projected: Tensor, state: State) -> tuple[list[Tensor], list[Tensor], Tensor, State]:
    """Do one step; return operands, products, output and state."""
    operands: list[Tensor] = []
    products: list[Tensor] = []
    for index, weight in enumerate(cell.product_weights()):
        operands.append(cell.operand(index, projected, tuple(products), state))
        products.append(nn.functional.linear(operands[-1], weight))
    output, after = cell.combine(projected, tuple(products), state)
    return operands, products, output, after


def examine(cell: StagedCell, projected_size: int, state: State) -> Form:
    """Find the form of a cell from one step on random numbers.

    Args:
        cell: the cell.
        projected_size: P.
        state: a state of the cell, of which only shapes and types count.
    """
    first = flatten(state)[0]
    dtype = torch.promote_types(first.dtype, next(cell.parameters()).dtype)  # a state out of autocast is narrower
    generator = torch.Generator().manual_seed(0)  # its own: nobody's stream of random numbers moves

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(first.device, dtype) + 0.1

    with unobserved(), torch.autocast(first.device.type, enabled=False):
        fields = [draw(2, *field.shape[1:]).requires_grad_() for field in flatten(state)]
        state = unflatten(state, fields)
        projected = draw(2, projected_size)
        operands, products, output, after = run_step(cell, projected, state)
        after_fields = flatten(after)
        places = tuple(place_of(operand, fields) for operand in operands)
        constant = tuple(new is old for new, old in zip(after_fields, fields, strict=True))
        names = [name for name, _ in cell.named_parameters()]
        values = [value.detach().requires_grad_() for value in cell.parameters()]  # frozen ones too
        cut = detached_step(with_parameters(cell, dict(zip(names, values, strict=True))), projected, state, products)
        found = torch.autograd.grad(cut, values, allow_unused=True) if cut.requires_grad else [None] * len(values)
    parameters = tuple(name for name, gradient in zip(names, found, strict=True) if gradient is not None)
    return Form(
        operands=places,
        output=place_of(output, after_fields),
        constant=constant,
        additive=is_additive(cell, places, projected, products, state),
        parameters=parameters,
        template=map_state(lambda field: field.detach()[:0], state),
    )


@contextmanager
def unobserved() -> Iterator[None]:
    """Differentiate by the way: whoever counts the tensors that are saved around here does not see it.

    Checkpointing does, and finds other ones when it runs the same again, for a cell is examined once.
    """
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda value: value, lambda value: value):
        yield


def detached_step(cell: StagedCell, projected: Tensor, state: State, products: Sequence[Tensor]) -> Tensor:
    """Return the sum of all that a step computes besides its products, whose weights are not to be found."""
    cut = tuple(product.detach() for product in products)
    values = [cell.operand(index, projected, cut[:index], state) for index in range(len(cut))]
    output, after = cell.combine(projected, cut, state)
    return torch.stack([value.double().sum() for value in (output, *flatten(after), *values)]).sum()


def place_of(value: Tensor, fields: Sequence[Tensor]) -> int | None:
    """Return which of `fields` is the very tensor `value`."""
    return next((place for place, field in enumerate(fields) if field is value), None)


@torch.no_grad()
def is_additive(
    cell: StagedCell, places: tuple[int | None, ...], projected: Tensor, products: Sequence[Tensor], state: State
) -> bool:
    """Return whether combine(x, p, s) is combine(x + p, 0, s)."""
    if len(products) != 1 or places[0] is None or products[0].shape != projected.shape:
        return False
    product = products[0]
    apart = cell.combine(projected, (product,), state)
    summed = cell.combine(projected + product, (torch.zeros_like(product),), state)
    pairs = zip(flatten(apart), flatten(summed), strict=True)
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in pairs)
