"""Kernels that are used often, compiled once for each layout of their tensors.

On a CPU they are compiled for any number of rows: to C++ (`rnnzoo.kernels.compile.cpp_writer`), or by the compiler of
`torch.compile`, without its guards, for the caller knows the shapes. A compiled one is used only after it gave the
numbers of the plain one (`rnnzoo.kernels.compile.trial`). `rnnzoo.kernels.settings` says when.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels import torch_private
from rnnzoo.kernels.compile import cpp_writer
from rnnzoo.kernels.compile.cpp_kernel import Compiled, Kernel, layouts
from rnnzoo.kernels.compile.row_nodes import RefusedError
from rnnzoo.kernels.compile.trace import decompositions, of_any_rows, traced
from rnnzoo.kernels.compile.trial import TRIED_ROWS, drawn, tried
from rnnzoo.kernels.processor import has_compiler
from rnnzoo.kernels.products import panels
from rnnzoo.kernels.settings import COMPILE_AFTER, in_a_hurry, may_compile, on_first_use, step_down

MOST_LAYOUTS = 6  # compiled for one kernel; rarer ones stay plain

_seen: Counter[Any] = Counter()
_compiled: dict[Any, Kernel] = {}
_layouts: Counter[Any] = Counter()
_failures: list[str] = []
_lock = RLock()  # torch traces for one thread at a time
_log = logging.getLogger(__name__)


def can_compile(device: torch.device) -> bool:
    """Return whether kernels are compiled on a device: not forbidden, not failed before, and a compiler is there."""
    if not may_compile() or _failures:
        return False
    return device.type != "cpu" or has_compiler()


def bind(kernel: Kernel, cache_key: Any, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return `kernel`, compiled if tensors of these layouts have come often enough.

    Args:
        kernel: a method of `Kernels`.
        cache_key: what tells programs apart besides the layouts.
        tensors: as the kernel will get them; they are left alone.
        rows: for each whether, on a CPU, it may come with any number of rows, as many as all of these; they lie in one
            piece.
    """
    if not may_compile():
        return kernel
    rows = [any_rows and each.device.type == "cpu" for any_rows, each in zip(rows, tensors, strict=True)]
    code = (cache_key, tuple((value.dtype, value.device) for value in tensors), torch.get_num_threads())
    key = (code, *layouts(tensors, rows))  # compiled code checks them
    if key in _compiled:
        return _compiled[key]
    if tensors[0].is_cuda and torch.cuda.is_current_stream_capturing():  # nothing can be compiled while it is recorded
        return kernel
    _seen[key] += 1
    often = _seen[key] >= COMPILE_AFTER or in_a_hurry()
    if not on_first_use(tensors[0].device) and (not often or _layouts[code] >= MOST_LAYOUTS):
        return kernel
    with _lock:
        if key not in _compiled:
            _layouts[code] += 1
            _compiled[key] = compile_kernel(kernel, tensors, rows)
    return _compiled[key]


def compile_kernel(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Compile a kernel for the shapes of `tensors`; return the plain one if that cannot be done."""
    try:
        return tried(in_cpp(kernel, tensors, rows), kernel, tensors, rows)
    except Exception as error:  # it does something that is not known there, which torch's compiler may know
        _log.debug("a kernel that is not in C++: %s: %s", type(error).__name__, error)
        if not isinstance(error, RefusedError | torch_private.MissingNameError):
            step_down(
                f"C++ kernels: {type(error).__name__}",
                f"a kernel could not be made in C++ ({type(error).__name__}: {first_line(error)}); torch's compiler "
                "or plain torch runs instead",
                "please report this" if isinstance(error, ImportError) else "",  # others come from what the cell does
            )
    try:
        return tried(by_torch(kernel, tensors, rows), kernel, tensors, rows)
    except torch_private.MissingNameError:  # which has been said
        return kernel
    except Exception as error:  # a compiler may fail in any way, and none is needed
        if any(rows):
            fixed = compile_kernel(kernel, drawn(tensors, rows, TRIED_ROWS[0]), [False] * len(rows))
            if fixed is not kernel:  # the compiler is not to blame
                warnings.warn(
                    "rnnzoo: a cell computes otherwise for each number of rows (len(x), a loop over rows), and is not "
                    "compiled: plain torch runs it, with the same numbers but slower; take x.shape[0] for len(x)",
                    stacklevel=2,
                )
            return kernel
        if not _failures:
            warnings.warn(
                f"rnnzoo: no compiled kernels ({type(error).__name__}: {first_line(error)}); "
                "plain torch runs instead, with the same numbers but slower; a C++ compiler is needed",
                stacklevel=2,
            )
        _failures.append(str(error))
        return kernel


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return next(iter(str(error).strip().splitlines()), "")


def in_cpp(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a kernel in C++, for any number of rows.

    Raises:
        RefusedError: if it is none of those that can be had so.
    """
    if not any(rows) or any(each.device.type != "cpu" for each in tensors):
        raise RefusedError("no rows, or not on a CPU")
    panels.load()
    if panels.library() is None:
        raise RefusedError("no compiler")
    mode, examples = of_any_rows(drawn(tensors, rows, TRIED_ROWS[0]), rows)
    with mode:
        graph = traced(kernel, examples, decompositions())
    source = cpp_writer.source(graph, tensors, rows)
    if len(tensors) + len(source.constants) > panels.MOST_PLACES:
        raise RefusedError("too many tensors")
    return Compiled(source, tensors, rows)


def by_torch(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a kernel that torch's compiler makes."""
    examples = drawn(tensors, rows, TRIED_ROWS[0])
    mode, examples = of_any_rows(examples, rows) if any(rows) else (nullcontext(), examples)
    with mode:
        graph = traced(kernel, examples, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own parts
        code: Kernel = torch_private.require("torch._inductor.compile")(graph, list(examples))
    return code
