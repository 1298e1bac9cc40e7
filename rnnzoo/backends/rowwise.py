"""Row-wise kernels in C++: one pass over each row, in which no result between the first and the last one is stored.

A kernel (`rnnzoo.backends.kernels`) is traced as a graph of torch's operations, whose numbers are followed one by one:
a tensor is told by the names of its numbers in a row, so that what only moves numbers (slices, joints, views) is done
by torch itself, on names, and nothing is left of it in the code. What computes runs over pieces of a row, in vectors.
A graph with an operation that is not known here, or that mixes rows other than by a sum, is refused.

Axes: R rows, W numbers of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.backends.cpp import VECTORS

aten = torch.ops.aten

MOST_PIECES = 64  # of a row, and of what is computed from it: more would be a long program
LEAST_WIDTH = 16  # numbers of a piece that is worth a loop of its own where pieces of other sizes are cut to it
MOST_CUTS = 8  # into which a piece is cut for that
MOST_SAVED = 2**16  # numbers of a row that one loop leaves for another one
PRELUDE = (
    VECTORS
    + """
#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

INLINE float as_float(int32_t x) { float y; std::memcpy(&y, &x, 4); return y; }
INLINE int32_t as_bits(float x) { int32_t y; std::memcpy(&y, &x, 4); return y; }

// a or b. A conditional expression may become a branch around what only one of them needs, without vectors.
INLINE float chosen(bool first, float a, float b) {
    const int32_t mask = -static_cast<int32_t>(first);
    return as_float((as_bits(a) & mask) | (as_bits(b) & ~mask));
}
INLINE bool chosen(bool first, bool a, bool b) { return (first & a) | (!first & b); }

