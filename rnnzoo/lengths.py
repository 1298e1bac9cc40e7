"""Sequences of different lengths in one right-padded batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def length_mask(lengths: Tensor, max_length: int) -> Tensor:
    """Return a mask [B, T] that is true on the valid positions of sequences of `lengths` [B].

    >>> length_mask(torch.tensor([0, 2]), 3)
    tensor([[False, False, False],
            [ True,  True, False]])
    """
    return torch.arange(max_length, device=lengths.device) < lengths.unsqueeze(1)  # [B, T]


def zero_padding(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Return `values` [B, T, N] with zeros at and past each row's length, whatever stood there."""
    if lengths is None:
        return values
    mask = length_mask(lengths, values.shape[1])  # [B, T]
    if values.device.type != "cpu" or is_tracing():
        return torch.where(mask.unsqueeze(-1), values, 0.0)
    padding = (~mask).flatten().nonzero().squeeze(1)  # on a CPU a copy, then zeros: a fifth of the time of `where`
    return values.flatten(0, 1).index_fill(0, padding, 0.0).unflatten(0, mask.shape) if len(padding) else values


def is_tracing() -> bool:
    """Return whether a program is being made of what runs: it must not depend on the numbers of this run."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def reverse_padded(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each row of `inputs` [B, T, ...] within its own length; the padding stays where it is.

    >>> reverse_padded(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    tensor([[3, 2, 1],
            [5, 4, 0]])
    """
    if lengths is None:
        return inputs.flip(1)
    rows, size = inputs.shape[:2]
    steps = torch.arange(size, device=inputs.device)  # [T]
    mirrored = lengths.clamp(max=size).unsqueeze(1) - 1 - steps  # [B, T]; a length above T would reach into other rows
    index = torch.where(mirrored >= 0, mirrored, steps)  # [B, T]
    index = (index + size * torch.arange(rows, device=inputs.device).unsqueeze(1)).flatten()  # [B · T]
    return permute_rows(inputs.flatten(0, 1), index, index).unflatten(0, (rows, size))


def permute_rows(values: Tensor, order: Tensor, back: Tensor) -> Tensor:
    """Return the rows of `values` [N, ...] in another order, without the sums that the gradient of an index takes.

    Args:
        values: [N, ...].
        order: [N], each row once.
        back: the inverse of `order`.

    >>> order = torch.tensor([2, 0, 1])
    >>> permute_rows(torch.tensor([5, 6, 7]), order, order.argsort())
    tensor([7, 5, 6])
    """
    found: Tensor = Permutation.apply(values, order, back)
    return found


class Permutation(torch.autograd.Function):
    """Rows in another order; the gradient is put back by the inverse."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, order: Tensor, back: Tensor) -> Tensor:
        """Reorder."""
        return values.index_select(0, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        """Keep both orders."""
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Put the gradient back; this has a gradient in turn."""
        order, back = ctx.saved_tensors
        return permute_rows(grad, back, order), None, None


def take_rows(values: Tensor, index: Tensor) -> Tensor:
    """Return the rows [N, ...] of `values` [M, ...] at `index` [N], each at most once: no sums go into the gradient.

    >>> take_rows(torch.tensor([5, 6, 7]), torch.tensor([2, 0]))
    tensor([7, 5])
    """
    found: Tensor = Selection.apply(values, index)
    return found


def put_rows(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return `count` rows, with those of `values` [N, ...] at `index` [N] and zeros elsewhere.

    >>> put_rows(torch.tensor([7, 5]), torch.tensor([2, 0]), 3)
    tensor([5, 0, 7])
    """
    found: Tensor = Placement.apply(values, index, count)
    return found


class Selection(torch.autograd.Function):
    """`take_rows`; the gradient is put where the rows were."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        """Take."""
        ctx.save_for_backward(index)
        ctx.count = len(values)
        return values.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Put; this has a gradient in turn."""
        (index,) = ctx.saved_tensors
        return put_rows(grad, index, ctx.count), None


class Placement(torch.autograd.Function):
    """`put_rows`; the gradient is taken from where the rows are."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, count: int) -> Tensor:
        """Put."""
        ctx.save_for_backward(index)
        return values.new_zeros(count, *values.shape[1:]).index_copy_(0, index, values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Take; this has a gradient in turn."""
        (index,) = ctx.saved_tensors
        return take_rows(grad, index), None, None


def last_valid(outputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last valid step of each row of `outputs` [B, T, O] as [B, O]; zeros for a row of length 0."""
    if outputs.shape[1] == 0:
        return outputs.new_zeros(outputs.shape[0], *outputs.shape[2:])
    if lengths is None:
        return outputs[:, -1]
    rows = torch.arange(outputs.shape[0], device=outputs.device)
    last = outputs[rows, (lengths - 1).clamp(min=0)]  # [B, O]
    return torch.where((lengths > 0).unsqueeze(1), last, torch.zeros_like(last))
