"""``rnnzoo recipes``: list the recipes."""

from __future__ import annotations

from rnnzoo.cli.listing import parse, show
from rnnzoo.recipes import list_recipes

SUMMARY = "list the recipes that `rnnzoo fit` knows"
HELP = """usage: rnnzoo recipes [PATTERN] [--json]

List the recipes, of one pattern (one_to_one, many_to_one, many_to_many) if it is given.
"""


def run(argv: list[str]) -> int:
    """Print the recipes; return the exit code."""
    parsed = parse(argv, "recipes", HELP, positional=True)
    if parsed is not None:
        pattern, as_json = parsed
        rows = []
        for recipe in list_recipes(pattern):
            row = {"recipe": recipe.name, "title": recipe.title}
            rows.append({**row, "path": str(recipe.path)} if as_json else row)
        show(rows, as_json=as_json)
    return 0
