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
        rows = [{"recipe": recipe.name, "title": recipe.title} for recipe in list_recipes(pattern)]
        show(
            [{**row, "path": str(recipe.path)} for row, recipe in zip(rows, list_recipes(pattern), strict=True)]
            if as_json
            else rows,
            as_json=as_json,
        )
    return 0
