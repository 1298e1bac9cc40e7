"""Any staged cell over time: one product and one row-wise kernel a step, and a backward pass scheduled by hand.

What does not need the state is one product for many steps (`Cell.project`), states and products are kept, and the
backward pass goes once through the steps; the gradient of each weight is one product over many of them. Steps are
taken in chunks, so that what lies between the products stays in the cache. See `schedule` for the steps,
`row_kernels` for what happens between the products, and `program` for what runs both.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from operator import and_, gt
from typing import Any

import torch
from torch import Tensor

from rnnzoo.backends import reference
from rnnzoo.backends.base import backend
from rnnzoo.backends.fused.packing import Packing, pack_rows
from rnnzoo.backends.fused.schedule import RunPlan, schedule_backward, schedule_forward
from rnnzoo.backends.fused.structure import Form, affine_projection, analyze_step
from rnnzoo.cells.base import Cell, StagedCell
from rnnzoo.cells.views import signature
from rnnzoo.kernels.compile.cache import can_compile
from rnnzoo.kernels.cuda_graphs import replay
from rnnzoo.kernels.products.linear import faster_products
from rnnzoo.kernels.products.panels import offers_products
from rnnzoo.lengths import is_tracing, zero_padding
from rnnzoo.numerics import widen
from rnnzoo.state import State, flatten, unflatten

_forms: dict[Any, Form] = {}


def refusal(cell: Cell) -> str:
    """Return why this backend cannot run a cell, or an empty string if it can."""
    return "" if isinstance(cell, StagedCell) else f"{type(cell).__name__} is no StagedCell"


@backend
def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run a cell over right-padded sequences.

    Raises:
        RuntimeError: in a second backward pass through the first (``create_graph``), whose gradient there is not.
    """
    assert isinstance(cell, StagedCell)
    if is_tracing():  # a program that is traced wants plain operations
        return reference.run(cell, inputs, lengths, state)
    packing, mask = pack_rows(inputs, lengths)
    if not packing.counts:  # no row has a step
        return reference.run(cell, inputs, lengths, state)
    outputs, final = run_packed(cell, packing, packing.pack(inputs), mask, packing.sort(state))
    outputs = zero_padding(packing.unpack(outputs), None if mask is None else lengths)  # [B, T, O]
    return outputs, packing.unsort(final)


def run_packed(
    cell: StagedCell, packing: Packing, source: Tensor, mask: Tensor | None, state: State
) -> tuple[Tensor, State]:
    """Run packed rows: inputs [N, I], a mask [N] of those that are no padding, state → outputs [N, O], final state."""
    device = source.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    # Programs in C++ round what they multiply as they go: all else is float32 then, and their kernels are those of it.
    wide = device == "cpu" and dtype is not None and can_compile(source.device) and offers_products(dtype)
    low_precision = None if wide else dtype
    affine = affine_projection(cell)
    if affine is None:
        with faster_products():
            source = cell.project(source)  # [N, P]
        source = widen(source) if wide else source
    cache_key = signature(cell)
    if cache_key not in _forms:
        _forms[cache_key] = analyze_step(cell, source.shape[-1] if affine is None else len(affine[0]), state)
    form = _forms[cache_key]
    wanted = tuple(field.requires_grad for field in flatten(state))
    if any(map(and_, form.constant, wanted)):  # the gradient of what is handed on comes from each step
        form = replace(form, constant=tuple(map(gt, form.constant, wanted)))
        cache_key = (cache_key, form.constant)
    own = dict(cell.named_parameters())
    parameters = [own[name] for name in form.parameters]
    cell_type = next(iter(own.values())).dtype
    fields = [field.to(torch.promote_types(field.dtype, cell_type)).contiguous() for field in flatten(state)]
    masks = () if mask is None else (mask,)
    plan = RunPlan(
        cell,
        form,
        cache_key,
        packing,
        masked=mask is not None,
        dtype=dtype,
        low_precision=low_precision,
        affine=affine is not None,
    )
    with torch.autocast(device, enabled=False):
        outputs, *final = FusedFunction.apply(
            plan, source.contiguous(), *masks, *(affine or ()), *cell.product_weights(), *parameters, *fields
        )
    return outputs, unflatten(form.template, final)


class FusedFunction(torch.autograd.Function):
    """All steps of one run: (plan, tensors of `Arguments`) → outputs [N, O] and the final state."""

    @staticmethod
    def forward(ctx: Any, plan: RunPlan, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run forward; keep states, products and computed operands."""
        keep = plan.differentiable and any(ctx.needs_input_grad)
        left = iter(
            replay(
                partial(schedule_forward, plan, keep), (plan.cache_key, *plan.packing.shape, "forward", keep), tensors
            )
        )
        output = plan.form.output
        separate = [next(left) for _ in range(output is None)]
        histories = [next(left) for _ in plan.moving]
        if keep:
            ctx.save_for_backward(*tensors, *histories, *left)
            ctx.plan = plan
        final = list(plan.name(tensors).state)
        for place, buffer in zip(plan.moving, histories, strict=True):
            final[place] = plan.packing.last(buffer)
        outputs = separate[0] if output is None else histories[plan.moving.index(output)][plan.packing.rows :]
        return (outputs, *final)

    @staticmethod
    def backward(ctx: Any, g_outputs: Tensor, *g_final: Tensor) -> tuple[Tensor | None, ...]:
        """Go back through the steps.

        Raises:
            RuntimeError: with `create_graph`, for a second derivative would silently lack this part.
        """
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the fused backend cannot be differentiated twice: choose backend 'reference', or 'native' where torch "
                "has a kernel for the cell, or do not use create_graph=True"
            )
        plan: RunPlan = ctx.plan
        wanted: bool = ctx.needs_input_grad[1]
        tensors = (*(g_final[place] for place in plan.moving), g_outputs, *ctx.saved_tensors)
        with torch.autocast(g_outputs.device.type, enabled=False):  # as forward, wherever this is called
            left = iter(
                replay(
                    partial(schedule_backward, plan, wanted),
                    (plan.cache_key, *plan.packing.shape, "backward", wanted),
                    tensors,
                )
            )
        g_source = next(left) if wanted else None
        g_others = [next(left) for _ in range(2 * plan.affine + len(plan.form.operands) + len(plan.form.parameters))]
        g_state: list[Tensor | None] = [None] * len(plan.form.constant)
        for place in plan.moving:
            g_state[place] = next(left)
        return (None, g_source, *[None] * plan.masked, *g_others, *g_state)
