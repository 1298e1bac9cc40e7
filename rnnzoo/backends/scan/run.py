"""Linear cells over time: all that does not need the hidden state is done for all steps at once, then time is scanned.

    a, b = coefficients(x)    h[t] = a[t] ⊙ h[t-1] + b[t]    y = readout(x, h)

One function of autograd keeps x and h alone. What is between is found again in the backward pass: a, and the
derivatives of `coefficients` and `readout`, which autograd takes from the cell's own functions, compiled where
`kernels.compile.cache` finds that worth it. On CPU all of it is done for a part of the steps at a time, which stays
in the cache. `rnnzoo.backends.scan.recurrence` has the scan itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends.base import backend
from rnnzoo.backends.scan.recurrence import has_kernel, in_blocks, recur, recur_back
from rnnzoo.cells.base import Cell, LinearCell
from rnnzoo.cells.views import signature, with_cloned_parameters, with_parameters, without_saved_tensor_hooks
from rnnzoo.kernels.compile.cache import Kernel, bind
from rnnzoo.kernels.products.linear import faster_products
from rnnzoo.lengths import length_mask
from rnnzoo.numerics import differentiate, leaf, wide
from rnnzoo.state import State

PART_NUMBERS = 2**19  # numbers of one coefficient in a part: 2 MiB in float32

_used: dict[Any, tuple[str, ...]] = {}


def refusal(cell: Cell) -> str:
    """Return why this backend cannot run a cell, or an empty string if it can."""
    return "" if isinstance(cell, LinearCell) else f"{type(cell).__name__} is no LinearCell"


@backend
def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run a cell over right-padded sequences.

    The hidden state is kept in float32 or wider, whatever the type of the inputs.

    Raises:
        RuntimeError: in a second backward pass through the first (``create_graph``), whose gradient there is not.
    """
    assert isinstance(cell, LinearCell)
    with faster_products():
        projected, state = cell.project_sequence(inputs, lengths, state)  # [B, T, P]
    mask = None if lengths is None else length_mask(lengths, inputs.shape[1]).reshape(-1, 1)
    if torch.compiler.is_compiling():
        outputs, hidden = traced(Pieces(cell, (), mask), projected, cell.unpack(state))
        return outputs, cell.pack(hidden, state)
    names = used_parameters(cell, projected)
    named = dict(cell.named_parameters())
    parameters = (named[name] for name in names)
    outputs, hidden = ScanFunction.apply(Pieces(cell, names, mask), projected, cell.unpack(state), *parameters)
    return outputs, cell.pack(hidden, state)


