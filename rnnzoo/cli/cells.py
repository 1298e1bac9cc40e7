"""``rnnzoo cells``: list the recurrent cells."""

from __future__ import annotations

from rnnzoo.cells import CELLS
from rnnzoo.cli.listing import parse, show

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
