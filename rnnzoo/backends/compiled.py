"""Compiled kernels, and the functions in C++ behind them, so that a loop in C++ can call them without Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from threading import Lock, get_ident
from types import BuiltinFunctionType, ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from rnnzoo.backends.cpp import MOST_PLACES

Kernel = Callable[..., None]
TRIED_ROWS = (64, 37)  # on which it is found out what a kernel calls

_lock = Lock()


class Argument(NamedTuple):
    """Where a function in C++ reads or writes: a tensor (given, then scratch, then constants) and a byte in it."""

    tensor: int | None  # None: none, but how many rows there are
    offset: int = 0


class Room(NamedTuple):
    """Memory that a kernel needs besides: bytes for each row, and others."""

    row: int
    fixed: int

    def of(self, rows: int) -> int:
        """Return the bytes for so many rows."""
        return self.row * rows + self.fixed


Parts = list[tuple[int, list[Argument]]]


class Compiled:
    """A kernel that was compiled, for tensors of the shapes and strides that it was compiled for.

    Args:
        kernel: what calls it from Python, and checks them.
        tensors: some of them.
        rows: for each whether it has any number of rows, as all of these have; they lie in one piece.
        constants: that it reads besides.
    """

    def __init__(
        self, kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool], constants: Sequence[Tensor] = ()
    ) -> None:
        self.kernel = kernel
        self.constants = constants
        self.layouts = layouts(tensors, rows)
        # What it calls in C++: address of a function, and its arguments. None if that was not found out.
        self.parts: Parts | None = None
        self.scratch: list[Room] = []
        self.libraries: list[Any] = []  # of the functions; they live as long as this

    def __call__(self, *tensors: Tensor) -> None:
        """Run it."""
        self.kernel(*tensors)

    def record(self, many: Sequence[Tensor], few: Sequence[Tensor]) -> None:
        """Run it, and find out what it calls in C++; the tensors have `TRIED_ROWS`, and share no memory."""
        (parts, sizes), (others, other_sizes) = self.watch(many, TRIED_ROWS[0]), self.watch(few, TRIED_ROWS[1])
        if not parts or parts != others or len(sizes) != len(other_sizes):
            return
        step = TRIED_ROWS[0] - TRIED_ROWS[1]
        rows = [(size - other) // step for size, other in zip(sizes, other_sizes, strict=True)]
        scratch = [Room(row, size - row * TRIED_ROWS[0]) for row, size in zip(rows, sizes, strict=True)]
        if [each.of(TRIED_ROWS[1]) for each in scratch] == other_sizes and all(min(each) >= 0 for each in scratch):
            self.parts, self.scratch = parts, scratch

    def watch(self, tensors: Sequence[Tensor], rows: int) -> tuple[Parts, list[int]]:
        """Run it on so many rows; return what it calls in C++, if that can be told, and the bytes of its scratch."""
        with watched() as calls:
            self.kernel(*tensors)
        storages, constants = (
            [each.untyped_storage().data_ptr() for each in given] for given in (tensors, self.constants)
        )
        sizes: dict[int, int] = {}
        for each in chain.from_iterable(arguments for _, arguments in calls):
            if isinstance(each, Memory) and each.storage not in storages and each.storage not in constants:
                sizes[each.storage] = max(each.size, sizes.get(each.storage, 0))
        storages += [*sizes, *constants]
        if 0 in storages or len(set(storages)) < len(storages):
            return [], []
        parts: Parts = []
        for function, arguments in calls:
            if len(arguments) > MOST_PLACES or any(isinstance(each, int) and each != rows for each in arguments):
                return [], []
            assert isinstance(function.__self__, ModuleType)  # a library of torch's
            library = ctypes.CDLL(function.__self__.__file__)
            self.libraries.append(library)
            address = ctypes.cast(library.kernel, ctypes.c_void_p).value
            assert address is not None
            found = [
                Argument(None) if isinstance(each, int) else Argument(storages.index(each.storage), each.offset)
                for each in arguments
            ]
            parts.append((address, found))
        return parts, list(sizes.values())


def layouts(tensors: Sequence[Tensor], rows: Sequence[bool]) -> list[Any]:
    """Return what compiled code takes for granted of tensors, some of which have any number of rows in one piece."""
    return [
        ("rows", each.shape[1:], each.dtype, each.device, each.is_contiguous()) if any_rows
        else (each.shape, each.stride(), each.dtype, each.device)
        for each, any_rows in zip(tensors, rows, strict=True)
    ]  # fmt: skip


class Memory(NamedTuple):
    """Where an argument lies: address of its storage, byte in it, and bytes of all of it."""

    storage: int
    offset: int
    size: int


def memory(argument: Tensor | int) -> Memory | int:
    """Return where a tensor lies, and a number as it is."""
    if isinstance(argument, int):
        return argument
    storage = argument.untyped_storage()
    return Memory(storage.data_ptr(), argument.data_ptr() - storage.data_ptr(), storage.nbytes())


@contextmanager
def watched() -> Iterator[list[tuple[BuiltinFunctionType, list[Memory | int]]]]:
    """Write down which functions in C++ this thread calls through torch's compiled code, and with which memory.

    Compiled code finds them by name in its module, where one that writes down stands in meanwhile.
    """
    calls: list[tuple[BuiltinFunctionType, list[Memory | int]]] = []
    thread = get_ident()

    def watch(function: BuiltinFunctionType) -> Kernel:
        def call(*arguments: Any) -> None:
            if get_ident() == thread:
                calls.append((function, [memory(each) for each in arguments]))
            function(*arguments)

        return call

    with _lock:
        replaced = [
            (module, name, value)
            for module in modules()
            for name, value in list(vars(module).items())
            if isinstance(value, BuiltinFunctionType) and value.__name__ == "kernel"
        ]
        try:
            for module, name, value in replaced:
                setattr(module, name, watch(value))
            yield calls
        finally:
            for module, name, value in replaced:
                setattr(module, name, value)


def modules() -> list[ModuleType]:
    """Return the modules of code that torch has compiled."""
    from torch._inductor.codecache import PyCodeCache

    return list(PyCodeCache.modules)
