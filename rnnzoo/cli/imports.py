"""The user's own code that a recipe names."""

from __future__ import annotations

from rnnzoo.documents import parse_yaml
from rnnzoo.errors import InputError
from rnnzoo.imports import import_code
from rnnzoo.recipes import read_recipe


def import_named(args: list[str]) -> None:
    """Run the files and modules that stand under ``imports`` in recipes and overrides.

    Args:
        args: ``--config=FILE`` and ``--key=value``; other keys are passed over.

    Raises:
        InputError: if they are no list of names, or what `rnnzoo.imports.import_code` says.
    """
    for word in args:
        key, _, value = word.partition("=")
        if key == "--config":
            where, found = value, read_recipe(value).get("imports")
        elif key in ("--imports", "--imports+"):
            where, found = "command line", parse_yaml(value, "command line")
            found = [found] if key.endswith("+") and isinstance(found, str) else found
        else:
            continue
        names = [] if found is None else found
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(
                f"{where}: imports", expected="a list of files or modules", got=repr(found), fix="write [my_cells.py]"
            )
        for name in names:
            import_code(name)
