"""Accumulation dtypes and differentiation helpers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type that a long sum is kept in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def widen(values: Tensor) -> Tensor:
    """Return values in the type that a long sum is kept in."""
    return values.to(wide(values.dtype))


def leaf(value: Tensor) -> Tensor:
    """Return a tensor with the same numbers at which a graph begins."""
    return value.detach().requires_grad_()


def differentiate(results: Sequence[Tensor], leaves: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients at all `leaves`, zeros where nothing depends on them."""
    pairs = [(value, grad) for value, grad in zip(results, grads, strict=True) if value.requires_grad]
    values, weights = [value for value, _ in pairs], [grad.to(value.dtype) for value, grad in pairs]
    found = torch.autograd.grad(values, leaves, weights, allow_unused=True)
    return [torch.zeros_like(at) if value is None else value for at, value in zip(leaves, found, strict=True)]
