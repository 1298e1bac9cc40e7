"""``rnnzoo cells``: list the recurrent cells."""

from __future__ import annotations

from rnnzoo.cells import CELLS
from rnnzoo.cli.listing import parse, show
from rnnzoo.errors import InputError, unknown_name

SUMMARY = "list the recurrent cells, for --model.cell"
HELP = """usage: rnnzoo cells [--json]

List the recurrent cells with their kind and source. A name goes into a recipe as model.cell.
"""


def run(argv: list[str]) -> int:
    """Print the cells; return the exit code."""
    parsed = parse(argv, "cells", HELP, positional=False)
    if parsed is not None:
        rows = [
            {
                "cell": name,
                "kind": CELLS.entry(name).facts.get("kind", ""),
                "summary": CELLS.entry(name).summary,
                "source": CELLS.entry(name).facts.get("source", ""),
            }
            for name in CELLS
        ]
        show(rows, as_json=parsed[1])
    return 0


def chosen_cells(text: str) -> tuple[str, ...]:
    """Return the cells that ``--cells`` names, with commas between.

    Raises:
        InputError: for a name that is no cell, or one that comes twice.

    >>> chosen_cells("lstm, gru")
    ('lstm', 'gru')
    """
    names = tuple(name.strip() for name in text.split(","))
    for place, name in enumerate(names):
        if name not in CELLS:
            raise unknown_name("--cells", name, CELLS)
        if name in names[:place]:
            raise InputError("--cells", expected="each cell once", got=repr(text))
    return names
