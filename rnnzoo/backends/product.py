"""A product with one weight many times over, with the weight laid out once for all of them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Numbers of a weight from which oneDNN's blocked layout is faster than MKL's plain one (by measurement): MKL takes its
# fastest ways on Intel's own processors alone.
LARGE, LARGE_ON_AMD = 2**19, 2**17
FEW = 4  # products below which laying the weight out costs more than it saves
MANY_ROWS = 256  # rows from which a single product pays for it, where oneDNN is the faster one


class Product:
    """a ↦ a Wᵀ and its adjoint g ↦ g W, many times with the same W.

    Args:
        weight: W [P, K].
        rows: rows of a and g, B; fewer are as good, more are not.
        times: how often each is called.
        dtype: the type to multiply in (of autocast); None keeps that of the weight.
    """

    def __init__(self, weight: Tensor, *, rows: int, times: int, dtype: torch.dtype | None) -> None:
        self.weight = weight.detach() if dtype is None else weight.detach().to(dtype)
        self.rows = rows
        cpu = weight.device.type == "cpu"
        enough = times >= FEW or (rows >= MANY_ROWS and on_amd())
        large = weight.numel() >= (LARGE_ON_AMD if on_amd() else LARGE)
        self.blocked = cpu and enough and rows > 1 and large and can_block(self.weight.dtype)
        self.plain = cpu and times >= FEW and not self.blocked
        self._forward: Any = None
        self._backward: Any = None

    def room(self, steps: int) -> Tensor:
        """Return room for the products of some steps: [S, B, P]."""
        return self.weight.new_empty(steps, self.rows, len(self.weight))

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


@cache
def on_amd() -> bool:
    """Return whether the processor is one of AMD's."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return False
