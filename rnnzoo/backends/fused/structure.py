"""What a staged cell is made of, found out by running one step of it on random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, Cell, StagedCell
from rnnzoo.cells.views import with_cloned_parameters, without_saved_tensor_hooks
from rnnzoo.cells.wrappers import RecurrentDropout
from rnnzoo.state import State, flatten, map_state, unflatten

SCALES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # of the sums on which a cell is tried
ROWS = 8  # tried at once


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


def affine_projection(cell: Cell) -> tuple[Tensor, Tensor] | None:
    """Return W [P, I] and b [P] of a cell that projects its input as x ↦ W x + b, or None if it does otherwise."""
    if isinstance(cell, RecurrentDropout):
        return affine_projection(cell.cell)
    if not isinstance(cell, AffineCell) or type(cell).project is not AffineCell.project:
        return None
    return cell.affine()


def run_step(cell: StagedCell, projected: Tensor, state: State) -> tuple[list[Tensor], list[Tensor], Tensor, State]:
    """Do one step; return operands, products, output and state."""
    operands: list[Tensor] = []
    products: list[Tensor] = []
    for index, weight in enumerate(cell.product_weights()):
        operands.append(cell.operand(index, projected, tuple(products), state))
        products.append(nn.functional.linear(operands[-1], weight))
    output, after = cell.combine(projected, tuple(products), state)
    return operands, products, output, after


def analyze_step(cell: StagedCell, projected_size: int, state: State) -> Form:
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
        return torch.rand(*shape, generator=generator, dtype=torch.float64, device="cpu").to(first.device, dtype) + 0.1

    with without_saved_tensor_hooks(), torch.autocast(first.device.type, enabled=False):
        fields = [draw(2, *field.shape[1:]).requires_grad_() for field in flatten(state)]
        state = unflatten(state, fields)
        projected = draw(2, projected_size)
        view, leaves = with_cloned_parameters(cell)
        operands, products, output, after = run_step(view, projected, state)
        after_fields = flatten(after)
        places = tuple(place_of(operand, fields) for operand in operands)
        constant = tuple(new is old for new, old in zip(after_fields, fields, strict=True))
        cut = detached_step(view, projected, state, products)
        used = torch.autograd.grad(cut, list(leaves.values()), allow_unused=True) if cut.requires_grad else []
        additive = is_additive(cell, places, projected_size, state)
    parameters = tuple(name for name, gradient in zip(leaves, used, strict=False) if gradient is not None)
    return Form(
        operands=places,
        output=place_of(output, after_fields),
        constant=constant,
        additive=additive,
        parameters=parameters,
        template=map_state(lambda field: field.detach()[:0], state),
    )


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
def is_additive(cell: StagedCell, places: tuple[int | None, ...], projected_size: int, state: State) -> bool:
    """Return whether combine(x, p, s) is combine(x + p, 0, s), as far as random numbers of several sizes show."""
    weights = cell.product_weights()
    if len(weights) != 1 or places[0] is None or len(weights[0]) != projected_size:
        return False
    first = flatten(state)[0]
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu").to(first.device, first.dtype)

    for scale in SCALES:
        tried = map_state(lambda field: draw(ROWS, *field.shape[1:]), state)
        projected, product = (scale * draw(ROWS, projected_size) for _ in range(2))
        apart = cell.combine(projected, (product,), tried)
        summed = cell.combine(projected + product, (torch.zeros_like(product),), tried)
        for one, other in zip(flatten(apart), flatten(summed), strict=True):
            if not torch.allclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True):
                return False
    return True
