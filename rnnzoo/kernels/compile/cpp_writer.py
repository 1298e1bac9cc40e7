"""The code in C++ of a kernel: one pass over each row, in which no result between the first and the last one is stored.

Pieces of a row that have one width are one loop, in vectors. What is the same for a whole row stands before the loops,
and a loop that needs the sum of another one comes after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rnnzoo.kernels.compile.cpp_math import BOOLEAN_RESULTS, CODE, FUNCTIONS, VECTORS
from rnnzoo.kernels.compile.row_graph import Reader
from rnnzoo.kernels.compile.row_nodes import Piece, RefusedError, Store

LEAST_WIDTH = 16  # numbers of a piece that is worth a loop of its own where pieces of other sizes are cut to it
MOST_CUTS = 8  # into which a piece is cut for that
MOST_SAVED = 2**16  # numbers of a row that one loop leaves for another one


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


def source(graph: torch.fx.GraphModule, tensors: Sequence[Tensor], rows: Sequence[bool]) -> Source:
    """Return the kernel that does what a graph does.

    Args:
        graph: with any number of rows (`rnnzoo.kernels.compile.trace.of_any_rows`).
        tensors: such as it is given.
        rows: for each of them whether it has rows.

    Raises:
        RefusedError: if there is something that is not known here.
    """
    reader = Reader(graph, tensors, rows)
    reader.read()
    sums = {each.target for each in reader.stores if each.summed}
    return Source(Writer(reader).code(), tuple(sorted(sums)), reader.constants)


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


class LoopBody(NamedTuple):
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
        self.found: dict[tuple[Piece, int], int] = {}
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
        if (piece, width) not in self.found:  # a graph has far fewer nodes than ways through it
            self.found[piece, width] = self.add(self.made(piece, width if piece.step else 1))
        return self.found[piece, width]

    def made(self, piece: Piece, width: int) -> Term:
        """Return the term that is `width` numbers of a node."""
        node = self.reader.nodes[piece.node]
        if node.kind == "read":
            return Term("read", (node.of, piece.first), (), width)
        if node.kind == "constant":
            return Term("constant", node.of, (), 1)
        if node.kind != "sum":
            moved = (Piece(at, first + piece.first * step, step * piece.step) for at, first, step in node.parts)
            terms = tuple(self.term(each, width) for each in moved)
            return Term(node.kind, None, terms, max(self.terms[each].width for each in terms))
        parts = []
        for part, size in zip(node.parts, node.of, strict=True):
            for _, each, count in self.cut(part, size):
                term = self.term(each, count)
                if count > 1 and self.terms[term].width == 1:  # the same number, so many times
                    term = self.add(Term("mul", None, (term, self.add(Term("constant", float(count), (), 1))), 1))
                parts.append(term)
        return Term("sum", None, tuple(parts), 1)

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

    def bodies_by_loop(self) -> dict[tuple[int, int], list[LoopBody]]:
        """Return what each loop does, by its turn and its width."""
        found = []
        for store in self.reader.stores:
            for start, piece, width in self.cut(store.piece, store.width):
                found.append(LoopBody(self.term(piece, width), width, store._replace(first=store.first + start)))
        self.turns: dict[int, int] = {}
        for number, term in enumerate(self.terms):
            if term.kind == "sum":
                found += [LoopBody(each, self.terms[each].width, None, number) for each in term.parts]
        loops: dict[tuple[int, int], list[LoopBody]] = {}
        for body in found:
            loops.setdefault((self.turn(body.term), body.width), []).append(body)
        return dict(sorted(loops.items()))

    def code(self) -> str:
        """Return the code."""
        loops = self.bodies_by_loop()
        self.find_saved(loops)
        for (_, width), bodies in loops.items():
            self.loop(width, bodies)
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
        return VECTORS + FUNCTIONS + "\n".join(lines) + "\n"

    def find_saved(self, loops: dict[tuple[int, int], list[LoopBody]]) -> None:
        """Find what a loop computes that a later one needs again."""
        done: set[int] = set()
        for (_, width), bodies in loops.items():
            here: set[int] = set()
            left = [body.term for body in bodies if width > 1]
            while left:
                number = left.pop()
                term = self.terms[number]
                if term.width == 1 or term.kind == "read" or number in here:
                    continue
                if number in done and term.kind not in BOOLEAN_RESULTS:
                    self.saved.add(number)
                    continue
                here.add(number)
                left += term.parts
            done |= here

    def loop(self, width: int, bodies: Sequence[LoopBody]) -> None:
        """Write a loop, after the numbers that are the same for the whole row."""
        for body in bodies:
            self.name_scalars(body.term)
        outside = set(self.named)
        if width > 1:
            sums = ", ".join(sorted({f"v{body.sum}" for body in bodies if body.store is None}))
            self.lines.append("#pragma omp simd" + (f" reduction(+ : {sums})" if sums else ""))
            self.lines.append(f"for (int64_t j = 0; j < {width}; j++) {{")
        for body in bodies:
            self.name(body.term)
            found = self.variable(body.term)
            if body.store is None:
                self.lines.append(f"v{body.sum} += {found};")
            else:
                place = f"a{body.store.target}[{body.store.first}{' + j' if width > 1 else ''}]"
                self.lines.append(f"{place} {'+=' if body.store.summed else '='} {found};")
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
            number_type = "bool" if self.reader.tensors[term.of[0]].dtype == torch.bool else "float"
            self.lines.append(f"const {number_type} v{number} = a{term.of[0]}[{term.of[1]}{along}];")
            return
        for each in term.parts:
            self.name(each)
        number_type = "bool" if term.kind in BOOLEAN_RESULTS else "float"
        self.lines.append(f"const {number_type} v{number} = {CODE[term.kind].format(*map(self.variable, term.parts))};")
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
