"""Compiled kernels, and the functions in C++ behind them, so that a loop in C++ can call them without Python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock, get_ident
from types import BuiltinFunctionType, ModuleType
from typing import Any

from torch import Tensor

from rnnzoo.backends.cpp import MOST_PLACES

Kernel = Callable[..., None]
Parts = list[tuple[int, list[tuple[int, int]]]]

_lock = Lock()


class Compiled:
    """A kernel that was compiled, for tensors of the shapes it was compiled for.

    Args:
        kernel: what calls it from Python.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        # What it calls in C++: address of a function, and where the places it takes are: the tensor (of those given,
        # then of scratch) and a byte in it. None if that was not found out.
        self.parts: Parts | None = None
        self.scratch: list[int] = []  # bytes of memory that it needs besides
        self.libraries: list[Any] = []  # of the functions; they live as long as this

    def __call__(self, *tensors: Tensor) -> None:
        """Run it."""
        self.kernel(*tensors)

    def record(self, tensors: Sequence[Tensor]) -> None:
        """Run it, and find out what it calls in C++; the tensors share no memory."""
        places = {each.untyped_storage().data_ptr(): index for index, each in enumerate(tensors)}
        known = len(places) == len(tensors) and 0 not in places
        sizes: dict[int, int] = {}
        parts: Parts = []
        with watched() as calls:
            self.kernel(*tensors)
        for function, arguments in calls:
            library = ctypes.CDLL(function.__self__.__file__)  # type: ignore[attr-defined]
            self.libraries.append(library)
            found = []
            for storage, offset, size in arguments:
                if storage not in places:
                    places[storage] = len(places)
                    sizes[storage] = 0
                if storage in sizes:
                    sizes[storage] = max(sizes[storage], size)
                found.append((places[storage], offset))
            address = ctypes.cast(library.kernel, ctypes.c_void_p).value
            known = known and address is not None and len(found) <= MOST_PLACES
            parts.append((address or 0, found))
        self.parts = parts if parts and known else None
        self.scratch = list(sizes.values())


Recorded = tuple[BuiltinFunctionType, list[tuple[int, int, int]]]


@contextmanager
def watched() -> Iterator[list[Recorded]]:
    """Write down which functions in C++ this thread calls through torch's compiled code, and with which memory.

    Compiled code finds them by name in its module, where one that writes down stands in meanwhile. Memory is said by
    storage, place in it, and size of it.
    """
    calls: list[Recorded] = []
    thread = get_ident()

    def watch(function: BuiltinFunctionType) -> Kernel:
        def call(*arguments: Tensor) -> None:
            if get_ident() == thread:
                storages = [each.untyped_storage() for each in arguments]
                first = [(each.data_ptr(), storage) for each, storage in zip(arguments, storages, strict=True)]
                calls.append((function, [(s.data_ptr(), at - s.data_ptr(), s.nbytes()) for at, s in first]))
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
