"""The steps of the `fused` backend, forward and back: what is multiplied when, and where the numbers are put.

Axes: T steps, S steps of a chunk, B rows, I input, P projected input or product, K what a product multiplies, O output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends.compiled import Kernel
from rnnzoo.backends.form import Form
from rnnzoo.backends.kernels import Kernels, bind
from rnnzoo.backends.product import Product, Projection, WeightGrad
from rnnzoo.backends.program import Call, Multiply, Place, Series, first, run
from rnnzoo.cells.base import StagedCell, wide

CHUNK = 2**21  # numbers of projected input in one chunk of steps on a CPU


class Arguments(NamedTuple):
    """The tensors of one run, by their role."""

    source: Tensor  # [T, B, I] inputs of an affine projection, or projected inputs [T, B, P]
    mask: Sequence[Tensor]  # [T, B] steps that are no padding; empty if all are
    affine: Sequence[Tensor]  # W, b; empty if the source is projected
    weights: Sequence[Tensor]
    parameters: Sequence[Tensor]
    state: Sequence[Tensor]


class Job:
    """What a run hands to its backward pass besides tensors.

    Args:
        cell: the cell, for its code.
        form: what its step is made of.
        mark: its `signature`.
        masked: whether there are rows that end before the last step.
        full: steps at which no row is padding.
        dtype: the type of products under autocast, or None.
        affine: whether the projection is part of the run.
    """

    def __init__(
        self, cell: StagedCell, form: Form, mark: Any, *,
        masked: bool, full: int, dtype: torch.dtype | None, affine: bool,
    ) -> None:  # fmt: skip
        self.form = form
        self.mark = (mark, affine, dtype)
        self.masked = masked
        self.full = full
        self.dtype = dtype
        self.affine = affine
        self.output_size = cell.output_size
        self.differentiable = torch.is_grad_enabled()  # inside the function it is always off
        self.kernels = {masked: Kernels(cell, form, biased=affine, masked=masked) for masked in (False, True)}
        self.moving = self.kernels[False].moving
        self.computed = [index for index, place in enumerate(form.operands) if place is None]
        self.bound: dict[Any, Kernel] = {}

    def name(self, tensors: Sequence[Tensor]) -> Arguments:
        """Sort the arguments of the function by their role."""
        return self.name_next(iter(tensors))

    def name_next(self, left: Iterator[Tensor]) -> Arguments:
        """Take the arguments of the function, and sort them by their role."""
        form = self.form
        counts = (self.masked, 2 * self.affine, len(form.operands), len(form.parameters), len(form.constant))
        return Arguments(next(left), *([next(left) for _ in range(count)] for count in counts))

    def parts(self, chunk: range) -> list[tuple[range, bool]]:
        """Return a chunk in parts, and whether there are rows in them that do not move on."""
        middle = min(max(self.full, chunk.start), chunk.stop) if self.masked else chunk.stop
        parts = (range(chunk.start, middle), False), (range(middle, chunk.stop), True)
        return [part for part in parts if len(part[0])]

    def call(self, name: str, *places: Place, masked: bool = False, index: int | None = None) -> Call:
        """Return the call of a kernel, compiled where that is worth it; bound anew in each pass, for its shapes."""
        key = (name, masked, index)
        kernel = self.bound.get(key)
        if kernel is None:
            kernel = getattr(self.kernels[masked], name)
            if index is not None:
                kernel = partial(kernel, index)
            kernel = self.bound[key] = bind(kernel, (self.mark, *key), [first(place) for place in places])
        return Call(kernel, places)

    def projected_size(self, given: Arguments) -> int:
        """Return P."""
        return len(given.affine[0]) if self.affine else given.source.shape[-1]

    def chunks(self, given: Arguments) -> list[range]:
        """Return the steps in parts whose projected input stays in a cache."""
        steps, rows, _ = given.source.shape
        size = steps if given.source.is_cuda else max(1, CHUNK // (rows * self.projected_size(given)))
        return [range(start, min(start + size, steps)) for start in range(0, steps, size)]

    def projection(self, given: Arguments) -> Projection | None:
        """Return what projects the source, or None if it is projected."""
        return Projection(*given.affine, dtype=self.dtype) if self.affine else None

    def projected(self, given: Arguments, steps: range, projection: Projection | None) -> Tensor:
        """Return the projected inputs of some steps [S, B, P], without their bias; an additive cell may add to them."""
        part = given.source[steps.start : steps.stop]
        if projection is not None:
            return projection.forward(part.flatten(0, 1)).unflatten(0, part.shape[:2])
        return part.clone() if self.form.additive else part


def walk(job: Job, keep: bool, *tensors: Tensor) -> list[Tensor]:
    """Go forward through the steps.

    Args:
        job: the job.
        keep: whether to keep what the way back needs.
        tensors: those of `Arguments`.

    Returns:
        Outputs [T, B, O], unless a field of the state is the output; moving fields [T + 1, B, ...]; computed operands
        [T, B, K]; if `keep`, by chunk the projected inputs [S, B, P], to which an additive cell has added its products,
        and the products of other cells.
    """
    given = job.name(tensors)
    form, state, bias = job.form, given.state, given.affine[1:]
    steps, rows, _ = given.source.shape
    layouts = [Product(weight, times=steps, dtype=job.dtype) for weight in given.weights]
    projection = job.projection(given)
    histories = [history(state[place], steps) for place in job.moving]  # [T + 1, B, ...] each
    operands = [state[0].new_empty(steps, rows, given.weights[index].shape[1]) for index in job.computed]
    separate = [] if form.output is not None else [state[0].new_empty(steps, rows, job.output_size)]
    kept: list[list[Tensor]] = [[] for _ in (given.source, *layouts)]
    for chunk in job.chunks(given):
        # What is kept lies in rooms of one chunk, for memory of all steps would be asked of the system, and its pages
        # made, in each run.
        block = job.projected(given, chunk, projection)
        size = len(chunk) if keep else 1
        sums = [] if form.additive else [each.weight.new_empty(size, rows, len(each.weight)) for each in layouts]
        if keep:
            for rooms, room in zip(kept, (block, *sums), strict=False):
                rooms.append(room)
        for part, masked in job.parts(chunk):
            local = part.start - chunk.start
            at = Series(block, local)
            fields = fields_at(job, given, histories, part.start)
            products = [Series(each, local * keep, int(keep)) for each in sums]
            places = operand_places(job, operands, fields, part.start)
            calls: list[Call | Multiply] = []
            for index, layout in enumerate(layouts):
                if form.operands[index] is None:
                    before = (at, *bias, *products[:index], *fields, *given.parameters)
                    calls.append(job.call("operand", *before, places[index], index=index))
                out = at if form.additive else products[index]
                calls.append(Multiply(layout, places[index], out, add=form.additive))
            valid = [Series(mask, part.start) for mask in given.mask if masked]
            calls.append(job.call(
                "forward", at, *bias, *products, *fields, *given.parameters, *valid,
                *(Series(each, part.start) for each in separate),
                *(Series(each, part.start + 1) for each in histories),
                masked=masked,
            ))  # fmt: skip
            run(calls, len(part))
    job.bound.clear()
    return [*separate, *histories, *operands, *chain(*kept[0 if job.affine or form.additive else 1 :])]


def walk_back(job: Job, wanted: bool, *tensors: Tensor) -> list[Tensor]:
    """Go back through the steps.

    Args:
        job: the job.
        wanted: whether the gradient of the source is.
        tensors: gradients of the last moving fields and of the outputs, those of `Arguments`, what `walk` returned
            besides separate outputs.

    Returns:
        Gradients of the source, if wanted, of affine, weights and parameters, and of the moving fields of the state.
    """
    form, moving = job.form, job.moving
    left = iter(tensors)
    g_final = [next(left) for _ in moving]
    g_outputs = next(left)
    given = job.name_next(left)
    histories = [next(left) for _ in moving]
    operands = [next(left) for _ in job.computed]
    steps, rows, _ = given.source.shape
    count = len(given.weights)
    chunks = job.chunks(given)
    kept = [[next(left) for _ in chunks] for _ in range(job.affine or form.additive)]
    kept = kept or [[given.source[chunk.start : chunk.stop] for chunk in chunks]]
    kept += [[next(left) for _ in chunks] for _ in range(0 if form.additive else count)]
    layouts = [Product(weight, times=steps, dtype=job.dtype) for weight in given.weights]
    projection = job.projection(given)
    width = given.source.dtype if job.dtype is None else job.dtype
    room = (len(chunks[0]), rows, job.projected_size(given))
    whole = None if job.affine else torch.empty_like(given.source)
    scratch = given.source.new_empty(room, dtype=width) if whole is None else None
    sums = [] if form.additive else [given.state[0].new_empty(room[0], rows, len(w)) for w in given.weights]
    g_source = torch.empty_like(given.source) if whole is None and wanted else whole
    # These are sums over the steps.
    g_weights = [WeightGrad(weight, dtype=job.dtype) for weight in given.weights]
    g_parameters = [torch.zeros_like(value, dtype=wide(value.dtype)) for value in given.parameters]
    # Steps take turns: one reads the gradients of the fields after it where the next one writes those before it.
    g_fields = [value.new_empty(2, *value.shape) for value in g_final]
    for buffer, value in zip(g_fields, g_final, strict=True):
        buffer[steps % 2] = value
    extra_places = job.kernels[False].extra_places
    slot = {index: rank for rank, index in enumerate(i for i in range(count) if form.operands[i] is not None)}
    g_extra = [  # of the type that products have: compiled kernels trust it
        torch.zeros_like(g_final[place], dtype=layouts[index].weight.dtype, memory_format=torch.contiguous_format)
        for place, index in zip(extra_places, slot, strict=True)
    ]
    g_operands = [given.state[0].new_empty(rows, given.weights[index].shape[1]) for index in job.computed]
    g_outputs = g_outputs.contiguous()
    for number, chunk in reversed(list(enumerate(chunks))):
        g_block = whole[chunk.start : chunk.stop] if whole is not None else scratch[: len(chunk)]  # type: ignore[index]
        for part, masked in reversed(job.parts(chunk)):
            last, local = part.stop - 1, part.stop - 1 - chunk.start
            at, *products = (Series(rooms[number], local, -1) for rooms in kept)
            fields = fields_at(job, given, histories, last, -1)
            valid = [Series(mask, last, -1) for mask in given.mask if masked]
            g_at, *g_products = (Series(buffer, local, -1) for buffer in (g_block, *sums))
            g_before = [Series(buffer, last, -1, turns=2) for buffer in g_fields]
            calls: list[Call | Multiply] = [job.call(
                "backward", at, *given.affine[1:], *products, *fields, *given.parameters, *valid,
                Series(g_outputs, last, -1), *(each._replace(start=last + 1) for each in g_before), *g_extra,
                g_at, *g_products, *g_before, *g_parameters, masked=masked,
            )]  # fmt: skip
            for index in reversed(range(count)):
                direct = index in slot
                g_operand = g_extra[slot[index]] if direct else g_operands[job.computed.index(index)]
                g_product = g_at if form.additive else g_products[index]
                calls.append(Multiply(layouts[index], g_product, g_operand, back=True))
                if not direct:
                    calls.append(job.call(
                        "operand_backward", at, *given.affine[1:], *products[:index], *fields, *given.parameters,
                        g_operand, g_at, *g_products[:index], *g_before, *g_parameters, index=index,
                    ))  # fmt: skip
            run(calls, len(part))
        for index, buffer in enumerate([g_block] if form.additive else sums):
            place = form.operands[index]
            multiplied = operands[job.computed.index(index)] if place is None else histories[moving.index(place)]
            g_weights[index].add(buffer[: len(chunk)], multiplied[chunk.start : chunk.stop])
        if projection is not None:
            g_part = g_source[chunk.start : chunk.stop].flatten(0, 1) if wanted and g_source is not None else None
            projection.backward(g_block.flatten(0, 1), given.source[chunk.start : chunk.stop].flatten(0, 1), g_part)
    g_first = [each[0] for each in g_fields]
    for place, extra in zip(extra_places, g_extra, strict=True):
        g_first[place] += extra
    job.bound.clear()
    g_affine = () if projection is None else projection.total()
    totals = chain((grad.total() for grad in g_weights), g_parameters)
    narrow = [each.to(value.dtype) for each, value in zip(totals, chain(given.weights, given.parameters), strict=True)]
    return [*([g_source] if wanted and g_source is not None else []), *g_affine, *narrow, *g_first]


def history(initial: Tensor, steps: int) -> Tensor:
    """Return room for a field of the state [T + 1, B, ...] that begins with `initial` [B, ...]."""
    room = initial.new_empty(steps + 1, *initial.shape)
    room[0] = initial
    return room


def fields_at(job: Job, given: Arguments, histories: Sequence[Tensor], start: int, by: int = 1) -> list[Place]:
    """Return the fields of the state before each step, from the step `start` on."""
    fields: list[Place] = list(given.state)
    for place, buffer in zip(job.moving, histories, strict=True):
        fields[place] = Series(buffer, start, by)
    return fields


def operand_places(job: Job, operands: Sequence[Tensor], fields: Sequence[Place], start: int) -> list[Place]:
    """Return for each product what it multiplies at each step: a field of the state, or room for what is computed."""
    rooms = iter(operands)
    return [Series(next(rooms), start) if place is None else fields[place] for place in job.form.operands]
