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
Parts = list[tuple[int, list[tuple[int, int]]]]

_lock = Lock()


class Compiled:
    """A kernel that was compiled, for tensors of the shapes and strides that it was compiled for.

    Args:
        kernel: what calls it from Python, and checks them.
        tensors: some of them.
        constants: that it reads besides.
    """

    def __init__(self, kernel: Kernel, tensors: Sequence[Tensor], constants: Sequence[Tensor] = ()) -> None:
        self.kernel = kernel
        self.constants = constants
        self.layouts = [layout(each) for each in tensors]
        # What it calls in C++: address of a function, and where the places it takes are: the tensor (of those given,
        # then of scratch, then of constants) and a byte in it. None if that was not found out.
        self.parts: Parts | None = None
        self.scratch: list[int] = []  # bytes of memory that it needs besides
        self.libraries: list[Any] = []  # of the functions; they live as long as this

    def __call__(self, *tensors: Tensor) -> None:
        """Run it."""
        self.kernel(*tensors)

    def record(self, tensors: Sequence[Tensor]) -> None:
        """Run it, and find out what it calls in C++; the tensors share no memory."""
        with watched() as calls:
            self.kernel(*tensors)
        storages, constants = (
            [each.untyped_storage().data_ptr() for each in given] for given in (tensors, self.constants)
        )
        sizes: dict[int, int] = {}
        for each in chain.from_iterable(places for _, places in calls):
            if each.storage not in storages and each.storage not in constants:
                sizes[each.storage] = max(each.size, sizes.get(each.storage, 0))
        storages += [*sizes, *constants]
        if not calls or 0 in storages or len(set(storages)) < len(storages):
            return
        self.scratch = list(sizes.values())
        parts: Parts = []
        for function, places in calls:
            assert isinstance(function.__self__, ModuleType)  # a library of torch's
            library = ctypes.CDLL(function.__self__.__file__)
            self.libraries.append(library)
            address = ctypes.cast(library.kernel, ctypes.c_void_p).value
            if address is None or len(places) > MOST_PLACES:
                return
            parts.append((address, [(storages.index(each.storage), each.offset) for each in places]))
        self.parts = parts


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return what compiled code takes for granted."""
    return tensor.shape, tensor.stride(), tensor.dtype


class Memory(NamedTuple):
    """Where an argument lies: address of its storage, byte in it, and bytes of all of it."""

    storage: int
    offset: int
    size: int


def memory(tensor: Tensor) -> Memory:
    """Return where a tensor lies."""
    storage = tensor.untyped_storage()
    return Memory(storage.data_ptr(), tensor.data_ptr() - storage.data_ptr(), storage.nbytes())


@contextmanager
def watched() -> Iterator[list[tuple[BuiltinFunctionType, list[Memory]]]]:
    """Write down which functions in C++ this thread calls through torch's compiled code, and with which memory.

    Compiled code finds them by name in its module, where one that writes down stands in meanwhile.
    """
    calls: list[tuple[BuiltinFunctionType, list[Memory]]] = []
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
