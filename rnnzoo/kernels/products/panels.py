"""C++ that is compiled at run time, with the compiler of `torch.compile`: small products, and programs of many steps.

A step of a cell is a small product and a row-wise kernel. The product is made by oneDNN's small products (`brgemm`),
which torch carries along, each of a panel of columns that stays in the cache of one thread: on two threads it takes
two thirds of the time of a plain product. A program is the calls of a step with the places of what they read and
write; to run it for many steps here saves what Python takes to call them, which is as long as the kernels, and the
threads go through all of it without being called anew.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels import torch_private
from rnnzoo.kernels.processor import PROCESSORS, has_amx, has_compiler
from rnnzoo.kernels.settings import may_compile, step_down
from rnnzoo.kernels.torch_private import compile_code

PANEL = 64 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 32  # columns, by measurement
MOST_PLACES = 64  # that a kernel takes
SOURCE = (
    Path(__file__)
    .with_suffix(".cpp")
    .read_text(encoding="utf-8")
    .replace("@PANEL@", str(PANEL))
    .replace("@MOST@", str(MOST_PLACES))
)
# Of the library: name, how many places in memory, how many sizes.
FUNCTIONS = (
    ("lay_out", 2, 5), ("lay_out_bf16", 2, 5), ("multiply", 3, 7), ("multiply_bf16", 3, 7), ("call", 2, 2),
    ("run", 2, 3),
)  # fmt: skip
PRODUCT, ROUND, BF16_PRODUCT = range(3)  # functions of a program that are not kernels

_libraries: list[Any] = []  # one, or None where it cannot be had; empty before it was asked for
_lock = Lock()


def load() -> None:
    """Compile the library, or read it from the disk, where that can be done; it takes some seconds the first time."""
    with _lock:
        if not _libraries:
            _libraries.append(compiled())


def library() -> Any:
    """Return the library, or None if it was not loaded, cannot be had, or is not wanted."""
    return _libraries[0] if _libraries and may_compile() else None


def offers_products(dtype: torch.dtype) -> bool:
    """Return whether there are small products: the processor has them, and the library was not tried in vain."""
    if _libraries == [None] or not torch.backends.cpu.get_cpu_capability().startswith(PROCESSORS):
        return False
    if dtype != torch.bfloat16:
        return dtype == torch.float32
    tried = not _libraries or _libraries[0].has_bf16
    # AVX-512's instructions for bfloat16 alone took 1.5 times the time of float32 (64 × 512 × 1536, one thread).
    return tried and has_amx() and bool(torch.backends.mkldnn.enabled)


def compiled() -> Any:
    """Return the compiled library, after it gave the numbers of plain torch; None if it cannot be had."""
    try:
        found = compile_code(SOURCE)
        for name, places, sizes in FUNCTIONS:
            function = getattr(found, name)
            function.argtypes = [ctypes.c_void_p] * places + [ctypes.c_int64] * sizes
            function.restype = ctypes.c_bool if name == "multiply_bf16" else None
        if offers_products(torch.float32):
            try_products(found, torch.float32)
    except torch_private.MissingNameError:  # which has been said
        return None
    except Exception as error:  # a compiler may fail in any way, and none is needed
        if has_compiler():
            first = next(iter(str(error).strip().splitlines()), "")
            step_down(
                "C++ library",
                f"the C++ library was not built ({type(error).__name__}: {first}); torch's compiler or plain torch "
                "runs instead",
                "check the compiler that CXX names, or set RNNZOO_COMPILE=0",
            )
        return None
    try:
        found.has_bf16 = offers_products(torch.bfloat16)
        if found.has_bf16:
            try_products(found, torch.bfloat16)
    except Exception:  # the processor has what oneDNN was told not to use
        found.has_bf16 = False
    return found


def try_products(library: Any, dtype: torch.dtype) -> None:
    """Multiply, and compare with plain torch.

    Raises:
        AssertionError: if the numbers are wrong.
        RuntimeError: if there are none.
    """
    left, right = (torch.linspace(-2, 2, 7 * count, device="cpu").sin() for count in (5, 70))
    one, other = left.reshape(5, 7).to(dtype).float(), right.reshape(7, 70).to(dtype)
    torch.testing.assert_close(Panels(other, library).multiply(one), one @ other.float())


class Panels:
    """A matrix B [K, N] in panels, for A ↦ A B; A is rounded to the type of B, and sums are in float32.

    Args:
        matrix: B, in float32 or bfloat16, in memory of any layout.
        made_by: the library; None takes the one that is loaded.
    """

    def __init__(self, matrix: Tensor, made_by: Any = None) -> None:
        self.library = library() if made_by is None else made_by
        self.shape = matrix.shape
        self.low_precision = matrix.dtype == torch.bfloat16
        self.depth = matrix.shape[0] + (
            self.low_precision and matrix.shape[0] % 2
        )  # numbers of a row that is multiplied
        if 1 not in matrix.stride():
            matrix = matrix.contiguous()
        columns = -(-matrix.shape[1] // PANEL) * PANEL if self.low_precision else matrix.shape[1]
        self.numbers = matrix.new_empty(self.depth * columns)
        sizes = (*matrix.shape, *matrix.stride(), torch.get_num_threads())
        lay_out = self.library.lay_out_bf16 if self.low_precision else self.library.lay_out
        lay_out(self.numbers.data_ptr(), matrix.data_ptr(), *sizes)

    def multiply(self, left: Tensor, out: Tensor | None = None, *, add: bool = False) -> Tensor:
        """Return A B [M, N] of A [M, K]; written, or added, to `out` if it is given.

        Args:
            left: A, in float32.
            out: [M, N] in float32; a new tensor if it is None.
            add: whether to add to what is there.
        """
        left = left if in_rows(left) else left.contiguous()
        if out is None:
            out = left.new_empty(len(left), self.shape[1])
        elif not in_rows(out):
            return out.copy_(self.multiply(left, out.contiguous() if add else None, add=add))
        places = (left.data_ptr(), self.numbers.data_ptr(), out.data_ptr())
        sizes = (len(left), *self.sizes(left, out, add=add), torch.get_num_threads())
        if not self.low_precision:
            self.library.multiply(*places, *sizes)
        elif not self.library.multiply_bf16(*places, *sizes):
            raise RuntimeError("oneDNN does not multiply bfloat16 here")
        return out

    def sizes(self, left: Tensor, out: Tensor, *, add: bool) -> tuple[int, ...]:
        """Return the sizes of a product, besides its rows, as the library wants them."""
        depth, columns = self.shape
        gaps = (max(left.stride(0), depth), max(out.stride(0), columns))  # of a single row, strides mean nothing
        return (columns, depth, *gaps, int(add))


def in_rows(matrix: Tensor) -> bool:
    """Return whether each row of a matrix lies in one piece, and no two share memory (as with `expand`)."""
    return matrix.stride(1) == 1 and (len(matrix) == 1 or matrix.stride(0) >= matrix.shape[1])
