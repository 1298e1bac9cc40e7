"""Matrix products by the library that is the faster one on this processor.

torch multiplies float32 through MKL, which uses AVX-512 on Intel's own processors alone: on AMD's that have it, oneDNN
needs half the time for all but small products. A weight that many small products share is laid out once for all of
them (`rnnzoo.kernels.products.panels`).

Axes: N rows, K numbers of a row, P numbers of its product.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from rnnzoo.kernels import torch_private
from rnnzoo.kernels.processor import mkl_is_slow
from rnnzoo.kernels.products.panels import Panels, library, offers_products
from rnnzoo.lengths import is_tracing
from rnnzoo.numerics import wide

# All by measurement.
MIN_MULTIPLICATIONS_FOR_ONEDNN = (
    2**22
)  # N · K · P from which oneDNN is faster for operands as they are, where MKL is slow
PLAIN_TENSOR_TYPES = (Tensor, Parameter)  # and no other subclass, which may not know oneDNN's products
LEAST_ROWS, LEAST_COLUMNS = 16, 128  # of such a product: narrower ones MKL makes as fast, or faster
PART = 512  # rows of which oneDNN makes the gradient of a weight at once: more no longer stay in the cache
MIN_PRODUCTS_FOR_PANELS = 4  # products below which laying the weight out costs more than it saves


def multiply(left: Tensor, right: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """Return A Bᵀ + b of A [N, K], B [P, K] and b [P] → [N, P], without a gradient; in `out` if it is given."""
    if not prefers_onednn(left, right, bias):
        return torch.mm(left, right.t(), out=out) if bias is None else torch.addmm(bias, left, right.t(), out=out)
    bias = None if bias is None else bias.contiguous()  # its strides are not looked at
    found = onednn(dense(left), dense(right), bias)
    return found if out is None else out.copy_(found)


def onednn(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return A Bᵀ + b of A [N, K], B [P, K] (as it is, or laid out in blocks) and b [P], by oneDNN."""
    linear_pointwise = torch_private.require("torch.ops.mkldnn._linear_pointwise")
    found: Tensor = linear_pointwise(left, right, bias, "none", [], "")
    return found


def prefers_onednn(left: Tensor, right: Tensor, bias: Tensor | None = None) -> bool:
    """Return whether A Bᵀ + b of A [..., K], B [P, K] and b [P] is one of the products that oneDNN makes faster."""
    operands = (left, right) if bias is None else (left, right, bias)
    return (
        not is_traced_or_transformed()
        and left.numel() * len(right) >= MIN_MULTIPLICATIONS_FOR_ONEDNN
        and left.numel() // left.shape[-1] >= LEAST_ROWS
        and len(right) >= LEAST_COLUMNS
        and all(type(each) in PLAIN_TENSOR_TYPES and each.device.type == "cpu" for each in operands)
        and all(each.layout == torch.strided and each.dtype == left.dtype for each in operands)
        and mkl_is_slow()
        and can_block(left.dtype)
    )


def is_traced_or_transformed() -> bool:
    """Return whether torch makes another program of what runs, by rules that it does not have for oneDNN's products."""
    return is_tracing() or torch_private.in_functorch() or torch_private.in_forward_ad()


def dense(matrix: Tensor) -> Tensor:
    """Return a matrix that lies in memory as it is or transposed, without gaps; a copy if it does not.

    For others, such as a part of a wider matrix, oneDNN has no more than its reference, a hundred times slower.
    """
    return matrix if matrix.is_contiguous() or matrix.t().is_contiguous() else matrix.contiguous()


class Product:
    """a ↦ a Wᵀ and its adjoint g ↦ g W, many times with the same W, which is laid out once for all of them.

    Args:
        weight: W [P, K].
        times: how often each is called.
        dtype: the type to multiply in (of autocast); None keeps that of the weight.
    """

    def __init__(self, weight: Tensor, *, times: int, dtype: torch.dtype | None) -> None:
        self.weight = weight.detach() if dtype is None else weight.detach().to(dtype)
        self.wide = weight.dtype == torch.float32  # so are operands and products, in whatever type they are multiplied
        self.often = (
            weight.device.type == "cpu"
            and times >= MIN_PRODUCTS_FOR_PANELS
            and type(self.weight) in PLAIN_TENSOR_TYPES
            and not is_traced_or_transformed()
        )
        self.matrices: dict[bool, Tensor | Panels] = {}

    def matrix(self, *, back: bool) -> Tensor | Panels:
        """Return what operands are multiplied with: Wᵀ, or going back W, laid out for that."""
        if back not in self.matrices:
            matrix = self.weight if back else self.weight.t()
            if self.often and self.wide and library() is not None and offers_products(matrix.dtype):
                self.matrices[back] = Panels(matrix)
            else:
                self.matrices[back] = matrix.contiguous() if self.often else matrix
        return self.matrices[back]

    def put(self, operand: Tensor, out: Tensor, *, back: bool = False, add: bool = False) -> None:
        """Write a Wᵀ [B, P] of an operand a [B, K], or going back g W [B, K] of g [B, P], to `out`, or add it."""
        matrix = self.matrix(back=back)
        if isinstance(matrix, Panels) and operand.dtype == out.dtype == torch.float32:
            matrix.multiply(operand, out, add=add)
            return
        operand = operand.to(self.weight.dtype)
        if isinstance(matrix, Panels):
            matrix = self.weight if back else self.weight.t()
        if out.dtype != operand.dtype:
            found = torch.mm(operand, matrix)
            out.copy_(out + found if add else found)
        elif add:
            out.addmm_(operand, matrix)
        else:
            torch.mm(operand, matrix, out=out)


