"""What a backend does at every step, said once: calls of kernels and products, and where they read and write.

The steps are run in C++ where all that they call can be called from there, in Python otherwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends import cpp
from rnnzoo.backends.compiled import Compiled, Kernel, layout
from rnnzoo.backends.product import Product


class Series(NamedTuple):
    """The parts of a buffer [N, ...] that steps read or write one after another.

    Args:
        buffer: the buffer.
        start: the place of the first step.
        by: from there to the place of the next step: 1 forward, -1 back, 0 for one place that all steps use.
        turns: with 2, the steps take turns at places 0 and 1.
    """

    buffer: Tensor
    start: int
    by: int = 1
    turns: int = 0

    def views(self, steps: int) -> list[Tensor]:
        """Return the part of each step."""
        parts = self.buffer.unbind()
        places = [self.start + self.by * step for step in range(steps)]
        return [parts[place % self.turns if self.turns else place] for place in places]

    def first(self) -> Tensor:
        """Return the part of the first step."""
        return self.buffer[self.start % self.turns if self.turns else self.start]

    def address(self) -> tuple[int, int, int, int]:
        """Return the four numbers by which C++ finds the parts."""
        stride = self.buffer.stride(0) * self.buffer.element_size()
        if self.turns:
            return self.buffer.data_ptr(), stride, self.turns, self.start % self.turns
        return self.buffer.data_ptr() + self.start * stride, self.by * stride, 0, 0


Place = Series | Tensor  # a tensor is the same at all steps


def views(place: Place, steps: int) -> list[Tensor]:
    """Return the tensor of each step."""
    return place.views(steps) if isinstance(place, Series) else [place] * steps


def first(place: Place) -> Tensor:
    """Return the tensor of the first step."""
    return place.first() if isinstance(place, Series) else place


def address(place: Place) -> tuple[int, int, int, int]:
    """Return the four numbers by which C++ finds the tensor of each step."""
    return place.address() if isinstance(place, Series) else (place.data_ptr(), 0, 0, 0)


class Call(NamedTuple):
    """A kernel with its tensors."""

    kernel: Kernel
    places: Sequence[Place]
    on_trial: bool = False

    def each(self, steps: int) -> Iterator[None]:
        """Call it, at each step."""
        for tensors in zip(*(views(place, steps) for place in self.places), strict=True):
            self.kernel(*tensors)
            yield

    def encoded(self, rooms: list[Tensor]) -> list[int] | None:
        """Return the numbers that C++ reads, or None if it cannot be called from there; rooms are memory it needs."""
        if not isinstance(self.kernel, Compiled) or self.kernel.parts is None:
            return None
        if [layout(first(place)) for place in self.places] != self.kernel.layouts:
            return None
        scratch = [torch.empty(size, dtype=torch.uint8, device="cpu") for size in self.kernel.scratch]
        if self.on_trial:
            for each in scratch:
                each.fill_(255)  # not a number: what nothing has written is not taken for a result
        rooms += scratch
        addresses = [address(place) for place in (*self.places, *scratch, *self.kernel.constants)]
        numbers: list[int] = []
        for function, places in self.kernel.parts:
            numbers += [function, len(places), *[0] * 6]
            for index, offset in places:
                base, *rest = addresses[index]
                numbers += [base + offset, *rest]
        return numbers


class Multiply(NamedTuple):
    """A product: out [B, P] = a Wᵀ, or, going back, out [B, K] = g W; with `add` it is added to what is there."""

    product: Product
    operand: Place
    out: Place
    back: bool = False
    add: bool = False

    def each(self, steps: int) -> Iterator[None]:
        """Multiply, at each step."""
        for operand, out in zip(views(self.operand, steps), views(self.out, steps), strict=True):
            self.product.put(operand, out, back=self.back, add=self.add)
            yield

    def encoded(self, rooms: list[Tensor]) -> list[int] | None:
        """Return the numbers that C++ reads, or None if it cannot be made there; rooms are memory it needs."""
        operand, out = first(self.operand), first(self.out)
        matrix = self.product.matrix(back=self.back)
        if not isinstance(matrix, cpp.Panels) or operand.dtype != out.dtype or out.dtype != torch.float32:
            return None
        if not (cpp.in_rows(operand) and cpp.in_rows(out)):
            return None
        rooms.append(matrix.numbers)
        sizes = matrix.sizes(operand, out, add=self.add)
        places = (address(self.operand), address(matrix.numbers), address(self.out))
        return [0, 3, *sizes, *(number for place in places for number in place)]


def run(calls: Sequence[Call | Multiply], steps: int) -> None:
    """Do the calls, one after another, at each of some steps."""
    if cpp.library() is not None and run_in_cpp(calls, steps):
        return
    for _ in zip(*(call.each(steps) for call in calls), strict=True):
        pass


def run_in_cpp(calls: Sequence[Call | Multiply], steps: int) -> bool:
    """Run a program in C++ if all of its calls can be made from there; return whether it was.

    Products can where their weight is laid out for it, in float32 for at least `product.FEW` steps.
    """
    rooms: list[Tensor] = []
    numbers: list[int] = []
    for call in calls:
        encoded = call.encoded(rooms)
        if encoded is None:
            return False
        numbers += encoded
    program = (ctypes.c_int64 * len(numbers))(*numbers)
    cpp.library().run(ctypes.addressof(program), len(numbers), steps, torch.get_num_threads())
    return True
