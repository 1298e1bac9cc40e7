"""``rnnzoo models``: list the models."""

from __future__ import annotations

from rnnzoo.cli.listing import parse, show
from rnnzoo.models import MODELS

SUMMARY = "list the models, one for each sequence pattern"
HELP = """usage: rnnzoo models [--json]

List the LightningModules with the sequence pattern of each.
"""


def run(argv: list[str]) -> int:
    """Print the models; return the exit code."""
    parsed = parse(argv, "models", HELP, positional=False)
    if parsed is not None:
        rows = [
            {"model": name, "pattern": MODELS.entry(name).facts["pattern"], "summary": MODELS.entry(name).summary}
            for name in MODELS
        ]
        show(rows, as_json=parsed[1])
    return 0
