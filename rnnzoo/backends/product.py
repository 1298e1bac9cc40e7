"""The small product of each step, with the weight laid out once for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LARGE = 2**19  # numbers of a weight from which oneDNN's blocked layout is faster than MKL's plain one (by measurement)
FEW = 4  # steps below which laying the weight out costs more than it saves


class Product:
    """a ↦ a Wᵀ and its adjoint g ↦ g W, many times with the same W.

    Args:
        weight: W [P, K].
        rows: rows of a and g, B.
        steps: how often each is called.
        dtype: the type to multiply in (of autocast); None keeps that of the weight.
    """

    def __init__(self, weight: Tensor, *, rows: int, steps: int, dtype: torch.dtype | None) -> None:
        self.weight = weight.detach() if dtype is None else weight.detach().to(dtype)
        self.rows = rows
        self.steps = steps
        cpu = weight.device.type == "cpu"
        self.blocked = cpu and steps >= FEW and rows > 1 and weight.numel() >= LARGE and can_block(self.weight.dtype)
        self.plain = cpu and steps >= FEW and not self.blocked
        self._forward: Any = None
        self._backward: Any = None

    def forward(self, operand: Tensor) -> Tensor:
        """Return a Wᵀ: [B, K] → [B, P]."""
        operand = operand.to(self.weight.dtype)
        if self.blocked:
            if self._forward is None:
                self._forward = torch.ops.mkldnn._reorder_linear_weight(self.weight, self.rows)
            found: Tensor = torch.ops.mkldnn._linear_pointwise(operand, self._forward, None, "none", [], "")
            return found
        if self._forward is None:
            self._forward = self.weight.t().contiguous() if self.plain else self.weight.t()
        return torch.mm(operand, self._forward)

    def backward(self, grad: Tensor) -> Tensor:
        """Return g W: [B, P] → [B, K]."""
        grad = grad.to(self.weight.dtype)
        if self.blocked:
            if self._backward is None:
                self._backward = torch.ops.mkldnn._reorder_linear_weight(self.weight.t(), self.rows)
            found: Tensor = torch.ops.mkldnn._linear_pointwise(grad, self._backward, None, "none", [], "")
            return found
        return torch.mm(grad, self.weight)


def can_block(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's linear layer with a blocked weight is there, for float32."""
    return (
        dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