class Pieces:
    """What a cell does to rows: the functions that are cut into parts, each of a flat list of tensors.

    Names of the arguments: x projected input [R, P]; h [R, N]; valid [R, 1], if there are lengths; w parameters; y
    outputs [R, O]; a and b [R, N]; g_… gradients. Those that are written come last.

    Args:
        cell: the cell; parameters are arguments.
        names: of the parameters that `coefficients` and `readout` use.
        mask: [B·T, 1], true where there is a step; None if all rows are full.
    """

    def __init__(self, cell: LinearCell, names: Sequence[str], mask: Tensor | None) -> None:
        self.cell = cell
        self.names = tuple(names)
        self.cache_key = signature(cell)
        self.mask = mask
        device = next(cell.parameters()).device.type
        self.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        self.bound: dict[Any, Kernel] = {}

    def coefficients(self, *tensors: Tensor) -> None:
        """Do (x, valid, w) → a, b."""
        (x,), valid, parameters, targets = self.split(tensors, 1)
        write(targets, self.gates(self.view(parameters), x, valid))

    def readout(self, *tensors: Tensor) -> None:
        """Do (x, h, valid, w) → y."""
        (x, h), valid, parameters, targets = self.split(tensors, 2)
        write(targets, [self.output(self.view(parameters), x, h, valid)])

    def hidden_grad(self, *tensors: Tensor) -> None:
        """Do (x, h, g_y, valid, w) → g_h."""
        (x, h, g_y), valid, parameters, targets = self.split(tensors, 3)
        with torch.enable_grad():
            source = leaf(h)
            found = differentiate([self.output(self.view(parameters), x, source, valid)], [source], [g_y])
        write(targets, found)

    def grads(self, *tensors: Tensor) -> None:
        """Do (x, h, g_y, g_a, g_b, valid, w) → g_x; add to g_w."""
        (x, h, g_y, g_a, g_b), valid, parameters, targets = self.split(tensors, 5)
        with torch.enable_grad():
            leaves = [leaf(x), *(leaf(parameter) for parameter in parameters)]
            cell = self.view(leaves[1:])
            results = [*self.gates(cell, leaves[0], valid), self.output(cell, leaves[0], h, valid)]
            found = differentiate(results, leaves, [g_a, g_b, g_y])
        write(targets[:1], found[:1])
        for target, value in zip(targets[1:], found[1:], strict=True):
            target.add_(value)

    def gates(self, cell: LinearCell, x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return a and b, 1 and 0 where there is no step, so that the state is held."""
        a, b = cell.coefficients(x)
        return (a, b) if valid is None else (torch.where(valid, a, 1.0), torch.where(valid, b, 0.0))

    def output(self, cell: LinearCell, x: Tensor, h: Tensor, valid: Tensor | None) -> Tensor:
        """Return y, 0 where there is no step."""
        y = cell.readout(x, h)
        return y if valid is None else torch.where(valid, y, 0.0)

    def view(self, parameters: Sequence[Tensor]) -> Any:
        """Return the cell with other tensors for its parameters."""
        return with_parameters(self.cell, dict(zip(self.names, parameters, strict=True)))

    def split(
        self, tensors: Sequence[Tensor], count: int
    ) -> tuple[Sequence[Tensor], Tensor | None, Sequence[Tensor], Sequence[Tensor]]:
        """Split arguments into the first `count`, valid, w, and those that are written."""
        masked = self.mask is not None
        first = count + masked
        last = first + len(self.names)
        return tensors[:count], tensors[count] if masked else None, tensors[first:last], tensors[last:]

    def call(self, name: str, rows: slice, *tensors: Tensor) -> None:
        """Run a piece on some rows: `tensors` are its arguments without ``valid``, whose rows are taken here."""
        piece = getattr(self, name)
        count = {"coefficients": 1, "readout": 2, "hidden_grad": 3, "grads": 5}[name]
        if self.mask is not None:
            tensors = (*tensors[:count], self.mask[rows], *tensors[count:])
        with self.casting():
            if any(each.is_complex() for each in tensors):  # the compiler does not know them
                piece(*tensors)
                return
            if name not in self.bound:
                cache_key = (self.cache_key, name, self.mask is None, self.autocast)
                first = count + (self.mask is not None)
                shared = {*range(first, first + len(self.names))}  # these have no rows
                if name == "grads":
                    shared |= {*range(len(tensors) - len(self.names), len(tensors))}
                self.bound[name] = bind(
                    piece, cache_key, tensors, [place not in shared for place in range(len(tensors))]
                )
            self.bound[name](*tensors)

    def casting(self) -> AbstractContextManager[None]:
        """Return autocast as it was in the forward pass."""
        device, dtype, enabled = self.autocast
        return torch.autocast(device, dtype=dtype, enabled=enabled)


class ScanFunction(torch.autograd.Function):
    """All steps of one run: (pieces, projected [B, T, P], h [B, N], parameters) → outputs [B, T, O], last h [B, N]."""

    @staticmethod
    def forward(
        ctx: Any, pieces: Pieces, projected: Tensor, initial: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scan; keep x and h."""
        batch_size, steps, _ = projected.shape
        x = projected.contiguous().flatten(0, 1)  # [B·T, P]
        initial = initial.to(wide(torch.promote_types(initial.dtype, projected.dtype))).contiguous()
        h = initial.new_empty(len(x), initial.shape[1])  # [B·T, N]
        first = initial[:1]
        sample = pieces.output(pieces.cell, x[:1], first, None)
        plain = sample is first  # the outputs are the hidden states
        y = h if plain and pieces.mask is None else sample.new_empty(len(x), sample.shape[-1])
        parts = cut(batch_size, steps, part_size(h))
        buffer = h.new_empty(max(map(len, parts)), h.shape[1])
        for part in parts:
            a, b = buffer[: len(part)], h[part.rows]
            pieces.call("coefficients", part.rows, x[part.rows], *parameters, a, b)
            recur(part.steps(a), part.steps(b), part.before(initial, h))  # b is h now
            if not plain:
                pieces.call("readout", part.rows, x[part.rows], b, *parameters, y[part.rows])
        if plain and pieces.mask is not None:
            y = torch.where(pieces.mask, h, 0.0)
        ctx.pieces, ctx.plain, ctx.parts, ctx.shape, ctx.dtype = pieces, plain, parts, y.shape, y.dtype
        ctx.save_for_backward(x, initial, h, *parameters)
        ctx.set_materialize_grads(False)
        pieces.bound.clear()
        return y.unflatten(0, (batch_size, steps)), h[steps - 1 :: steps].clone()

    @staticmethod
    def backward(ctx: Any, g_outputs: Tensor | None, g_final: Tensor | None) -> tuple[Tensor | None, ...]:
        """Scan back."""
        if torch.is_grad_enabled():
            raise RuntimeError("the backend 'scan' cannot be differentiated twice: use 'reference', or no create_graph")
        pieces: Pieces = ctx.pieces
        x, initial, h, *parameters = ctx.saved_tensors
        g_y = (
            x.new_zeros(ctx.shape, dtype=ctx.dtype) if g_outputs is None else g_outputs.reshape(ctx.shape).contiguous()
        )
        carried = torch.zeros_like(initial) if g_final is None else g_final.to(initial.dtype, copy=True).contiguous()
        g_x = torch.empty_like(x)
        totals = [torch.zeros_like(parameter, dtype=wide(parameter.dtype)) for parameter in parameters]
        buffers = [h.new_empty(max(map(len, ctx.parts)), h.shape[1]) for _ in range(4)]
        for part in reversed(ctx.parts):
            a, g_a, g_b, g_h = (buffer[: len(part)] for buffer in buffers)
            given, hidden, sent = x[part.rows], h[part.rows], g_y[part.rows]
            pieces.call("coefficients", part.rows, given, *parameters, a, g_b)  # b is not needed again
            if not ctx.plain:
                pieces.call("hidden_grad", part.rows, given, hidden, sent, *parameters, g_h)
            elif pieces.mask is None:
                g_h = sent
            else:
                g_h = torch.where(pieces.mask[part.rows], sent, 0.0)
            decay, after, arriving, *leaving = map(part.steps, (a, hidden, g_h, g_a, g_b))
            recur_back(decay, after, part.before(initial, h), arriving, carried[part.batch], *leaving)
            pieces.call("grads", part.rows, given, hidden, sent, g_a, g_b, *parameters, g_x[part.rows], *totals)
        pieces.bound.clear()
        narrow = (total.to(parameter.dtype) for total, parameter in zip(totals, parameters, strict=True))
        return None, g_x.unflatten(0, (len(initial), -1)), carried, *narrow


class Part(NamedTuple):
    """Some rows of a batch over some steps, which lie side by side in [B·T, ...]: whole rows, or a part of one.

    Args:
        batch: the rows of the batch, r of them.
        rows: where their s steps are in [B·T].
        first: whether they begin with the first step.
    """

    batch: slice
    rows: slice
    first: bool

    def __len__(self) -> int:
        return int(self.rows.stop - self.rows.start)

    def steps(self, values: Tensor) -> Tensor:
        """Return [r, s, N] of the values of this part [r·s, N]."""
        return values.unflatten(0, (self.batch.stop - self.batch.start, -1))

    def before(self, initial: Tensor, hidden: Tensor) -> Tensor:
        """Return the state before the first of these steps [r, N]."""
        return initial[self.batch] if self.first else hidden[self.rows.start - 1 : self.rows.start]


def part_size(hidden: Tensor) -> int:
    """Return how many rows of [B·T, N] stay in the cache; all of them where the scan cannot go in parts quickly."""
    return max(1, PART_NUMBERS // hidden.shape[1]) if has_kernel(hidden) else len(hidden)


def cut(batch_size: int, steps: int, size: int) -> list[Part]:
    """Cut [B·T, ...] into parts of `size` or fewer, earlier steps first: as many whole rows, or parts of a row."""
    together = size // steps  # rows of the batch
    if together:
        firsts = range(0, batch_size, together)
        ends = [min(first + together, batch_size) for first in firsts]
        return [
            Part(slice(first, end), slice(first * steps, end * steps), True)
            for first, end in zip(firsts, ends, strict=True)
        ]
    length = -(-steps // -(-steps // size))  # of parts of nearly one size
    return [
        Part(slice(row, row + 1), slice(row * steps + step, row * steps + min(step + length, steps)), step == 0)
        for row in range(batch_size)
        for step in range(0, steps, length)
    ]


def traced(pieces: Pieces, projected: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """Do as `ScanFunction` in plain operations, which `torch.export` and `torch.compile` can follow."""
    x, shape = projected.flatten(0, 1), projected.shape[:2]
    initial = initial.to(wide(torch.promote_types(initial.dtype, projected.dtype)))
    a, b = (each.to(initial.dtype) for each in pieces.gates(pieces.cell, x, pieces.mask))  # [B·T, N] each
    hidden = in_blocks(a.unflatten(0, shape), b.unflatten(0, shape), initial)  # [B, T, N]
    y = pieces.output(pieces.cell, x, hidden.flatten(0, 1), pieces.mask)
    return y.unflatten(0, shape), hidden[:, -1]


def write(targets: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors of their shapes."""
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def used_parameters(cell: LinearCell, projected: Tensor) -> tuple[str, ...]:
    """Return the names of the parameters that `coefficients` and `readout` use, found by trying."""
    cache_key = signature(cell)
    if cache_key not in _used:
        with without_saved_tensor_hooks(), torch.autocast(projected.device.type, enabled=False):
            view, leaves = with_cloned_parameters(cell)
            dtype = next(iter(leaves.values())).dtype
            x = torch.zeros(1, projected.shape[-1], device=projected.device, dtype=dtype, requires_grad=True)  # [1, P]
            a, b = view.coefficients(x)
            results = [a, b, view.readout(x, torch.zeros_like(b))]
            results = [each for each in results if each.requires_grad]
            found = torch.autograd.grad(
                results, list(leaves.values()), [torch.zeros_like(each) for each in results], allow_unused=True
            )
        _used[cache_key] = tuple(name for name, value in zip(leaves, found, strict=True) if value is not None)
    return _used[cache_key]
