"""Cells from outside the package: what one has to be, and how it gets its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from rnnzoo.cells import CELLS
from rnnzoo.cells.base import Cell, GatedCell, LinearCell, StagedCell
from rnnzoo.errors import InputError
from rnnzoo.imports import origin_of

CellT = TypeVar("CellT", bound=type[Cell])
KINDS = {"gated": GatedCell, "staged": StagedCell, "linear": LinearCell, "general": Cell}
SIZE = 8  # of the cell that is built on trial
ROWS = 3  # of its state


def register_cell(name: str, *, summary: str | None = None, source: str = "") -> Callable[[CellT], CellT]:
    """Give a class of cells a name, under which recipes, models and the command line find it.

    What is not its to say is found out: its kind from the class it derives from, its options from its constructor.
    The class itself is returned, so this is a decorator. A class that is defined once more (a notebook's cell that is
    run again) takes the place of the old one.

    Args:
        name: a new name, such as ``my_cell``.
        summary: one line for `rnnzoo cells`; None takes the first of the docstring.
        source: where the equations are from.

    Raises:
        InputError: if the name is taken or none, or the class is not what `check_cell_class` wants.

    >>> @register_cell("half", summary="h' = (h + W x + b) / 2")
    ... class HalfCell(GatedCell):
    ...     gate_count = 1
    ...     def gates(self, projected, recurrent, state):
    ...         hidden = (state.hidden + projected) / 2
    ...         return hidden, state._replace(hidden=hidden)
    >>> CELLS.entry("half").facts["kind"]
    'gated'
    >>> CELLS.remove("half")
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError("register_cell", expected="a name such as 'my_cell'", got=repr(name))

    def register(kind: CellT) -> CellT:
        check_cell_class(kind, f"cell {name!r}")
        if name in CELLS and is_redefined(CELLS.entry(name).target, kind):
            CELLS.remove(name)
        line = (inspect.getdoc(kind) or "").partition("\n")[0] if summary is None else summary
        CELLS.add(name, kind, line, kind=kind_of(kind), source=source, code=origin_of(kind))
        return kind

    return register


def is_redefined(old: Any, new: type) -> bool:
    """Return whether two classes were made by the same lines of code."""
    return isinstance(old, type) and (old.__module__, old.__qualname__) == (new.__module__, new.__qualname__)


def kind_of(kind: type[Cell]) -> str:
    """Return what a class of cells may do with its state: gated, staged, linear or general."""
    return next(name for name, base in KINDS.items() if issubclass(kind, base))


def check_cell_class(kind: type[Cell], where: str) -> None:
    """Refuse what is no class of cells that can be built by name; a small one is built to see it.

    A class that refuses the small sizes is not looked at further: `rnnzoo.testing.check_cell` does so with others.

    Raises:
        InputError: saying what is missing.
    """
    if not (isinstance(kind, type) and issubclass(kind, Cell)):
        got = kind.__name__ if isinstance(kind, type) else repr(kind)
        raise InputError(where, expected="a class that derives from a class of rnnzoo.cells.base", got=got)
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise InputError(where, expected=f"a class with the methods {missing}", got=f"{kind.__name__} without")
    check_constructor(kind, where)
    with torch.random.fork_rng(devices=[]):  # a registration changes nobody's random numbers
        try:
            cell = kind(input_size=SIZE, hidden_size=SIZE)
        except InputError:
            return
        except Exception as error:
            raise InputError(
                where,
                expected=f"a class that can be built: {kind.__name__}(input_size={SIZE}, hidden_size={SIZE})",
                got=f"{type(error).__name__}: {error}",
            ) from error
    check_initial_state(cell, where)


def check_constructor(kind: type[Cell], where: str) -> None:
    """Refuse a constructor that is not ``(*, input_size, hidden_size, option=default, ...)``."""
    shape = "a constructor (self, *, input_size: int, hidden_size: int, option=default, ...)"
    parameters = inspect.signature(kind).parameters
    wrong = [
        str(parameter)
        for name, parameter in parameters.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        or (parameter.default is inspect.Parameter.empty and name not in ("input_size", "hidden_size"))
    ]
    absent = [f"no {name}" for name in ("input_size", "hidden_size") if name not in parameters]
    if wrong or absent:
        raise InputError(where, expected=shape, got=", ".join([*wrong, *absent]))


def check_initial_state(cell: Cell, where: str) -> None:
    """Refuse an initial state that is no NamedTuple of real tensors, batch first, with a vector ``hidden``."""
    expected = "an initial state that is a NamedTuple of real tensors [B, ...], one of them hidden [B, H]"
    try:
        state: Any = cell.initial_state(ROWS)
    except Exception as error:
        raise InputError(where, expected=expected, got=f"{type(error).__name__}: {error}") from error
    if not hasattr(state, "_fields"):
        raise InputError(
            where, expected=expected, got=f"a {type(state).__name__}", fix="use HiddenState for one vector"
        )
    for name, field in state._asdict().items():
        if not isinstance(field, Tensor):
            raise InputError(where, expected=expected, got=f"{name}, a {type(field).__name__}")
        if not field.is_floating_point() or field.dim() < 2 or len(field) != ROWS:
            got = f"{name} of shape {list(field.shape)} and type {field.dtype} for {ROWS} rows"
            raise InputError(where, expected=expected, got=got)
    if "hidden" not in state._fields or state.hidden.dim() != 2:
        raise InputError(where, expected=expected, got=f"the fields {', '.join(state._fields)} without a vector hidden")
