"""Sequences of different lengths in one right-padded batch."""

from __future__ import annotations

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
    """Return `values` [B, T, N] with zeros at and past each row's length."""
    if lengths is None:
        return values
    return torch.where(length_mask(lengths, values.shape[1]).unsqueeze(-1), values, 0.0)


def reverse_padded(inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each row of `inputs` [B, T, ...] within its own length; the padding stays where it is.

    >>> reverse_padded(torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2]))
    tensor([[3, 2, 1],
            [5, 4, 0]])
    """
    if lengths is None:
        return inputs.flip(1)
    steps = torch.arange(inputs.shape[1], device=inputs.device)  # [T]
    mirrored = lengths.unsqueeze(1) - 1 - steps  # [B, T]
    index = torch.where(mirrored >= 0, mirrored, steps)  # [B, T]
    index = index.reshape(*index.shape, *[1] * (inputs.dim() - 2)).expand_as(inputs)  # [B, T, ...]
    return inputs.gather(1, index)


def last_valid(outputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the last valid step of each row of `outputs` [B, T, O] as [B, O]; zeros for a row of length 0."""
    if outputs.shape[1] == 0:
        return outputs.new_zeros(outputs.shape[0], *outputs.shape[2:])
    if lengths is None:
        return outputs[:, -1]
    rows = torch.arange(outputs.shape[0], device=outputs.device)
    last = outputs[rows, (lengths - 1).clamp(min=0)]  # [B, O]
    return torch.where((lengths > 0).unsqueeze(1), last, torch.zeros_like(last))