// exp(x) for -88 < x < 89.5, by a polynomial of the part of x that no power of two stands for.
INLINE float power(float x) {
    const float n = __builtin_nearbyintf(x * 1.44269504f);
    const float r = __builtin_fmaf(n, 2.12194440e-4f, __builtin_fmaf(n, -0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r + 1.0f);
    return p * as_float((static_cast<int32_t>(n) + 126) * (1 << 23)) * 2.0f;
}

INLINE float exponential(float x) {
    x = x < -87.3f ? -87.3f : x;
    x = x > 89.4f ? 89.4f : x;
    return power(x);
}

INLINE float logistic(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    return 1.0f / (1.0f + power(-x));
}

// log(x) for x that are not subnormal.
INLINE float logarithm(float x) {
    const int32_t high = static_cast<int32_t>(static_cast<uint32_t>(as_bits(x)) - 0x3f3504f3u) >> 23;
    const float m = as_float(as_bits(x) - high * (1 << 23)) - 1.0f, n = static_cast<float>(high), square = m * m;
    float p = 7.0376836292e-2f;
    p = __builtin_fmaf(p, m, -1.1514610310e-1f);
    p = __builtin_fmaf(p, m, 1.1676998740e-1f);
    p = __builtin_fmaf(p, m, -1.2420140846e-1f);
    p = __builtin_fmaf(p, m, 1.4249322787e-1f);
    p = __builtin_fmaf(p, m, -1.6668057665e-1f);
    p = __builtin_fmaf(p, m, 2.0000714765e-1f);
    p = __builtin_fmaf(p, m, -2.4999993993e-1f);
    p = __builtin_fmaf(p, m, 3.3333331174e-1f);
    const float tail = __builtin_fmaf(n, -2.12194440e-4f, __builtin_fmaf(-0.5f, square, p * m * square));
    float y = __builtin_fmaf(n, 0.693359375f, m + tail);
    y = chosen((x == __builtin_inff()) | (x != x), x, y);
    y = chosen(x == 0.0f, -__builtin_inff(), y);
    return chosen(x < 0.0f, __builtin_nanf(""), y);
}

INLINE float logarithm_of_more(float x) {  // log(1 + x), also of small x
    const float u = 1.0f + x;
    const float y = chosen(u == __builtin_inff(), u, logarithm(u) * (x / (u - 1.0f)));
    return chosen(u == 1.0f, x, y);
}

}  // namespace
"""
)


# Of what computes number by number. Not-a-numbers stay what they are; nothing branches, for then there are no vectors.
CODE = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "reciprocal": "1.0f / {0}",
    "sqrt": "__builtin_sqrtf({0})",
    "rsqrt": "1.0f / __builtin_sqrtf({0})",
    "abs": "__builtin_fabsf({0})",
    "exp": "exponential({0})",
    "log": "logarithm({0})",
    "log1p": "logarithm_of_more({0})",
    "sigmoid": "logistic({0})",
    "tanh": "2.0f * logistic(2.0f * {0}) - 1.0f",  # off by 2e-7 at most
    "relu": "chosen({0} < 0.0f, 0.0f, {0})",
    "maximum": "chosen(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "chosen(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "where": "chosen({0}, {1}, {2})",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "logical_not": "!{0}",
}
TRUTHS = {"gt", "ge", "lt", "le", "eq", "ne", "logical_and", "logical_or", "logical_not"}
MOVES = {
    "alias", "cat", "clone", "detach", "expand", "lift_fresh_copy", "permute", "select", "slice", "slice_scatter",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
}  # fmt: skip
FILLED = {"full", "full_like", "ones_like", "scalar_tensor", "zeros_like"}
WHOLE = {"full", "scalar_tensor", "where"}  # may be of whole numbers, if few: a float has them too


def kind_of(at: Any) -> str:
    """Return the name of an operation of a graph, without that of its variant."""
    name = str(at.target)
    return name.split(".")[1] if name.startswith("aten.") else getattr(at.target, "__name__", name)


class RefusedError(Exception):
    """A kernel that is none of those that this module knows."""


class Node(NamedTuple):
    """Some numbers that are the same sum, read, or computed in the same way.

    Args:
        kind: "read", "constant", "sum", or a key of `CODE`.
        of: the place of the tensor that is read; a constant; of a sum, how many numbers each of its parts has.
        parts: what it is computed from.
    """

    kind: str
    of: Any
    parts: tuple[Piece, ...] = ()


class Piece(NamedTuple):
    """Numbers of a node, one after another: from `first` on, or all the same one if `step` is 0."""

    node: int
    first: int
    step: int


@dataclass
class Value:
    """A tensor in the graph: the names of its numbers, of one row; a name is a node and a place in it.

    Args:
        names: in the shape of the tensor, its rows taken for one.
        summed: whether it is the sum of all rows.
    """

    names: Tensor
    summed: bool = False


class Store(NamedTuple):
    """What is written: `width` numbers of a row of a tensor, from `first` on."""

    target: int
    first: int
    piece: Piece
    width: int
    summed: bool


class Source(NamedTuple):
    """A kernel in C++.

    Args:
        code: defines ``kernel(at, rows, thread, threads)``, which does the part of one thread.
        sums: places of the tensors to which sums over all rows are added, by each thread in memory of its own.
        constants: tensors of the graph itself, whose places come after those of the given ones.
    """

    code: str
    sums: tuple[int, ...]
    constants: list[Tensor]


NAME = 32  # bits of a place


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return how operations are traced as simpler ones."""
    from torch._decomp import core_aten_decompositions

    return {**core_aten_decompositions(), aten.native_layer_norm.default: layer_norm}


