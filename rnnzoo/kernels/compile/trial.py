"""Compiled kernels on random numbers, beside the plain ones whose numbers they have to give."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rnnzoo.kernels.compile.cpp_kernel import Kernel

TRIED_ROWS = (64, 37)  # on which a compiled kernel is held to the plain one
MAX_DIFFERING_SHARE = 0.005  # share of the results of numbers of both signs that rounding may make others


def tried(found: Kernel, kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a compiled kernel that gives the numbers of the plain one.

    Raises:
        AssertionError: if it does not.
    """
    for count in (*TRIED_ROWS, 1) if any(rows) else TRIED_ROWS[:1]:
        for signed in (False, True)[: 1 if are_low_precision(tensors) else 2]:  # of which differences may leave nothing
            plain, fast = (drawn(tensors, rows, count, signed=signed) for _ in range(2))
            kernel(*plain)
            found(*fast)
            check(fast, plain, share=MAX_DIFFERING_SHARE if signed else 0.0)
    return found


def are_low_precision(tensors: Sequence[Tensor]) -> bool:
    """Return whether compiled numbers are rounded less often than plain ones, by steps that one sees."""
    device = tensors[0].device.type
    return (
        any(value.dtype in (torch.bfloat16, torch.float16) for value in tensors)
        or torch.is_autocast_enabled(device)
        or (device == "cuda" and torch.backends.cuda.matmul.allow_tf32)
    )


def drawn(tensors: Sequence[Tensor], rows: Sequence[bool], count: int, *, signed: bool = False) -> list[Tensor]:
    """Return tensors like these to try a kernel on, with random numbers, for some of these hold none yet.

    They share no memory, and lie in it as these do, which compiled code trusts; some have `count` rows. Numbers are
    from 0.1 to 1.1, as `analyze_step` draws them, of which all functions have a value; or, `signed`, to both sides of
    0, for what is done on one side alone.
    """
    generator = torch.Generator().manual_seed(0)

    def fill(like: Tensor, any_rows: bool) -> Tensor:
        shape = (count, *like.shape[1:]) if any_rows else like.shape
        if not like.is_floating_point():
            if any_rows:
                return torch.randint(0, 2, shape, generator=generator, device="cpu").to(like.device, like.dtype)
            return like.detach().clone()
        stride = torch.empty(shape, device="meta").stride() if any_rows else like.stride()
        size = 1 + sum((count - 1) * step for count, step in zip(shape, stride, strict=True))
        draw = torch.randn if signed else torch.rand
        numbers = draw(size if math.prod(shape) else 0, generator=generator, dtype=torch.float64, device="cpu")
        numbers = 1.5 * numbers if signed else numbers + 0.1
        return numbers.to(like.device, like.dtype).as_strided(shape, stride)

    return [fill(each, any_rows) for each, any_rows in zip(tensors, rows, strict=True)]


def check(found: Sequence[Tensor], expected: Sequence[Tensor], *, share: float) -> None:
    """Check that a compiled kernel gave the numbers of the plain one.

    Args:
        found: what it wrote.
        expected: what the plain one wrote.
        share: of the numbers of a tensor that may be others: differences of large numbers have no digits left.

    Raises:
        AssertionError: if it did not.
    """
    rtol, atol = (2e-2, 2e-2) if are_low_precision(expected) else (1e-3, 1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        sizes = theirs.double().nan_to_num(0, 0, 0).abs()
        scale = max(1.0, sizes.max().item()) if sizes.numel() else 1.0
        close = torch.isclose(ours, theirs, rtol=rtol, atol=atol * scale, equal_nan=True)
        if int((~close).sum()) > share * close.numel():
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol * scale, equal_nan=True)
