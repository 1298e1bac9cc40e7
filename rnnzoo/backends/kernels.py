"""The row-wise parts of a step and their derivatives, as functions that write into given tensors.

They are plain torch functions, made from the cell's own `operand` and `combine`: nobody writes a gradient. Those that
are used often are compiled, on a CPU for any number of rows: to C++ (`rnnzoo.backends.rowcode`), or by the compiler of
`torch.compile`, without its guards, for the caller knows the shapes. A compiled one is used only after it gave the
numbers of the plain one.

`rnnzoo.backends.settings` says when.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import islice
from threading import RLock
from typing import Any

import torch
from torch import Tensor

from rnnzoo.backends import cpp, rowcode, rowgraph
from rnnzoo.backends.compiled import Compiled, Kernel, layouts
from rnnzoo.backends.form import Form, with_parameters
from rnnzoo.backends.settings import in_a_hurry, on_first_use
from rnnzoo.state import flatten, unflatten

COMPILE_AFTER = 20  # runs with the same layouts; what comes less often is not worth the time that compiling takes
TRIED_ROWS = (64, 37)  # on which a compiled kernel is held to the plain one
ILL = 0.005  # share of the results of numbers of both signs that rounding may make others
MOST_LAYOUTS = 6  # compiled for one kernel; rarer ones stay plain
COMPILERS = ("c++", "g++", "clang++", "cl")

_seen: Counter[Any] = Counter()
_compiled: dict[Any, Kernel] = {}
_layouts: Counter[Any] = Counter()
_failures: list[str] = []
_lock = RLock()  # torch traces for one thread at a time
_log = logging.getLogger(__name__)


class Kernels:
    """The functions of one cell, each of a flat list of tensors of one step.

    Names of the arguments: x projected input [B, P] and its bias [P]; p products [B, P_k]; s fields of the state; w
    parameters; valid [B] rows whose state moves on; g_… gradients. Those that are written come last.

    Args:
        cell: the cell; only its code and plain attributes are used, parameters are arguments.
        form: what `examine` found.
        biased: whether there is a bias.
        masked: whether there is ``valid``.
    """

    def __init__(self, cell: Any, form: Form, *, biased: bool, masked: bool) -> None:
        self.cell = cell
        self.form = form
        self.biased = biased
        self.masked = masked
        self.moving = [place for place, still in enumerate(form.constant) if not still]
        self.extra_places = [self.moving.index(place) for place in form.operands if place is not None]

    def forward(self, *tensors: Tensor) -> None:
        """Do the row-wise part of a step: (x, bias, p, s, w, valid) → output, moving fields.

        There is no output where a field is it. An additive cell has no p: it is in x, to which it was added.
        """
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left)
        valid = next(left) if self.masked else None
        results = self.step(parameters, self.shifted(projected, bias, fields), products, fields, valid)
        for target, value in zip(left, results, strict=True):
            target.copy_(value)

    def backward(self, *tensors: Tensor) -> None:
        """Go back through the row-wise part of a step.

        (x, bias, p, s, w, valid, g_output, g_s', g_extra) → g_x, g_p, g_s; added to: g_w

        `g_extra` are the gradients that the products of the next step sent to the fields they multiplied, in the
        order of `Form.operands`. An additive cell has neither p nor g_p, for g_x is the same.
        """
        form, left = self.form, iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left)
        valid = next(left) if self.masked else None
        g_output = next(left)
        grads = take(left, len(self.moving))
        for place in self.extra_places:
            grads[place] = grads[place] + next(left).to(grads[place].dtype)
        if form.output is None:
            grads = [g_output, *grads]
        else:
            place = self.moving.index(form.output)
            grads[place] = grads[place] + g_output
        with torch.enable_grad():
            inner = [leaf(field) if place in self.moving else field for place, field in enumerate(fields)]
            weights = [leaf(weight) for weight in parameters]
            sources = [leaf(projected), *(leaf(product) for product in products)]
            results = self.step(weights, self.shifted(sources[0], bias, inner), sources[1:], inner, valid)
            leaves = [*sources, *(inner[place] for place in self.moving), *weights]
            found = differentiate(results, leaves, grads)
        added = len(found) - len(weights)
        for place, (target, value) in enumerate(zip(left, found, strict=True)):
            if place < added:
                target.copy_(value)
            else:
                target.add_(value)

    def operand(self, index: int, *tensors: Tensor) -> None:
        """Write what the product `index` multiplies: (x, bias, the p before it, s, w) → operand."""
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left, index)
        next(left).copy_(self.multiplied(index, parameters, self.shifted(projected, bias, fields), products, fields))

    def operand_backward(self, index: int, *tensors: Tensor) -> None:
        """Go back through `operand`: (x, bias, the p before it, s, w, g_operand), added to: g_x, g_p, g_s, g_w."""
        left = iter(tensors)
        projected = next(left)
        bias = next(left) if self.biased else None
        products, fields, parameters = self.take_apart(left, index)
        g_operand = next(left)
        with torch.enable_grad():
            inner = [leaf(field) if place in self.moving else field for place, field in enumerate(fields)]
            weights = [leaf(weight) for weight in parameters]
            sources = [leaf(projected), *(leaf(product) for product in products)]
            result = self.multiplied(index, weights, self.shifted(sources[0], bias, inner), sources[1:], inner)
            leaves = [*sources, *(inner[place] for place in self.moving), *weights]
            found = torch.autograd.grad(result, leaves, g_operand.to(result.dtype), allow_unused=True)
        for target, value in zip(left, found, strict=True):
            if value is not None:
                target.add_(value)

    def take_apart(self, left: Iterator[Tensor], index: int | None = None) -> Iterator[list[Tensor]]:
        """Take the products (before the product `index`), the fields and the parameters."""
        products = len(self.form.operands) if index is None else index
        counts = (0 if self.form.additive else products, len(self.form.constant), len(self.form.parameters))
        return (take(left, count) for count in counts)

    def shifted(self, projected: Tensor, bias: Tensor | None, fields: Sequence[Tensor]) -> Tensor:
        """Return the projected input with its bias, in the type of the state."""
        projected = projected.to(fields[self.moving[0]].dtype)
        return projected if bias is None else projected + bias

    def step(
        self,
        parameters: Sequence[Tensor],
        projected: Tensor,
        products: Sequence[Tensor],
        fields: Sequence[Tensor],
        valid: Tensor | None,
    ) -> list[Tensor]:
        """Return the output, unless a field is it, and the moving fields after the step."""
        dtype = fields[self.moving[0]].dtype
        added = [torch.zeros_like(projected)] if self.form.additive else products
        wide = tuple(product.to(dtype) for product in added)
        state = unflatten(self.form.template, fields)
        output, after = self.view(parameters).combine(projected.to(dtype), wide, state)
        results = [] if self.form.output is not None else [output]
        new = flatten(after)
        for place in self.moving:
            value = new[place]
            if valid is not None:
                value = torch.where(valid.reshape(-1, *[1] * (value.dim() - 1)), value, fields[place])
            results.append(value)
        return results

    def multiplied(
        self,
        index: int,
        parameters: Sequence[Tensor],
        projected: Tensor,
        products: Sequence[Tensor],
        fields: Sequence[Tensor],
    ) -> Tensor:
        """Return what the product `index` multiplies, from the products before it."""
        before = tuple(product.to(projected.dtype) for product in products)
        state = unflatten(self.form.template, fields)
        found: Tensor = self.view(parameters).operand(index, projected, before, state)
        return found

    def view(self, parameters: Sequence[Tensor]) -> Any:
        """Return the cell with other tensors for its parameters."""
        return with_parameters(self.cell, dict(zip(self.form.parameters, parameters, strict=True)))


def take(left: Iterator[Tensor], count: int) -> list[Tensor]:
    """Take the next `count` tensors."""
    return list(islice(left, count))


def leaf(value: Tensor) -> Tensor:
    """Return a tensor with the same numbers at which a graph begins."""
    return value.detach().requires_grad_()


def differentiate(results: Sequence[Tensor], leaves: Sequence[Tensor], grads: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients at all `leaves`, zeros where nothing depends on them."""
    pairs = [(value, grad) for value, grad in zip(results, grads, strict=True) if value.requires_grad]
    values, weights = [value for value, _ in pairs], [grad.to(value.dtype) for value, grad in pairs]
    found = torch.autograd.grad(values, leaves, weights, allow_unused=True)
    return [torch.zeros_like(at) if value is None else value for at, value in zip(leaves, found, strict=True)]


def can_compile(device: torch.device) -> bool:
    """Return whether kernels are compiled on a device: not forbidden, not failed before, and a compiler is there."""
    if os.environ.get("RNNZOO_COMPILE") == "0" or _failures:
        return False
    return device.type != "cpu" or has_compiler()


@cache
def has_compiler() -> bool:
    """Return whether there is a C++ compiler, looked for once."""
    return "CXX" in os.environ or any(map(shutil.which, COMPILERS))


def bind(kernel: Kernel, mark: Any, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return `kernel`, compiled if tensors of these layouts have come often enough.

    Args:
        kernel: a method of `Kernels`.
        mark: what tells programs apart besides the layouts.
        tensors: as the kernel will get them; they are left alone.
        rows: for each whether, on a CPU, it may come with any number of rows, as many as all of these; they lie in one
            piece.
    """
    if os.environ.get("RNNZOO_COMPILE") == "0":
        return kernel
    rows = [any_rows and each.device.type == "cpu" for any_rows, each in zip(rows, tensors, strict=True)]
    code = (mark, tuple((value.dtype, value.device) for value in tensors), torch.get_num_threads())
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


def are_narrow(tensors: Sequence[Tensor]) -> bool:
    """Return whether compiled numbers are rounded less often than plain ones, by steps that one sees."""
    device = tensors[0].device.type
    return (
        any(value.dtype in (torch.bfloat16, torch.float16) for value in tensors)
        or torch.is_autocast_enabled(device)
        or (device == "cuda" and torch.backends.cuda.matmul.allow_tf32)
    )


def compile_kernel(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Compile a kernel for the shapes of `tensors`; return the plain one if that cannot be done."""
    try:
        return tried(in_cpp(kernel, tensors, rows), kernel, tensors, rows)
    except Exception as error:  # it does something that is not known there, which torch's compiler may know
        _log.debug("a kernel that is not in C++: %s: %s", type(error).__name__, error)
    try:
        return tried(by_torch(kernel, tensors, rows), kernel, tensors, rows)
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
            lines = str(error).strip().splitlines()
            warnings.warn(
                f"rnnzoo: no compiled kernels ({type(error).__name__}: {lines[0] if lines else ''}); "
                "plain torch runs instead, with the same numbers but slower; a C++ compiler is needed",
                stacklevel=2,
            )
        _failures.append(str(error))
        return kernel


def in_cpp(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a kernel in C++, for any number of rows.

    Raises:
        RefusedError: if it is none of those that can be had so.
    """
    if not any(rows) or any(each.device.type != "cpu" for each in tensors):
        raise rowgraph.RefusedError("no rows, or not on a CPU")
    cpp.load()
    if cpp.library() is None:
        raise rowgraph.RefusedError("no compiler")
    mode, examples = of_any_rows(drawn(tensors, rows, TRIED_ROWS[0]), rows)
    with mode:
        graph = traced(kernel, examples, rowgraph.decompositions())
    source = rowcode.source(graph, tensors, rows)
    if len(tensors) + len(source.constants) > cpp.MOST_PLACES:
        raise rowgraph.RefusedError("too many tensors")
    return Compiled(source, tensors, rows)


def by_torch(kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a kernel that torch's compiler makes."""
    examples = drawn(tensors, rows, TRIED_ROWS[0])
    mode, examples = of_any_rows(examples, rows) if any(rows) else (nullcontext(), examples)
    with mode:
        graph = traced(kernel, examples, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own parts
        code: Kernel = torch._inductor.compile(graph, list(examples))
    return code


def traced(kernel: Kernel, examples: Sequence[Tensor], decompositions: Mapping[Any, Any]) -> torch.fx.GraphModule:
    """Return the operations of a kernel."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own parts
        return make_fx(kernel, decomposition_table={**decompositions})(*examples)


def tried(found: Kernel, kernel: Kernel, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Kernel:
    """Return a compiled kernel that gives the numbers of the plain one.

    Raises:
        AssertionError: if it does not.
    """
    for count in (*TRIED_ROWS, 1) if any(rows) else TRIED_ROWS[:1]:
        for signed in (False, True)[: 1 if are_narrow(tensors) else 2]:  # of which differences may leave nothing
            plain, fast = (drawn(tensors, rows, count, signed=signed) for _ in range(2))
            kernel(*plain)
            found(*fast)
            check(fast, plain, share=ILL if signed else 0.0)
    return found


def of_any_rows(tensors: Sequence[Tensor], rows: Sequence[bool]) -> tuple[AbstractContextManager[Any], list[Tensor]]:
    """Return tensors without numbers that stand for these, with any number of rows where they may have it.

    The context is that in which others are made like them.
    """
    from torch._dynamo.source import ConstantSource
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=False, allow_non_fake_inputs=True)

    def stand_in(place: int, tensor: Tensor) -> Tensor:
        kinds = [DimDynamic.STATIC] * tensor.dim()
        if rows[place]:
            kinds[0] = DimDynamic.DUCK  # all that have one size now have the same later
        context: Any = StatelessSymbolicContext(dynamic_sizes=kinds)
        return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(f"tensor_{place}"))

    return mode, [stand_in(place, tensor) for place, tensor in enumerate(tensors)]


def drawn(tensors: Sequence[Tensor], rows: Sequence[bool], count: int, *, signed: bool = False) -> list[Tensor]:
    """Return tensors like these to try a kernel on, with random numbers, for some of these hold none yet.

    They share no memory, and lie in it as these do, which compiled code trusts; some have `count` rows. Numbers are
    from 0.1 to 1.1, as `examine` draws them, of which all functions have a value; or, `signed`, to both sides of 0,
    for what is done on one side alone.
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
    rtol, atol = (2e-2, 2e-2) if are_narrow(expected) else (1e-3, 1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        sizes = theirs.double().nan_to_num(0, 0, 0).abs()
        scale = max(1.0, sizes.max().item()) if sizes.numel() else 1.0
        close = torch.isclose(ours, theirs, rtol=rtol, atol=atol * scale, equal_nan=True)
        if int((~close).sum()) > share * close.numel():
            torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol * scale, equal_nan=True)
