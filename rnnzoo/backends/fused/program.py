"""What a backend does at every step, said once: calls of kernels and products, and where they read and write.

The steps are run in C++ where all that they call can be called from there, in Python otherwise. They may have
different numbers of rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
from types import MethodType
from typing import NamedTuple

import torch
from torch import Tensor

from rnnzoo.kernels.compile.cpp_kernel import Compiled, Kernel
from rnnzoo.kernels.products import panels
from rnnzoo.kernels.products.linear import Product
from rnnzoo.kernels.settings import record_mode


class RowView(NamedTuple):
    """The rows of a buffer [N, ...] that steps read or write: as many as a step has, from some place on.

    Args:
        buffer: the buffer.
        places: where the rows of each step begin, [S] in int64 on the CPU; None is 0 for all.
    """

    buffer: Tensor
    places: Tensor | None = None

    def views(self, counts: Sequence[int]) -> list[Tensor]:
        """Return the rows of each step."""
        places = [0] * len(counts) if self.places is None else self.places.tolist()
        if len(set(counts)) == 1 and not any(place % counts[0] for place in places):  # faster than one by one
            parts = self.buffer.split(counts[0])
            return [parts[place // counts[0]] for place in places]
        return [self.buffer.narrow(0, place, count) for place, count in zip(places, counts, strict=True)]


TensorOrView = RowView | Tensor  # a tensor is the same at all steps


def views(place: TensorOrView, counts: Sequence[int]) -> list[Tensor]:
    """Return the tensor of each step."""
    return place.views(counts) if isinstance(place, RowView) else [place] * len(counts)


def address(place: TensorOrView) -> tuple[int, int, int]:
    """Return the numbers by which C++ finds the tensor of each step: its place, bytes of a row, a list of rows."""
    if not isinstance(place, RowView):
        return place.data_ptr(), 0, 0
    width = place.buffer.stride(0) * place.buffer.element_size()
    return place.buffer.data_ptr(), width, 0 if place.places is None else place.places.data_ptr()


class Memory(NamedTuple):
    """What a program in C++ uses besides the tensors that it is given.

    Args:
        rows: the most rows that a step has.
        held: tensors that it reads and writes.
        sums: tensors, and what each thread adds to them, [threads, ...].
    """

    rows: int
    held: list[Tensor]
    sums: list[tuple[Tensor, Tensor]]


class Entry(NamedTuple):
    """A function that a program calls, as C++ reads it, but for whether to wait.

    Args:
        function: its address, or one of those that `cpp` names.
        sizes: five numbers.
        places: what it is given.
    """

    function: int
    sizes: Sequence[int]
    places: Sequence[TensorOrView]

    @property
    def by_rows(self) -> bool:
        """Whether each thread does its own rows of a step, always the same ones."""
        return self.function not in (panels.PRODUCT, panels.BF16_PRODUCT)

    def numbers(self, *, wait: bool) -> list[int]:
        """Return the numbers that C++ reads; `wait` says whether all threads have to be done before the next one."""
        head = [self.function, len(self.places), int(wait), *self.sizes]
        return [*head, *(number for place in self.places for number in address(place))]


class Call(NamedTuple):
    """A kernel with its tensors."""

    kernel: Kernel
    places: Sequence[TensorOrView]

    def each(self, counts: Sequence[int]) -> Iterator[None]:
        """Call it, at each step."""
        for tensors in zip(*(views(place, counts) for place in self.places), strict=True):
            self.kernel(*tensors)
            yield

    def encoded(self, memory: Memory) -> list[Entry]:
        """Return what C++ calls; nothing if it cannot be called from there."""
        if not isinstance(self.kernel, Compiled):
            return []
        tensors = [place.buffer if isinstance(place, RowView) else place for place in self.places]
        rows = [isinstance(place, RowView) for place in self.places]
        if rows != self.kernel.rows or not self.kernel.fits(tensors):
            return []
        places = [*self.places, *self.kernel.constants]
        for at, parts in self.kernel.partial_sums(tensors).items():
            memory.sums.append((tensors[at], parts))
            places[at] = parts
        return [Entry(self.kernel.function, [0] * 5, places)]


class Multiply(NamedTuple):
    """A product: out [B, P] = a Wᵀ, or, going back, out [B, K] = g W; with `add` it is added to what is there."""

    product: Product
    operand: RowView
    out: RowView
    back: bool = False
    add: bool = False

    def each(self, counts: Sequence[int]) -> Iterator[None]:
        """Multiply, at each step."""
        for operand, out in zip(self.operand.views(counts), self.out.views(counts), strict=True):
            self.product.put(operand, out, back=self.back, add=self.add)
            yield

    def encoded(self, memory: Memory) -> list[Entry]:
        """Return what C++ calls; nothing if it cannot be made there."""
        operand, out = self.operand.buffer, self.out.buffer
        matrix = self.product.matrix(back=self.back)
        if not isinstance(matrix, panels.Panels) or not operand.dtype == out.dtype == torch.float32:
            return []
        if not (panels.in_rows(operand) and panels.in_rows(out)):
            return []
        memory.held.append(matrix.numbers)
        sizes = matrix.sizes(operand, out, add=self.add)
        if not matrix.low_precision:
            return [Entry(panels.PRODUCT, sizes, (self.operand, matrix.numbers, self.out))]
        rounded = matrix.numbers.new_empty(memory.rows, matrix.depth)
        memory.held.append(rounded)
        columns, _, _, gap, add = sizes
        return [
            Entry(panels.ROUND, sizes, (self.operand, rounded)),
            Entry(
                panels.BF16_PRODUCT,
                (columns, matrix.depth, matrix.depth, gap, add),
                (rounded, matrix.numbers, self.out),
            ),
        ]


def run(calls: Sequence[Call | Multiply], counts: Tensor) -> None:
    """Do the calls, one after another, at each step.

    Args:
        calls: what happens at a step.
        counts: rows of each step, [S] in int64 on the CPU.
    """
    if panels.library() is not None and run_in_cpp(calls, counts):
        record_mode("one C++ program")
        return
    record_mode(mode_of([call.kernel for call in calls if isinstance(call, Call)]))
    rows = counts.tolist()
    for _ in zip(*(call.each(rows) for call in calls), strict=True):
        pass


def mode_of(kernels: Sequence[Kernel]) -> str:
    """Return how kernels that Python calls one by one are executed."""
    if any(isinstance(kernel, MethodType | partial) for kernel in kernels):
        return "plain torch"
    if all(isinstance(kernel, Compiled) for kernel in kernels):
        return "C++ kernels, called one by one"
    return "kernels of torch's compiler, called one by one"


def run_in_cpp(calls: Sequence[Call | Multiply], counts: Tensor) -> bool:
    """Run a program in C++ if all of its calls can be made from there; return whether it was.

    Products can where their weight is laid out for it, in float32 or bfloat16 for at least
    `linear.MIN_PRODUCTS_FOR_PANELS` steps.
    """
    memory = Memory(int(counts.max()) if len(counts) else 0, [], [])
    entries: list[Entry] = []
    for call in calls:
        own = call.encoded(memory)
        if not own:
            return False
        entries += own
    numbers: list[int] = []
    for entry, after in zip(entries, [*entries[1:], None], strict=True):
        numbers += entry.numbers(wait=after is None or not (entry.by_rows and after.by_rows))
    program = (ctypes.c_int64 * len(numbers))(*numbers)
    places = (ctypes.addressof(program), counts.data_ptr())
    panels.library().run(*places, len(numbers), len(counts), torch.get_num_threads())
    for total, parts in memory.sums:
        total += parts.sum(0)
    return True
