"""Kernels in C++ (`rnnzoo.kernels.compile.cpp_writer`), which a program in C++ can call without Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels.compile.cpp_writer import Source
from rnnzoo.kernels.products import panels

Kernel = Callable[..., None]


class Compiled:
    """A kernel that was compiled, for tensors of the shapes and strides that it was compiled for.

    Args:
        source: the kernel in C++.
        tensors: some that it is for.
        rows: for each whether it has any number of rows, as all of these have; they lie in one piece.
    """

    def __init__(self, source: Source, tensors: Sequence[Tensor], rows: Sequence[bool]) -> None:
        self.rows = [*rows]
        self.layouts = layouts(tensors, rows)
        self.constants = source.constants
        self.sums = source.sums
        self.library = panels.compile_code(source.code)  # lives as long as this
        self.function = ctypes.cast(self.library.kernel, ctypes.c_void_p).value or 0

    def fits(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether it was compiled for tensors like these."""
        return layouts(tensors, self.rows) == self.layouts

    def partial_sums(self, tensors: Sequence[Tensor]) -> dict[int, Tensor]:
        """Return memory for what each thread adds to the tensors of some places: [threads, ...] each."""
        threads = torch.get_num_threads()
        return {place: tensors[place].new_zeros(threads, *tensors[place].shape) for place in self.sums}

    def __call__(self, *tensors: Tensor) -> None:
        """Run it.

        Raises:
            ValueError: for other tensors than those that it was compiled for.
        """
        if not self.fits(tensors):
            raise ValueError(f"expected tensors laid out as {self.layouts}, got {layouts(tensors, self.rows)}")
        partial = self.partial_sums(tensors)
        places = [partial.get(place, tensor).data_ptr() for place, tensor in enumerate((*tensors, *self.constants))]
        count = len(tensors[self.rows.index(True)])
        panels.library().call(self.function, (ctypes.c_void_p * len(places))(*places), count, torch.get_num_threads())
        for place, parts in partial.items():
            tensors[place].add_(parts.sum(0))


def layouts(tensors: Sequence[Tensor], rows: Sequence[bool]) -> list[Any]:
    """Return what compiled code takes for granted of tensors, some of which have any number of rows in one piece."""
    return [
        ("rows", each.shape[1:], each.dtype, each.device, each.is_contiguous()) if any_rows
        else (each.shape, each.stride(), each.dtype, each.device)
        for each, any_rows in zip(tensors, rows, strict=True)
    ]  # fmt: skip
