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

from rnnzoo.backends.form import Form
from rnnzoo.backends.kernels import Kernel, Kernels, bind
from rnnzoo.backends.product import Product, WeightGrad
from rnnzoo.cells.base import StagedCell, wide

CHUNK = 2**20  # numbers of projected input in one chunk of steps on a CPU


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

    def valid(self, given: Arguments, step: int) -> tuple[Tensor, ...]:
        """Return which rows [B] move on at a step; nothing where all do."""
        return () if step < self.full else tuple(mask[step] for mask in given.mask)

    def call(self, name: str, *tensors: Tensor, masked: bool = False, index: int | None = None) -> None:
        """Call a kernel, compiled where that is worth it; bound anew in each pass, for its shapes."""
        key = (name, masked, index)
        kernel = self.bound.get(key)
        if kernel is None:
            kernel = getattr(self.kernels[masked], name)
            if index is not None:
                kernel = partial(kernel, index)
            kernel = self.bound[key] = bind(kernel, (self.mark, *key), tensors)
        kernel(*tensors)

    def projected_size(self, given: Arguments) -> int:
        """Return P."""
        return len(given.affine[0]) if self.affine else given.source.shape[-1]

    def projection(self, given: Arguments, chunks: Sequence[range]) -> Product | None:
        """Return the product that projects the steps of a chunk; None if the source is projected."""
        rows = len(chunks[0]) * given.source.shape[1]
        return Product(given.affine[0], rows=rows, times=len(chunks), dtype=self.dtype) if self.affine else None

    def chunks(self, given: Arguments) -> list[range]:
        """Return the steps in parts whose projected input stays in a cache."""
        steps, rows, _ = given.source.shape
        size = steps if given.source.is_cuda else max(1, CHUNK // (rows * self.projected_size(given)))
        return [range(start, min(start + size, steps)) for start in range(0, steps, size)]

    def projected(self, given: Arguments, steps: range, layout: Product | None) -> Tensor:
        """Return the projected inputs of some steps [S, B, P], without their bias."""
        part = given.source[steps.start : steps.stop]
        return part if layout is None else layout.forward(part.flatten(0, 1)).unflatten(0, part.shape[:2])


def walk(job: Job, keep: bool, *tensors: Tensor) -> list[Tensor]:
    """Go forward through the steps.

    Args:
        job: the job.
        keep: whether to keep what the way back needs.
        tensors: those of `Arguments`.

    Returns:
        Outputs [T, B, O], unless a field of the state is the output; moving fields [T + 1, B, ...]; computed operands
        [T, B, K]; if `keep`, what `read_kept` reads.
    """
    given = job.name(tensors)
    form, state = job.form, given.state
    steps, rows, _ = given.source.shape
    layouts = [Product(weight, rows=rows, times=steps, dtype=job.dtype) for weight in given.weights]
    chunks = job.chunks(given)
    project = job.projection(given, chunks)
    bias = given.affine[1:]
    histories = [history(state[place], steps) for place in job.moving]  # [T + 1, B, ...] each
    operands = [state[0].new_empty(steps, rows, given.weights[index].shape[1]) for index in job.computed]
    separate = [] if form.output is not None else [state[0].new_empty(steps, rows, job.output_size)]
    before = fields_by_step(job, state, histories, steps)
    moved = [buffer.unbind() for buffer in histories]
    multiplied = operand_lists(job, operands, moved)
    put = [buffer.unbind() for buffer in separate]
    blocks: list[Tensor] = []
    kept: list[Tensor] = []
    for chunk in chunks:
        # Products are made in memory that is still in the cache; what is kept of them is written elsewhere, into rooms
        # of one chunk, for memory of all steps would be asked of the system, and its pages made, in each run.
        rooms = [each.room(len(chunk)) for each in layouts] if keep else []
        kept += rooms
        keeping = [room.unbind() for room in rooms]
        block = job.projected(given, chunk, project)
        if keep and job.affine and not form.additive:
            blocks.append(block)
        for step, at in zip(chunk, block.unbind(), strict=True):
            fields = [field[step] for field in before]
            products: list[Tensor] = []
            for index, layout in enumerate(layouts):
                operand = multiplied[index][step]
                if form.operands[index] is None:
                    job.call("operand", at, *bias, *products, *fields, *given.parameters, operand, index=index)
                products.append(layout.forward(operand))
            valid = job.valid(given, step)
            job.call(
                "forward", at, *bias, *products, *fields, *given.parameters, *valid,
                *(room[step - chunk.start] for room in keeping), *(buffer[step] for buffer in put),
                *(buffer[step + 1] for buffer in moved),
                masked=len(valid) > 0,
            )  # fmt: skip
    job.bound.clear()
    return [*separate, *histories, *operands, *blocks, *kept]


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
    layouts = [Product(weight, rows=rows, times=steps, dtype=job.dtype) for weight in given.weights]
    project = job.projection(given, chunks)
    blocks, kept = read_kept(job, given, chunks, left)
    before = fields_by_step(job, given.state, histories, steps)

    width = given.source.dtype if job.dtype is None else job.dtype
    room = (len(chunks[0]), rows, job.projected_size(given))
    whole = None if job.affine else torch.empty_like(given.source)
    scratch = given.source.new_empty(room, dtype=width) if whole is None else None
    sums = [] if form.additive else [given.state[0].new_empty(room[0], rows, len(w)) for w in given.weights]
    g_source = torch.empty_like(given.source) if whole is None and wanted else whole
    shared = (given.affine, given.weights, given.parameters)  # their gradients are sums over the steps
    g_affine = [WeightGrad(weight, dtype=job.dtype) for weight in given.affine[:1]]
    g_weights = [WeightGrad(weight, dtype=job.dtype) for weight in given.weights]
    g_bias, g_parameters = (
        [torch.zeros_like(value, dtype=wide(value.dtype)) for value in values]
        for values in (given.affine[1:], given.parameters)
    )
    g_fields = [value.clone(memory_format=torch.contiguous_format) for value in g_final]
    g_before = [torch.empty_like(value) for value in g_fields]
    places = job.kernels[False].extra_places
    direct = [index for index in range(count) if form.operands[index] is not None]
    slot = {index: rank for rank, index in enumerate(direct)}
    g_extra = [  # of the type that products have: compiled kernels trust it
        torch.zeros_like(g_fields[place], dtype=layouts[index].weight.dtype)
        for place, index in zip(places, direct, strict=True)
    ]
    g_out = g_outputs.contiguous().unbind()
    for chunk, block in zip(reversed(chunks), reversed(blocks), strict=True):
        g_block = whole[chunk.start : chunk.stop] if whole is not None else scratch[: len(chunk)]  # type: ignore[index]
        g_ats = g_block.unbind()
        g_sums = [buffer.unbind() for buffer in sums]
        ats = None if block is None else block.unbind()
        for step in reversed(chunk):
            local = step - chunk.start
            at = () if ats is None else (ats[local], *given.affine[1:])
            products = [buffer[step] for buffer in kept]
            fields = [field[step] for field in before]
            valid = job.valid(given, step)
            g_at = g_ats[local]
            g_products = [g_at] if form.additive else [buffer[local] for buffer in g_sums]
            job.call(
                "backward", *at, *products, *fields, *given.parameters, *valid, g_out[step], *g_fields, *g_extra,
                g_at, *(() if form.additive else g_products), *g_before, *g_parameters, masked=len(valid) > 0,
            )  # fmt: skip
            for index in reversed(range(count)):
                g_operand = layouts[index].backward(g_products[index])
                if index in slot:
                    g_extra[slot[index]] = g_operand
                else:
                    job.call(
                        "operand_backward", *at, *products[:index], *fields, *given.parameters, g_operand,
                        g_at, *g_products[:index], *g_before, *g_parameters, index=index,
                    )  # fmt: skip
            g_fields, g_before = g_before, g_fields
        for index, buffer in enumerate([g_block] if form.additive else sums):
            place = form.operands[index]
            multiplied = operands[job.computed.index(index)] if place is None else histories[moving.index(place)]
            g_weights[index].add(buffer[: len(chunk)], multiplied[chunk.start : chunk.stop])
        if project is not None:
            g_affine[0].add(g_block, given.source[chunk.start : chunk.stop])
            g_bias[0] += g_block.flatten(0, 1).sum(0, dtype=g_bias[0].dtype)
            if wanted and g_source is not None:
                sent = project.backward(g_block.flatten(0, 1))
                g_source[chunk.start : chunk.stop] = sent.unflatten(0, (-1, rows))
    for place, extra in zip(places, g_extra, strict=True):
        g_fields[place] += extra
    job.bound.clear()
    totals = [grad.total() for grad in g_affine], g_bias, [grad.total() for grad in g_weights], g_parameters
    narrow = [each.to(value.dtype) for each, value in zip(chain(*totals), chain(*shared), strict=True)]
    return [*([g_source] if wanted and g_source is not None else []), *narrow, *g_fields]


def history(first: Tensor, steps: int) -> Tensor:
    """Return room for a field of the state [T + 1, B, ...] that begins with `first` [B, ...]."""
    room = first.new_empty(steps + 1, *first.shape)
    room[0] = first
    return room


def fields_by_step(
    job: Job, state: Sequence[Tensor], histories: Sequence[Tensor], steps: int
) -> list[Sequence[Tensor]]:
    """Return for each field of the state its values before each step."""
    fields: list[Sequence[Tensor]] = [[field] * steps for field in state]
    for place, buffer in zip(job.moving, histories, strict=True):
        fields[place] = buffer.unbind()
    return fields


def operand_lists(job: Job, operands: Sequence[Tensor], moved: Sequence[Sequence[Tensor]]) -> list[Sequence[Tensor]]:
    """Return for each product what it multiplies at each step: a field of the state, or room for what is computed."""
    rooms = iter(operands)
    return [next(rooms).unbind() if place is None else moved[job.moving.index(place)] for place in job.form.operands]


def read_kept(
    job: Job, given: Arguments, chunks: Sequence[range], kept: Iterator[Tensor]
) -> tuple[list[Tensor | None], list[list[Tensor]]]:
    """Return the projected inputs of each chunk (None for an additive cell) and what is kept by product and step."""
    blocks: list[Tensor | None] = []
    for chunk in chunks:
        if job.form.additive:
            blocks.append(None)
        else:
            blocks.append(next(kept) if job.affine else given.source[chunk.start : chunk.stop])
    products: list[list[Tensor]] = [[] for _ in given.weights]
    for _ in chunks:
        for steps in products:
            steps += next(kept).unbind()
    return blocks, products
