"""The steps of the `fused` backend, forward and back: what is multiplied when, and where the numbers are put.

Rows are packed (`rnnzoo.backends.fused.packing`).

Axes: T steps, B rows of the batch, N packed rows of all steps, C of a chunk of steps, I input, P projected input or
product, K what a product multiplies, O output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends.fused.packing import Packing
from rnnzoo.backends.fused.program import Call, Multiply, RowView, TensorOrView, run
from rnnzoo.backends.fused.row_kernels import Kernels
from rnnzoo.backends.fused.structure import Form
from rnnzoo.cells.base import StagedCell
from rnnzoo.kernels import torch_private
from rnnzoo.kernels.compile.cache import bind
from rnnzoo.kernels.compile.cpp_kernel import Kernel
from rnnzoo.kernels.products.linear import Product, Projection, WeightGrad
from rnnzoo.numerics import wide

CHUNK = 2**21  # numbers of projected input in one chunk of steps on a CPU


class Arguments(NamedTuple):
    """The tensors of one run, by their role."""

    source: Tensor  # [N, I] inputs of an affine projection, or projected inputs [N, P]
    mask: Sequence[Tensor]  # [N] rows that are no padding; empty if all are
    affine: Sequence[Tensor]  # W, b; empty if the source is projected
    weights: Sequence[Tensor]
    parameters: Sequence[Tensor]
    state: Sequence[Tensor]


class RunPlan:
    """How a cell is run, forward and backward: all but the tensors.

    Args:
        cell: the cell, for its code.
        form: what its step is made of.
        cache_key: its `signature`.
        packing: where rows lie.
        masked: whether there is padding among them.
        dtype: the type of products under autocast, or None.
        low_precision: the dtype in which projected inputs and products are kept; None is that of the source and the
            weights.
        affine: whether the projection is part of the run.
    """

    def __init__(
        self, cell: StagedCell, form: Form, cache_key: Any, packing: Packing, *,
        masked: bool, dtype: torch.dtype | None, low_precision: torch.dtype | None, affine: bool,
    ) -> None:  # fmt: skip
        self.form = form
        self.packing = packing
        self.cache_key = (cache_key, affine, masked, low_precision)
        self.masked = masked
        self.dtype = dtype
        self.low_precision = low_precision
        self.affine = affine
        self.output_size = cell.output_size
        self.differentiable = torch.is_grad_enabled()  # inside the function it is always off
        self.kernels = Kernels(cell, form, biased=affine, masked=masked)
        self.moving = self.kernels.moving
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

    def call(self, name: str, *places: TensorOrView, index: int | None = None) -> Call:
        """Return the call of a kernel, compiled where that is worth it; bound anew in each pass, for its shapes."""
        key = (name, index)
        kernel = self.bound.get(key)
        if kernel is None:
            kernel = getattr(self.kernels, name)
            if index is not None:
                kernel = partial(kernel, index)
            rows = [isinstance(place, RowView) for place in places]
            tensors = [place.buffer[: self.packing.rows] if isinstance(place, RowView) else place for place in places]
            kernel = self.bound[key] = bind(kernel, (self.cache_key, *key), tensors, rows)
        return Call(kernel, places)

    def projected_size(self, given: Arguments) -> int:
        """Return P."""
        return len(given.affine[0]) if self.affine else given.source.shape[-1]

    def chunks(self, given: Arguments) -> list[range]:
        """Return the steps in parts whose projected input stays in a cache."""
        return self.packing.chunks(None if given.source.is_cuda else CHUNK // self.projected_size(given))

    def projection(self, given: Arguments) -> Projection | None:
        """Return what projects the source, or None if it is projected."""
        return Projection(*given.affine, dtype=self.dtype) if self.affine else None

    def projected(self, part: Tensor, projection: Projection | None) -> Tensor:
        """Return projected inputs [C, P] of a part of the source, without bias; an additive cell may add to them."""
        if projection is not None:
            return projection.forward(part).to(self.low_precision or projection.shared[0].dtype)
        return part.clone() if self.form.additive else part


class Chunk:
    """Where the rows of some steps lie.

    Args:
        packing: where those of all steps do.
        steps: the steps.
        back: whether the last step comes first.
    """

    def __init__(self, packing: Packing, steps: range, *, back: bool) -> None:
        self.steps = steps
        self.back = back
        self.batch = packing.rows
        self.first, last = packing.starts[steps.start], packing.starts[steps.stop]
        self.rows = slice(self.first, last)
        self.counts = self.table(packing.counts)
        self.at = self.table(packing.starts)  # in all packed rows
        self.local = self.at - self.first  # in those of this chunk
        self.before = self.table(packing.befores)  # in the history of a field of the state: before the step
        self.after = self.table(packing.afters)
        # Where steps find their own part of two that they use in turns, and that of the step after them.
        self.turns = [self.table([(step + ahead) % 2 * self.batch for step in range(steps.stop)]) for ahead in (0, 1)]

    def table(self, numbers: Sequence[int]) -> Tensor:
        """Return the numbers of these steps."""
        own = numbers[self.steps.start : self.steps.stop]
        return torch.tensor(own[::-1] if self.back else own, device="cpu")


def chunk_of(packing: Packing, steps: range, *, back: bool) -> Chunk:
    """Return where the rows of some steps lie, made once where all of them have every step."""
    if packing.order is None and not torch_private.has_dispatch_modes():  # which could make other tensors of them
        return even_chunk(packing.rows, steps.start, steps.stop, back)
    return Chunk(packing, steps, back=back)


@lru_cache(maxsize=256)
def even_chunk(rows: int, start: int, stop: int, back: bool) -> Chunk:
    """Return where the rows of some steps lie if each step has so many."""
    return Chunk(Packing(rows, stop, None), range(start, stop), back=back)


def schedule_forward(plan: RunPlan, keep: bool, *tensors: Tensor) -> list[Tensor]:
    """Go forward through the steps.

    Args:
        plan: what is run.
        keep: whether to keep what the way back needs.
        tensors: those of `Arguments`.

    Returns:
        Outputs [N, O], unless a field of the state is the output; moving fields [B + N, ...]; computed operands [N, K];
        if `keep`, by chunk the projected inputs [C, P], to which an additive cell has added its products, and the
        products of other cells.
    """
    given = plan.name(tensors)
    form, state, bias = plan.form, given.state, given.affine[1:]
    total, rows = len(given.source), plan.packing.rows
    layouts = [Product(weight, times=len(plan.packing.counts), dtype=plan.dtype) for weight in given.weights]
    projection = plan.projection(given)
    histories = [history(state[place], total) for place in plan.moving]
    operands = [state[0].new_empty(total, given.weights[index].shape[1]) for index in plan.computed]
    separate = [] if form.output is not None else [state[0].new_empty(total, plan.output_size)]
    kept: list[list[Tensor]] = [[] for _ in (given.source, *layouts)]
    for steps in plan.chunks(given):
        chunk = chunk_of(plan.packing, steps, back=False)
        # One tensor for each chunk: a single one for all steps is memory that the system has to map in each run.
        block = plan.projected(given.source[chunk.rows], projection)
        size = len(block) if keep else rows
        weights = () if form.additive else given.weights
        sums = [weight.new_empty(size, len(weight), dtype=plan.low_precision) for weight in weights]
        if keep:
            for parts, part in zip(kept, (block, *sums), strict=False):
                parts.append(part)
        at = RowView(block, chunk.local)
        fields = fields_at(plan, given, histories, chunk)
        products = [RowView(each, chunk.local if keep else None) for each in sums]
        places = operand_places(plan, operands, fields, chunk)
        calls: list[Call | Multiply] = []
        for index, layout in enumerate(layouts):
            if form.operands[index] is None:
                before: tuple[TensorOrView, ...] = (at, *bias, *products[:index], *fields, *given.parameters)
                calls.append(plan.call("operand", *before, places[index], index=index))
            out = at if form.additive else products[index]
            calls.append(Multiply(layout, places[index], out, add=form.additive))
        calls.append(plan.call(
            "forward", at, *bias, *products, *fields, *given.parameters,
            *(RowView(mask, chunk.at) for mask in given.mask),
            *(RowView(each, chunk.at) for each in separate),
            *(RowView(each, chunk.after) for each in histories),
        ))  # fmt: skip
        run(calls, chunk.counts)
    plan.bound.clear()
    return [*separate, *histories, *operands, *chain(*kept[0 if plan.affine or form.additive else 1 :])]


def schedule_backward(plan: RunPlan, wanted: bool, *tensors: Tensor) -> list[Tensor]:
    """Go back through the steps.

    Args:
        plan: what is run.
        wanted: whether the gradient of the source is.
        tensors: gradients of the last moving fields and of the outputs, those of `Arguments`, what
            `schedule_forward` returned besides separate outputs.

    Returns:
        Gradients of the source, if wanted, of affine, weights and parameters, and of the moving fields of the state.
    """
    form, moving = plan.form, plan.moving
    left = iter(tensors)
    g_final = [next(left) for _ in moving]
    g_outputs = next(left)
    given = plan.name_next(left)
    histories = [next(left) for _ in moving]
    operands = [next(left) for _ in plan.computed]
    rows, count = plan.packing.rows, len(given.weights)
    chunks = [chunk_of(plan.packing, steps, back=True) for steps in plan.chunks(given)]
    kept = [[next(left) for _ in chunks] for _ in range(plan.affine or form.additive)]
    kept = kept or [[given.source[chunk.rows] for chunk in chunks]]
    kept += [[next(left) for _ in chunks] for _ in range(0 if form.additive else count)]
    layouts = [Product(weight, times=len(plan.packing.counts), dtype=plan.dtype) for weight in given.weights]
    projection = plan.projection(given)
    width = kept[0][0].dtype  # inputs may be low_precisioner
    most = max(len(block) for block in kept[0])
    sums = [] if form.additive else [given.state[0].new_empty(most, len(weight)) for weight in given.weights]
    g_source = torch.empty_like(given.source) if wanted or not plan.affine else None
    if plan.affine or g_source is None:
        scratch = given.source.new_empty(most, plan.projected_size(given), dtype=width)
        g_blocks = [scratch[: len(block)] for block in kept[0]]
    else:
        g_blocks = [g_source[chunk.rows] for chunk in chunks]
    # These are sums over the steps.
    g_weights = [WeightGrad(weight, dtype=plan.dtype) for weight in given.weights]
    g_parameters = [torch.zeros_like(value, dtype=wide(value.dtype)) for value in given.parameters]
    # Steps take turns: one reads the gradients of the fields after it where the next one writes those before it. Rows
    # that have not begun, for they end earlier, find the gradient of their last state in both.
    g_fields = [torch.cat([value, value]).contiguous() for value in g_final]  # [2 B, ...]
    extra_places = plan.kernels.extra_places
    slot = {index: rank for rank, index in enumerate(i for i in range(count) if form.operands[i] is not None)}
    g_extra = [  # of the type that products have: compiled kernels trust it
        torch.zeros_like(
            g_final[place],
            dtype=plan.low_precision or given.weights[index].dtype,
            memory_format=torch.contiguous_format,
        )
        for place, index in zip(extra_places, slot, strict=True)
    ]
    g_operands = [given.state[0].new_empty(rows, given.weights[index].shape[1]) for index in plan.computed]
    g_outputs = g_outputs.contiguous()
    for number, chunk in reversed(list(enumerate(chunks))):
        g_block = g_blocks[number]
        at, *products = (RowView(parts[number], chunk.local) for parts in kept)
        fields = fields_at(plan, given, histories, chunk)
        g_at, *g_products = (RowView(buffer, chunk.local) for buffer in (g_block, *sums))
        g_before, g_after = ([RowView(buffer, turns) for buffer in g_fields] for turns in chunk.turns)
        calls: list[Call | Multiply] = [plan.call(
            "backward", at, *given.affine[1:], *products, *fields, *given.parameters,
            *(RowView(mask, chunk.at) for mask in given.mask), RowView(g_outputs, chunk.at), *g_after,
            *map(RowView, g_extra), g_at, *g_products, *g_before, *g_parameters,
        )]  # fmt: skip
        for index in reversed(range(count)):
            direct = index in slot
            g_operand = RowView(g_extra[slot[index]] if direct else g_operands[plan.computed.index(index)])
            g_product = g_at if form.additive else g_products[index]
            calls.append(Multiply(layouts[index], g_product, g_operand, back=True))
            if not direct:
                calls.append(plan.call(
                    "operand_backward", at, *given.affine[1:], *products[:index], *fields, *given.parameters,
                    g_operand, g_at, *g_products[:index], *g_before, *g_parameters, index=index,
                ))  # fmt: skip
        run(calls, chunk.counts)
        g_projected = g_block
        if projection is not None:
            g_part = g_source[chunk.rows] if wanted and g_source is not None else None
            g_projected = projection.backward(g_block, given.source[chunk.rows], g_part)
        for index, buffer in enumerate([g_projected] if form.additive else sums):
            place = form.operands[index]
            if place is None:
                multiplied = operands[plan.computed.index(index)][chunk.rows]
            else:
                multiplied = plan.packing.before(histories[moving.index(place)], chunk.steps)
            g_weights[index].add(buffer[: len(multiplied)], multiplied)
    g_first = [each[:rows] for each in g_fields]
    for place, extra in zip(extra_places, g_extra, strict=True):
        g_first[place] += extra
    plan.bound.clear()
    g_affine = () if projection is None else projection.total()
    totals = chain((grad.total() for grad in g_weights), g_parameters)
    low_precision = [
        each.to(value.dtype) for each, value in zip(totals, chain(given.weights, given.parameters), strict=True)
    ]
    return [*([g_source] if wanted and g_source is not None else []), *g_affine, *low_precision, *g_first]


def history(initial: Tensor, total: int) -> Tensor:
    """Return an empty tensor for a field of the state [B + N, ...] that begins with `initial` [B, ...]."""
    field = initial.new_empty(len(initial) + total, *initial.shape[1:])
    field[: len(initial)] = initial
    return field


def fields_at(plan: RunPlan, given: Arguments, histories: Sequence[Tensor], chunk: Chunk) -> list[RowView]:
    """Return the fields of the state before each step."""
    fields = [RowView(field) for field in given.state]
    for place, buffer in zip(plan.moving, histories, strict=True):
        fields[place] = RowView(buffer, chunk.before)
    return fields


def operand_places(plan: RunPlan, operands: Sequence[Tensor], fields: Sequence[RowView], chunk: Chunk) -> list[RowView]:
    """Return for each product what it multiplies at each step: a field of the state, or a buffer of operands."""
    buffers = iter(operands)
    return [RowView(next(buffers), chunk.at) if place is None else fields[place] for place in plan.form.operands]
