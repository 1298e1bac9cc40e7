"""What the verbs that list things share: arguments, tables, JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.errors import InputError
from rnnzoo.terminal import echo, escape, to_json


def parse(argv: list[str], verb: str, help_text: str, *, positional: bool) -> tuple[str | None, bool] | None:
    """Return the positional argument and whether JSON is wanted; None if help was asked for and printed."""
    arguments = sort_arguments([word for word in argv if word != "--json"])
    if arguments.overrides:
        echo(help_text)
        return None
    if arguments.positional is not None and not positional:
        raise InputError(f"rnnzoo {verb}", expected="no argument", got=repr(arguments.positional))
    return arguments.positional, "--json" in argv


def show(rows: Sequence[dict[str, str]], *, as_json: bool) -> None:
    """Print rows as an aligned table, or as JSON."""
    if as_json:
        echo(to_json(list(rows), indent=2))
        return
    if not rows:
        return
    rows = [{escape(name): escape(value) for name, value in row.items()} for row in rows]
    columns = list(rows[0])
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    for row in [{column: column for column in columns}, *rows]:
        echo("  ".join(row[column].ljust(widths[column]) for column in columns).rstrip())