def layer_norm(
    value: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, least: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what ``native_layer_norm`` does: normalised numbers, means, and 1 / deviations."""
    axes = list(range(-len(shape), 0))
    mean = value.mean(axes, keepdim=True)
    centred = value - mean
    scale = ((centred * centred).mean(axes, keepdim=True) + least).rsqrt()
    found = centred * scale
    found = found if weight is None else found * weight
    return found if bias is None else found + bias, mean, scale


def source(graph: torch.fx.GraphModule, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Source:
    """Return the kernel that does what a graph does.

    Args:
        graph: with any number of rows (`rnnzoo.backends.kernels.of_any_rows`).
        tensors: such as it is given.
        rows: for each of them whether it has rows.

    Raises:
        RefusedError: if there is something that is not known here.
    """
    reader = Reader(graph, tensors, rows)
    reader.read()
    sums = {each.target for each in reader.stores if each.summed}
    return Source(Writer(reader).code(), tuple(sorted(sums)), reader.constants)


class Reader:
    """Follows the numbers of a row through a graph."""

    def __init__(self, graph: torch.fx.GraphModule, tensors: Sequence[Tensor], rows: Sequence[bool]) -> None:
        self.graph = graph
        self.tensors = [*tensors]
        self.rows = [*rows]
        self.constants: list[Tensor] = []
        self.nodes: list[Node] = []
        self.known: dict[Node, int] = {}
        self.node("constant", 0.0)  # its name is 0, so that what torch pads with zeros has the right one
        self.values: dict[Any, Any] = {}
        self.places: dict[Any, int] = {}  # of the tensors that are given
        self.stores: list[Store] = []

    def node(self, kind: str, of: Any, parts: Sequence[Piece] = ()) -> int:
        """Return the number of a node."""
        node = Node(kind, of, tuple(parts))
        if node not in self.known:
            self.known[node] = len(self.nodes)
            self.nodes.append(node)
        return self.known[node]

    def size(self, place: int) -> int:
        """Return how many numbers of a tensor belong to a row."""
        tensor = self.tensors[place]
        return math.prod(tensor.shape[1:] if self.rows[place] else tensor.shape)

    def read(self) -> None:
        """Find out what is written in the end."""
        for at in self.graph.graph.nodes:
            if at.op == "placeholder":
                self.places[at] = len(self.places)
                self.values[at] = self.given(self.places[at])
            elif at.op == "get_attr":
                tensor = getattr(self.graph, at.target)
                if type(tensor) not in (Tensor, torch.nn.Parameter):
                    raise RefusedError("a constant without numbers")
                self.constants.append(tensor)
                self.tensors.append(tensor)
                self.rows.append(False)
                self.values[at] = self.given(len(self.tensors) - 1)
            elif at.op == "call_function":
                self.values[at] = self.call(at)

    def given(self, place: int) -> Value:
        """Return the names of a tensor that is read."""
        tensor, rows = self.tensors[place], self.rows[place]
        if tensor.dtype not in (torch.float32, torch.bool) or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise RefusedError(f"a tensor of {tensor.dtype} on {tensor.device}, or not in one piece")
        names = (self.node("read", place) << NAME) + torch.arange(self.size(place), device="cpu")
        return Value(names.reshape(1, *tensor.shape[1:]) if rows else names.reshape(tensor.shape))

    def call(self, at: Any) -> Any:
        """Return the value of an operation."""
        kind = kind_of(at)
        if isinstance(at.meta["val"], torch.SymInt):
            return Rows(at.meta["val"])
        shaped = kind in MOVES or kind in FILLED
        given = [self.value(each, sizes=shaped) for each in at.args]
        options = {name: self.value(each, sizes=shaped) for name, each in at.kwargs.items()}
        if kind in ("copy_", "add_") and at.args[0] in self.places:
            return self.store(self.places[at.args[0]], kind, *given, **options)
        if kind == "getitem":
            return given[0][given[1]]
        if kind in MOVES:
            found = self.move(at, given)
        elif kind in FILLED:
            found = self.filled(kind, given)
        elif kind in ("sum", "mean"):
            return self.sum(at, kind, *given)
        elif kind == "clamp":
            found = self.clamp(*given, **options)
        elif kind == "pow":
            found = self.pow(*given)
        elif kind == "_to_copy":
            found = given[0]
        elif kind == "copy_" and self.alone(at.args[0], at):
            found = given[1]
        elif kind in CODE:
            alpha = options.pop("alpha", 1)
            if options:
                raise RefusedError(f"the operation {at.target} with {', '.join(options)}")
            if alpha != 1:
                given[1] = self.compute("mul", given[1], alpha)
            found = self.compute(kind, *given)
        else:
            raise RefusedError(f"the operation {at.target}")
        self.check(at, found)
        return found

    def value(self, argument: Any, *, sizes: bool) -> Any:
        """Return an argument of an operation: a value, a number, or a list of some; how many rows only as a size."""
        if isinstance(argument, list | tuple):
            return [self.value(each, sizes=sizes) for each in argument]
        found = Rows(argument) if isinstance(argument, torch.SymInt) else argument
        if isinstance(argument, torch.fx.Node):
            found = self.values[argument]
            written = {each.target for each in self.stores}
            if found is None or self.places.get(argument) in written:
                raise RefusedError("a tensor that is read after it was written")
        if isinstance(found, Rows):
            if not (sizes and found.size.node.expr.is_Symbol):
                raise RefusedError("numbers made from that of the rows")
            return 1
        return found

    def check(self, at: Any, found: Any) -> None:
        """Refuse a tensor that has rows elsewhere than first, or whose type is not known here."""
        shapes, values = (given if isinstance(given, list | tuple) else [given] for given in (at.meta["val"], found))
        for real, value in zip(shapes, values, strict=True):
            shape = [1 if isinstance(size, torch.SymInt) else size for size in real.shape]
            if any(isinstance(size, torch.SymInt) for size in real.shape[1:]) or list(value.names.shape) != shape:
                raise RefusedError("rows that are not the first axis")
            if real.dtype not in (torch.float32, torch.bool) and kind_of(at) not in WHOLE:
                raise RefusedError(f"numbers in {real.dtype}")

    def alone(self, at: Any, by: Any) -> bool:
        """Return whether a result that one operation writes to has memory of its own, which no other will read."""
        others = [user for user in at.users if user is not by]
        return kind_of(at) in CODE and all(user in self.values and kind_of(user) not in MOVES for user in others)

    def move(self, at: Any, given: Sequence[Any]) -> Any:
        """Return the value of an operation that moves numbers: torch moves their names."""
        names: list[Any] = [
            [part.names if isinstance(part, Value) else part for part in each] if isinstance(each, list)
            else each.names if isinstance(each, Value) else each
            for each in given
        ]  # fmt: skip
        values = [part for each in given for part in (each if isinstance(each, list) else [each])]
        values = [each for each in values if isinstance(each, Value)]
        summed = any(each.summed for each in values)
        if summed and not all(each.summed or not each.names.any() for each in values):
            raise RefusedError("a sum over the rows beside other numbers")
        found = at.target(*names)
        return [Value(each, summed) for each in found] if isinstance(found, list | tuple) else Value(found, summed)

    def filled(self, kind: str, given: Sequence[Any]) -> Value:
        """Return a tensor of one number."""
        number = {"zeros_like": 0.0, "ones_like": 1.0, "scalar_tensor": given[0]}.get(kind, given[-1])
        shape = [] if kind == "scalar_tensor" else given[0] if kind == "full" else given[0].names.shape
        return Value(torch.full(shape, self.constant(number), device="cpu"))

    def constant(self, number: float) -> int:
        """Return the name of a number."""
        return self.node("constant", float(number)) << NAME

    def compute(self, kind: str, *given: Any) -> Value:
        """Return what is computed number by number."""
        values = [
            each if isinstance(each, Value) else Value(torch.tensor(self.constant(each), device="cpu"))
            for each in given
        ]
        summed = any(each.summed for each in values)
        if summed and not self.linear(kind, values):
            raise RefusedError("a sum over the rows from which something else is computed")
        every = torch.broadcast_tensors(*(each.names for each in values))
        names = torch.stack([each.reshape(-1) for each in every])
        found = torch.empty_like(names[0])
        for start, stop, pieces in self.pieces(names):
            same = {"add": (0, 1), "sub": (1,), "mul": (), "div": ()}.get(kind, ())
            neutral = [place for place in same if pieces[place].node == 0]
            if neutral:  # x + 0, x - 0
                found[start:stop] = names[1 - neutral[0], start:stop]
                continue
            if kind in ("mul", "div") and pieces[1] == Piece(self.node("constant", 1.0), 0, 0):
                found[start:stop] = names[0, start:stop]
                continue
            wide = any(piece.step for piece in pieces)
            node = self.node(kind, None if wide else 1, pieces) << NAME
            found[start:stop] = node + torch.arange(stop - start, device="cpu") if wide else node
        return Value(found.reshape(every[0].shape), summed)

    def linear(self, kind: str, values: Sequence[Value]) -> bool:
        """Return whether the sum of what is computed is what is computed from sums."""
        alone = [each for each in values if not each.summed]
        if kind in ("add", "sub"):
            return not any(each.names.any() for each in alone)
        if kind in ("mul", "div"):
            return len(alone) == 1 and values[0].summed | (kind == "mul") and not any(map(self.has_rows, alone))
        return kind == "neg"

    def has_rows(self, value: Value) -> bool:
        """Return whether a value differs from row to row."""
        left, seen = set((value.names >> NAME).flatten().tolist()), set[int]()
        while left - seen:
            number = (left - seen).pop()
            seen.add(number)
            node = self.nodes[number]
            if node.kind == "read" and self.rows[node.of]:
                return True
            left |= {part.node for part in node.parts}
        return False

    def pieces(self, names: Tensor) -> list[tuple[int, int, list[Piece]]]:
        """Cut names [K, W] into stretches in which each of the K follows itself, or stays the same."""
        width = names.shape[1]
        steps = names.diff(dim=1)  # [K, W - 1]
        broken = ((steps != 0) & (steps != 1)).any(0)
        turns = torch.zeros_like(broken)
        turns[1:] = (steps[:, 1:] != steps[:, :-1]).any(0)
        starts = [0]
        for place in (broken | turns).nonzero().flatten().tolist():
            if broken[place] or place > starts[-1]:
                starts.append(place + 1)
            if len(starts) > MOST_PIECES:
                raise RefusedError("a row in too many pieces")
        found = []
        for start, stop in zip(starts, [*starts[1:], width], strict=True):
            firsts = names[:, start].tolist()
            step = steps[:, start].tolist() if stop - start > 1 else [0] * len(names)
            pieces = [Piece(name >> NAME, name & (1 << NAME) - 1, by) for name, by in zip(firsts, step, strict=True)]
            found.append((start, stop, pieces))
        return found

    def sum(self, at: Any, kind: str, value: Value, axes: Any = (), keepdim: bool = False) -> Value:
        """Return sums or means along some axes."""
        shape = at.args[0].meta["val"].shape
        along = sorted(axis % len(shape) for axis in axes or range(len(shape)))
        over_rows = isinstance(shape[0], torch.SymInt) and 0 in along
        if value.summed or (over_rows and kind == "mean"):
            raise RefusedError("a sum of sums over the rows")
        names, inner = value.names, [axis for axis in along if axis or not over_rows]
        if inner:
            names = names.movedim(inner, list(range(-len(inner), 0)))
            kept = names.shape[: -len(inner)]
            count = math.prod(names.shape[-len(inner) :])
            lines = names.reshape(-1, count)
            if len(lines) > MOST_PIECES:
                raise RefusedError("too many sums")
            names = torch.tensor([self.added_up(line) for line in lines], device="cpu").reshape(kept)
            for axis in inner:
                names = names.unsqueeze(axis)
            if kind == "mean":
                names = self.compute("mul", Value(names), 1 / count).names
        gone = [] if keepdim else along
        found = Value(names.reshape([size for axis, size in enumerate(names.shape) if axis not in gone]), over_rows)
        self.check(at, found)
        return found

    def added_up(self, names: Tensor) -> int:
        """Return the name of the sum of some numbers [W]."""
        parts = self.pieces(names[None])
        return (
            self.node("sum", tuple(stop - start for start, stop, _ in parts), [each[0] for *_, each in parts]) << NAME
        )

    def clamp(self, value: Value, least: float | None = None, most: float | None = None, **more: Any) -> Value:
        """Return numbers within bounds."""
        least, most = more.get("min", least), more.get("max", most)
        for bound, kind in ((least, "lt"), (most, "gt")):
            if bound is not None:
                value = self.compute("where", self.compute(kind, value, bound), bound, value)
        return value

    def pow(self, value: Value, exponent: float) -> Value:
        """Return powers."""
        if exponent == 0.5:
            return self.compute("sqrt", value)
        if exponent == -0.5:
            return self.compute("rsqrt", value)
        if not isinstance(value, Value) or exponent not in (1, 2, 3, 4, -1, -2):
            raise RefusedError(f"a power of {exponent}")
        found = value
        for _ in range(int(abs(exponent)) - 1):
            found = self.compute("mul", found, value)
        return found if exponent > 0 else self.compute("reciprocal", found)

    def store(self, place: int, kind: str, target: Value, value: Any, alpha: float = 1, **_: Any) -> None:
        """Note what is written to a tensor that was given."""
        if not isinstance(value, Value):
            value = self.filled("full_like", [target, value])
        if value.summed != (not self.rows[place]) or (value.summed and kind == "copy_"):
            raise RefusedError("a tensor without rows that is written to")
        if kind == "add_" and alpha != 1:
            value = self.compute("mul", value, alpha)
        if kind == "add_" and not value.summed:
            value = self.compute("add", target, value)
        names = torch.stack([target.names.reshape(-1), value.names.expand(target.names.shape).reshape(-1)])
        for start, stop, (to, piece) in self.pieces(names):
            self.stores.append(Store(place, to.first, piece, stop - start, value.summed))


@dataclass
class Rows:
    """A size that the number of rows decides."""

    size: torch.SymInt


class Term(NamedTuple):
    """A node, or a stretch of one, as it stands in the code.

    Args:
        kind: as of a node.
        of: of what is read, the place of the tensor and of its first number; a constant.
        parts: terms that it is computed from.
        width: numbers; 1 is one for the whole row.
    """

    kind: str
    of: Any
    parts: tuple[int, ...]
    width: int


class Job(NamedTuple):
    """What a loop over `width` numbers does with a term: store it, or add it to a sum."""

    term: int
    width: int
    store: Store | None
    sum: int = 0


class Writer:
    """Writes the code of what a reader has found."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.terms: list[Term] = []
        self.known: dict[Term, int] = {}
        self.unit = self.common_width()
        self.lines: list[str] = []
        self.named: set[int] = set()  # terms that have a variable where the code stands now
        self.saved: set[int] = set()  # those that later loops read again
        self.kept: set[int] = set()  # of these, those that were written

    def common_width(self) -> int:
        """Return the numbers of a piece into which all others can be cut, so that one loop does for all; or 0."""
        widths = {each.width for each in self.reader.stores}
        for node in self.reader.nodes:
            if node.kind == "sum":
                widths.update(node.of)
        widths.discard(1)
        unit = math.gcd(*widths)
        return unit if unit >= LEAST_WIDTH and max(widths) // unit <= MOST_CUTS else 0

    def cut(self, piece: Piece, width: int) -> list[tuple[int, Piece, int]]:
        """Return the pieces of a piece, each with its distance from the first number and its width."""
        if width == 1 or not self.unit:
            return [(0, piece, width)]
        return [
            (start, piece._replace(first=piece.first + start * piece.step), self.unit)
            for start in range(0, width, self.unit)
        ]

    def term(self, piece: Piece, width: int) -> int:
        """Return the number of the term that is `width` numbers of a node."""
        node = self.reader.nodes[piece.node]
        width = width if piece.step else 1
        if node.kind == "read":
            found = Term("read", (node.of, piece.first), (), width)
        elif node.kind == "constant":
            found = Term("constant", node.of, (), 1)
        elif node.kind == "sum":
            parts = []
            for part, size in zip(node.parts, node.of, strict=True):
                for _, each, count in self.cut(part, size):
                    term = self.term(each, count)
                    if count > 1 and self.terms[term].width == 1:  # the same number, so many times
                        term = self.add(Term("mul", None, (term, self.add(Term("constant", float(count), (), 1))), 1))
                    parts.append(term)
            found = Term("sum", None, tuple(parts), 1)
        else:
            moved = (Piece(at, first + piece.first * step, step * piece.step) for at, first, step in node.parts)
            terms = tuple(self.term(each, width) for each in moved)
            found = Term(node.kind, None, terms, max(self.terms[each].width for each in terms))
        return self.add(found)

    def add(self, term: Term) -> int:
        """Return the number of a term."""
        if term not in self.known:
            self.known[term] = len(self.terms)
            self.terms.append(term)
        return self.known[term]

    def turn(self, number: int) -> int:
        """Return in which turn over the row a term can be computed: after that in which its sums are added up."""
        if number not in self.turns:
            term = self.terms[number]
            self.turns[number] = max((self.turn(each) for each in term.parts), default=0) + (term.kind == "sum")
        return self.turns[number]

    def jobs(self) -> dict[tuple[int, int], list[Job]]:
        """Return what each loop does, by its turn and its width."""
        found = []
        for store in self.reader.stores:
            for start, piece, width in self.cut(store.piece, store.width):
                found.append(Job(self.term(piece, width), width, store._replace(first=store.first + start)))
        self.turns: dict[int, int] = {}
        for number, term in enumerate(self.terms):
            if term.kind == "sum":
                found += [Job(each, self.terms[each].width, None, number) for each in term.parts]
        loops: dict[tuple[int, int], list[Job]] = {}
        for job in found:
            loops.setdefault((self.turn(job.term), job.width), []).append(job)
        return dict(sorted(loops.items()))

    def code(self) -> str:
        """Return the code."""
        loops = self.jobs()
        self.find_saved(loops)
        for (_, width), jobs in loops.items():
            self.loop(width, jobs)
        reader = self.reader
        used = {term.of[0] for term in self.terms if term.kind == "read"} | {each.target for each in reader.stores}
        sums = {each.target for each in reader.stores if each.summed}
        before, inside = list[str](), list[str]()
        for place in sorted(used):
            number = "bool" if reader.tensors[place].dtype == torch.bool else "float"
            here = inside if reader.rows[place] else before
            step = "row" if reader.rows[place] else "thread" if place in sums else "0"
            here.append(
                f"{number}* const a{place} = static_cast<{number}*>(at[{place}]) + {step} * {reader.size(place)};"
            )
        size = sum(self.terms[each].width for each in self.kept)
        if size > MOST_SAVED:
            raise RefusedError("too much that is computed in one loop and read in another one")
        before += [f"float s{each}[{self.terms[each].width}];" for each in sorted(self.kept)]
        inside += [f"float v{number} = 0.0f;" for number, term in enumerate(self.terms) if term.kind == "sum"]
        lines = [
            'extern "C" void kernel(void* const* at, int64_t rows, int64_t thread, int64_t threads) {',
            *before,
            "const int64_t last = rows * (thread + 1) / threads;",
            "for (int64_t row = rows * thread / threads; row < last; row++) {",
            *inside,
            *self.lines,
            "}",
            "}",
        ]
        return PRELUDE + "\n".join(lines) + "\n"

    def find_saved(self, loops: dict[tuple[int, int], list[Job]]) -> None:
        """Find what a loop computes that a later one needs again."""
        done: set[int] = set()
        for (_, width), jobs in loops.items():
            here: set[int] = set()
            left = [job.term for job in jobs if width > 1]
            while left:
                number = left.pop()
                term = self.terms[number]
                if term.width == 1 or term.kind == "read" or number in here:
                    continue
                if number in done and term.kind not in TRUTHS:
                    self.saved.add(number)
                    continue
                here.add(number)
                left += term.parts
            done |= here

    def loop(self, width: int, jobs: Sequence[Job]) -> None:
        """Write a loop, after the numbers that are the same for the whole row."""
        for job in jobs:
            self.name_scalars(job.term)
        outside = set(self.named)
        if width > 1:
            sums = ", ".join(sorted({f"v{job.sum}" for job in jobs if job.store is None}))
            self.lines.append("#pragma omp simd" + (f" reduction(+ : {sums})" if sums else ""))
            self.lines.append(f"for (int64_t j = 0; j < {width}; j++) {{")
        for job in jobs:
            self.name(job.term)
            found = self.variable(job.term)
            if job.store is None:
                self.lines.append(f"v{job.sum} += {found};")
            else:
                place = f"a{job.store.target}[{job.store.first}{' + j' if width > 1 else ''}]"
                self.lines.append(f"{place} {'+=' if job.store.summed else '='} {found};")
        if width > 1:
            self.lines.append("}")
            self.named = outside

    def name_scalars(self, number: int) -> None:
        """Give variables to all that is the same for the whole row and that a term needs."""
        seen: set[int] = set()

        def visit(number: int) -> None:
            if number in seen:
                return
            seen.add(number)
            term = self.terms[number]
            if term.kind == "sum":
                return
            for each in term.parts:
                visit(each)
            if term.width == 1:
                self.name(number)

        visit(number)

    def name(self, number: int) -> None:
        """Give a variable to a term, after those that it is computed from."""
        term = self.terms[number]
        if number in self.named or term.kind in ("constant", "sum"):
            return
        self.named.add(number)
        along = " + j" if term.width > 1 else ""
        if number in self.kept:
            self.lines.append(f"const float v{number} = s{number}[j];")
            return
        if term.kind == "read":
            self.lines.append(f"const auto v{number} = a{term.of[0]}[{term.of[1]}{along}];")
            return
        for each in term.parts:
            self.name(each)
        self.lines.append(f"const auto v{number} = {CODE[term.kind].format(*map(self.variable, term.parts))};")
        if number in self.saved and term.width > 1:
            self.kept.add(number)
            self.lines.append(f"s{number}[j] = v{number};")

    def variable(self, number: int) -> str:
        """Return the variable of a term, or its constant."""
        term = self.terms[number]
        if term.kind != "constant":
            return f"v{number}"
        if math.isnan(term.of):
            return '__builtin_nanf("")'
        return f"({term.of!r}f)" if math.isfinite(term.of) else f"({'-' * (term.of < 0)}__builtin_inff())"
