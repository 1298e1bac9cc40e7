"""Which numbers of a row a kernel computes from which: its graph of torch's operations, followed number by number.

A kernel is traced (`rnnzoo.kernels.compile.trace`) with any number of rows. A tensor is told by the names of its
numbers in one row, so that what only moves numbers (slices, joints, views) is done by torch itself, on names, and
nothing is left of it. What computes is noted in pieces of a row. A graph with an operation that is not known here, or
that mixes rows other than by a sum, is refused.

Axes: R rows, W numbers of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnnzoo.kernels.compile.cpp_math import ALIKE, BOOLEAN_FUNCTIONS, BOOLEAN_RESULTS, CODE
from rnnzoo.kernels.compile.row_nodes import Node, Piece, RefusedError, Store, SymbolicSize, Value

aten = torch.ops.aten

MOST_PIECES = 64  # of a row, and of what is computed from it: more would be a long program
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


NAME = 32  # bits of a place


class Reader:
    """Follows the numbers of a row through a graph."""

    def __init__(self, graph: torch.fx.GraphModule, tensors: Sequence[Tensor], rows: Sequence[bool]) -> None:
        self.graph = graph
        self.tensors = [*tensors]
        self.rows = [*rows]
        self.constants: list[Tensor] = []
        self.nodes: list[Node] = []
        self.known: dict[Node, int] = {}
        self.true: list[bool] = []  # for each node whether its numbers are booleans, which are no numbers in C++
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
            self.true.append(kind in BOOLEAN_RESULTS or (kind == "read" and self.tensors[of].dtype == torch.bool))
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
        kind = ALIKE.get(kind_of(at), kind_of(at))
        if isinstance(at.meta["val"], torch.SymInt):
            return SymbolicSize(at.meta["val"])
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
            found = self.filled(at, kind, given)
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
        elif kind in CODE and (not kind_of(at).endswith("_") or self.alone(at.args[0], at)):
            alpha = options.pop("alpha", 1)
            if options:
                raise RefusedError(f"the operation {at.target} with {', '.join(options)}")
            if alpha != 1:
                given[1] = self.compute("mul", given[1], alpha)
            found = self.compute(kind, *given)
        else:
            raise RefusedError(f"the operation {at.target}")
        self.check(at, found)
        if isinstance(found, Value):
            found = self.typed(found, true=at.meta["val"].dtype == torch.bool)
        return found

    def typed(self, value: Value, *, true: bool) -> Value:
        """Return numbers, or booleans, of a value that may have either; of a boolean the number is 0 or 1."""
        nodes = (value.names >> NAME).unique().tolist()
        if all(self.true[each] == true for each in nodes):
            return value
        names = value.names.reshape(1, -1)
        found = torch.empty_like(names[0])
        for start, stop, (piece,) in self.pieces(names):
            if self.true[piece.node] == true:
                found[start:stop] = names[0, start:stop]
                continue
            parts = [piece, Piece(0, 0, 0)] if true else [piece]
            node = self.node("ne" if true else "number", None if piece.step else 1, parts) << NAME
            found[start:stop] = node + torch.arange(stop - start, device="cpu") * piece.step
        return Value(found.reshape(value.names.shape), value.summed)

    def value(self, argument: Any, *, sizes: bool) -> Any:
        """Return an argument of an operation: a value, a number, or a list of some; how many rows only as a size."""
        if isinstance(argument, list | tuple):
            return [self.value(each, sizes=sizes) for each in argument]
        found = SymbolicSize(argument) if isinstance(argument, torch.SymInt) else argument
        if isinstance(argument, torch.fx.Node):
            found = self.values[argument]
            written = {each.target for each in self.stores}
            if found is None or self.places.get(argument) in written:
                raise RefusedError("a tensor that is read after it was written")
        if isinstance(found, SymbolicSize):
            if not (sizes and found.size.node.expr.is_Symbol):
                raise RefusedError("numbers made from that of the rows")
            return 1
        return found

    def check(self, at: Any, found: Any) -> None:
        """Refuse a tensor that has rows elsewhere than first, or whose type is not known here."""
        shapes, values = (given if isinstance(given, list | tuple) else [given] for given in (at.meta["val"], found))
        for real, value in zip(shapes, values, strict=True):
            rows = [isinstance(size, torch.SymInt) for size in real.shape]
            shape = [1 if any_rows else size for size, any_rows in zip(real.shape, rows, strict=True)]
            if any(rows[1:]) or list(value.names.shape) != shape:
                raise RefusedError("rows that are not the first axis")
            if any(rows) and not real.shape[0].node.expr.is_Symbol:
                raise RefusedError("some of the rows")
            if not any(rows) and not value.summed and self.has_rows(value):
                raise RefusedError("one row that others look at")
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
        if isinstance(found, list | tuple):
            return [Value(each.contiguous(), summed) for each in found]
        return Value(found.contiguous(), summed)

    def filled(self, at: Any, kind: str, given: Sequence[Any]) -> Value:
        """Return a tensor of one number."""
        number = {"zeros_like": 0.0, "ones_like": 1.0, "scalar_tensor": given[0]}.get(kind, given[-1])
        if not at.meta["val"].dtype.is_floating_point:
            number = bool(number) if at.meta["val"].dtype == torch.bool else int(number)
        shape = [] if kind == "scalar_tensor" else given[0] if kind == "full" else given[0].names.shape
        return Value(torch.full(shape, self.constant(number), device="cpu"))

    def constant(self, number: float) -> int:
        """Return the name of a number."""
        if number == 0 and math.copysign(1, number) < 0:  # as a key it would be 0
            return self.node("neg", 1, [Piece(0, 0, 0)]) << NAME
        return self.node("constant", float(number)) << NAME

    def compute(self, kind: str, *given: Any) -> Value:
        """Return what is computed number by number; x + 0 is x, also for the zero below 0."""
        values = [
            each if isinstance(each, Value) else Value(torch.tensor(self.constant(each), device="cpu"))
            for each in given
        ]
        values = [
            self.typed(each, true=kind in BOOLEAN_FUNCTIONS or (kind == "where" and place == 0))
            for place, each in enumerate(values)
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
        over_rows = 0 in along and isinstance(shape[0], torch.SymInt)
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
        for bound, kind in ((least, "maximum"), (most, "minimum")):
            value = value if bound is None else self.compute(kind, value, bound)
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
            value = Value(torch.full_like(target.names, self.constant(value)))
        if kind == "add_" and not value.names.any():
            return
        if value.summed != (not self.rows[place]) or (value.summed and kind == "copy_"):
            raise RefusedError("a tensor without rows that is written to")
        if kind == "add_" and alpha != 1:
            value = self.compute("mul", value, alpha)
        if kind == "add_" and not value.summed:
            value = self.compute("add", target, value)
        value = self.typed(value, true=self.tensors[place].dtype == torch.bool)
        names = torch.stack([target.names.reshape(-1), value.names.expand(target.names.shape).reshape(-1)])
        for start, stop, (to, piece) in self.pieces(names):
            self.stores.append(Store(place, to.first, piece, stop - start, value.summed))