class WeightGrad:
    """The gradient of a weight, Σ gᵀ a, added up part by part in float32 or wider.

    Args:
        weight: W [P, K] of a ↦ a Wᵀ.
        dtype: the type to multiply in (of autocast); None is that of the weight.
    """

    def __init__(self, weight: Tensor, *, dtype: torch.dtype | None) -> None:
        self.dtype = weight.dtype if dtype is None else dtype
        # The transpose is summed where oneDNN makes it: aᵀ g is faster there than gᵀ a.
        self.turned = not is_tracing() and weight.device.type == "cpu" and mkl_is_slow() and can_block(self.dtype)
        self.weight = weight
        self._sum: Tensor | None = None

    @property
    def sum(self) -> Tensor:
        """The sum so far [P, K], or its transpose; memory for it is made where it is first wanted."""
        if self._sum is None:
            shape = self.weight.shape[::-1] if self.turned else self.weight.shape
            self._sum = self.weight.new_zeros(shape, dtype=wide(self.weight.dtype))
        return self._sum

    def add(self, grads: Tensor, operands: Tensor) -> None:
        """Add gᵀ a for g [..., P] and a [..., K]."""
        left, right = grads.flatten(0, -2).to(self.dtype), operands.flatten(0, -2).to(self.dtype)
        if self.turned:
            left, right = right, left
        if self.dtype == self.sum.dtype and not prefers_onednn(left.t(), right.t()):
            self.sum.addmm_(left.t(), right)
            return
        rows = PART if self.turned else max(1, len(left))
        for a, b in zip(left.split(rows), right.split(rows), strict=True):
            self.sum.add_(multiply(a.t(), b.t()))

    def total(self) -> Tensor:
        """Return the sum [P, K]."""
        return self.sum.t().contiguous() if self.turned else self.sum


class Projection:
    """x ↦ W x + b of many rows, part by part, and its gradients; those of W and b are added up over the parts.

    Args:
        weight: W [P, I].
        bias: b [P].
        dtype: the type to multiply in (of autocast); None keeps that of the weight.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, dtype: torch.dtype | None) -> None:
        self.shared = (weight, bias)
        self.weight = weight.detach() if dtype is None else weight.detach().to(dtype)
        self.g_weight = WeightGrad(weight, dtype=dtype)
        self.g_bias = torch.zeros_like(bias, dtype=wide(bias.dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """Return x Wᵀ, without b: [N, I] → [N, P]."""
        return multiply(rows.to(self.weight.dtype), self.weight)

    def backward(self, grads: Tensor, rows: Tensor, out: Tensor | None) -> Tensor:
        """Add to the gradients of W and b for g [N, P] and x [N, I]; write g W [N, I] to `out` if it is given.

        Returns:
            g in the type of products.
        """
        self.g_bias += grads.sum(0, dtype=self.g_bias.dtype)
        low_precision = grads.to(self.weight.dtype)
        self.g_weight.add(low_precision, rows)
        if out is None:
            return low_precision
        if out.dtype == low_precision.dtype:
            multiply(low_precision, self.weight.t(), out=out)
        else:
            out.copy_(multiply(low_precision, self.weight.t()))
        return low_precision

    def total(self) -> tuple[Tensor, Tensor]:
        """Return the gradients of W and b."""
        weight, bias = self.shared
        return self.g_weight.total().to(weight.dtype), self.g_bias.to(bias.dtype)


def faster_products() -> AbstractContextManager[Any]:
    """Return a context in which `torch.nn.functional.linear` is `linear`, whoever calls it."""
    return FasterLinear() if not is_traced_or_transformed() and mkl_is_slow() else nullcontext()


class FasterLinear(TorchFunctionMode):
    """The context of `faster_products`."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run a function of torch, or `linear` in its place."""
        if func is F.linear and not kwargs:
            return linear(*args)
        return func(*args, **(kwargs or {}))


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b as `torch.nn.functional.linear` does: [..., K], [P, K], [P] → [..., P]."""
    if (
        is_traced_or_transformed()
        or inputs.dim() < 2
        or weight.dim() != 2
        or inputs.shape[-1] != weight.shape[1]  # for torch to refuse
        or (bias is not None and bias.shape != weight.shape[:1])
        or torch.is_autocast_enabled(inputs.device.type)
        or not prefers_onednn(inputs, weight, bias)
    ):
        return F.linear(inputs, weight, bias)
    rows = inputs.flatten(0, -2)
    wanted = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in (inputs, weight, bias))
    products: Tensor = LinearFunction.apply(rows, weight, bias) if wanted else multiply(rows, weight, bias)
    return products.unflatten(0, inputs.shape[:-1])


class LinearFunction(torch.autograd.Function):
    """x Wᵀ + b of x [N, K], W [P, K] and b [P] (or None), by `multiply`, forward and back."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x Wᵀ + b [N, P]."""
        ctx.save_for_backward(inputs, weight)
        return multiply(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, W and b; they can be differentiated in turn."""
        inputs, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        g_bias = grad.sum(0) if wanted[2] else None
        if torch.is_grad_enabled() or is_traced_or_transformed() or torch_private.is_legacy_batched(grad):
            return grad @ weight if wanted[0] else None, grad.t() @ inputs if wanted[1] else None, g_bias
        g_weight = None
        if wanted[1]:
            g_weight = WeightGrad(weight, dtype=None)
            g_weight.add(grad, inputs)
        return (
            multiply(grad, weight.t()) if wanted[0] else None,
            None if g_weight is None else g_weight.total(),
            g_bias,
        )


def can_block(dtype: torch.dtype) -> bool:
    """Return whether oneDNN's linear layer with a blocked weight is there, for float32."""
    return (
        dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)  # so that `torch.backends.mkldnn.flags` holds here too
        and torch_private.lookup("torch.ops.mkldnn._linear_pointwise") is not None
    )
