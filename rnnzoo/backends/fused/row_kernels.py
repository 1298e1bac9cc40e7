"""The row-wise parts of a step and their derivatives, as functions that write into given tensors.

They are plain torch functions, made from the cell's own `operand` and `combine`: nobody writes a gradient. Those that
are used often are compiled (`rnnzoo.kernels.compile.cache`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rnnzoo.backends.fused.structure import Form
from rnnzoo.cells.views import with_parameters
from rnnzoo.numerics import differentiate, leaf
from rnnzoo.state import flatten, unflatten


class Kernels:
    """The functions of one cell, each of a flat list of tensors of one step.

    Names of the arguments: x projected input [B, P] and its bias [P]; p products [B, P_k]; s fields of the state; w
    parameters; valid [B] rows whose state moves on; g_… gradients. Those that are written come last.

    Args:
        cell: the cell; only its code and plain attributes are used, parameters are arguments.
        form: what `analyze_step` found.
        biased: whether there is a bias.
        masked: whether there is ``valid``.
    """

    def __init__(self, cell: Any, form: Form, *, biased: bool, masked: bool) -> None:
        self.cell = cell
        self.form = form
        self.biased = biased
        self.masked = masked
        self.moving = [place for place, still in enumerate(form.constant) if not still]
        self.extra_places = [self.moving.index(place) for place in form.operands if place is not None]

    def forward(self, *tensors: Tensor) -> None:
        """Do the row-wise part of a step: (x, bias, p, s, w, valid) → output, moving fields.

        There is no output where a field is it. An additive cell has no p: it is in x, to which it was added.
        """
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left)
        valid = next(left) if self.masked else None
        results = self.step(parameters, self.shifted(projected, bias, fields), products, fields, valid)
        for target, value in zip(left, results, strict=True):
            target.copy_(value)

    def backward(self, *tensors: Tensor) -> None:
        """Go back through the row-wise part of a step.

        (x, bias, p, s, w, valid, g_output, g_s', g_extra) → g_x, g_p, g_s; added to: g_w

        `g_extra` are the gradients that the products of the next step sent to the fields they multiplied, in the
        order of `Form.operands`. An additive cell has neither p nor g_p, for g_x is the same.
        """
        form, left = self.form, iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left)
        valid = next(left) if self.masked else None
        g_output = next(left)
        grads = take(left, len(self.moving))
        for place in self.extra_places:
            grads[place] = grads[place] + next(left).to(grads[place].dtype)
        if form.output is None:
            grads = [g_output, *grads]
        else:
            place = self.moving.index(form.output)
            grads[place] = grads[place] + g_output
        with torch.enable_grad():
            inner = [leaf(field) if place in self.moving else field for place, field in enumerate(fields)]
            weights = [leaf(weight) for weight in parameters]
            sources = [leaf(projected), *(leaf(product) for product in products)]
            results = self.step(weights, self.shifted(sources[0], bias, inner), sources[1:], inner, valid)
            leaves = [*sources, *(inner[place] for place in self.moving), *weights]
            found = differentiate(results, leaves, grads)
        added = len(found) - len(weights)
        for place, (target, value) in enumerate(zip(left, found, strict=True)):
            if place < added:
                target.copy_(value)
            else:
                target.add_(value)

    def operand(self, index: int, *tensors: Tensor) -> None:
        """Write what the product `index` multiplies: (x, bias, the p before it, s, w) → operand."""
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left, index)
        next(left).copy_(self.multiplied(index, parameters, self.shifted(projected, bias, fields), products, fields))

    def operand_backward(self, index: int, *tensors: Tensor) -> None:
        """Go back through `operand`: (x, bias, the p before it, s, w, g_operand), added to: g_x, g_p, g_s, g_w."""
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left, index)
        g_operand = next(left)
        with torch.enable_grad():
            inner = [leaf(field) if place in self.moving else field for place, field in enumerate(fields)]
            weights = [leaf(weight) for weight in parameters]
            sources = [leaf(projected), *(leaf(product) for product in products)]
            result = self.multiplied(index, weights, self.shifted(sources[0], bias, inner), sources[1:], inner)
            leaves = [*sources, *(inner[place] for place in self.moving), *weights]
            found = torch.autograd.grad(result, leaves, g_operand.to(result.dtype), allow_unused=True)
        for target, value in zip(left, found, strict=True):
            if value is not None:
                target.add_(value)

    def take_apart(self, left: Iterator[Tensor], index: int | None = None) -> Iterator[list[Tensor]]:
        """Take the products (before the product `index`), the fields and the parameters."""
        products = len(self.form.operands) if index is None else index
        counts = (0 if self.form.additive else products, len(self.form.constant), len(self.form.parameters))
        return (take(left, count) for count in counts)

    def shifted(self, projected: Tensor, bias: Tensor | None, fields: Sequence[Tensor]) -> Tensor:
        """Return the projected input with its bias, in the type of the state."""
        projected = projected.to(fields[self.moving[0]].dtype)
        return projected if bias is None else projected + bias

    def step(
        self,
        parameters: Sequence[Tensor],
        projected: Tensor,
        products: Sequence[Tensor],
        fields: Sequence[Tensor],
        valid: Tensor | None,
    ) -> list[Tensor]:
        """Return the output, unless a field is it, and the moving fields after the step."""
        dtype = fields[self.moving[0]].dtype
        added = [torch.zeros_like(projected)] if self.form.additive else products
        wide = tuple(product.to(dtype) for product in added)
        state = unflatten(self.form.template, fields)
        output, after = self.view(parameters).combine(projected.to(dtype), wide, state)
        results = [] if self.form.output is not None else [output]
        new = flatten(after)
        for place in self.moving:
            value = new[place]
            if valid is not None:
                value = torch.where(valid.reshape(-1, *[1] * (value.dim() - 1)), value, fields[place])
            results.append(value)
        return results

    def multiplied(
        self,
        index: int,
        parameters: Sequence[Tensor],
        projected: Tensor,
        products: Sequence[Tensor],
        fields: Sequence[Tensor],
    ) -> Tensor:
        """Return what the product `index` multiplies, from the products before it."""
        before = tuple(product.to(projected.dtype) for product in products)
        state = unflatten(self.form.template, fields)
        found: Tensor = self.view(parameters).operand(index, projected, before, state)
        return found

    def view(self, parameters: Sequence[Tensor]) -> Any:
        """Return the cell with other tensors for its parameters."""
        return with_parameters(self.cell, dict(zip(self.form.parameters, parameters, strict=True)))


def take(left: Iterator[Tensor], count: int) -> list[Tensor]:
    """Take the next `count` tensors."""
    return list(islice(left, count))
