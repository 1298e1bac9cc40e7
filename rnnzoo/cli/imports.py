"""The user's own code that a recipe names."""

from __future__ import annotations

import shlex
from pathlib import Path

from rnnzoo.documents import parse_yaml
from rnnzoo.errors import InputError
from rnnzoo.imports import import_code
from rnnzoo.recipes import read_recipe


def refuse_unnamed(config: Path, where: str, overrides: list[str]) -> None:
    """Refuse the configuration of a run that names code which the command line does not: the run may be from anywhere.

    Args:
        config: the ``config.yaml`` of the run.
        where: what messages call the run.
        overrides: the command line, with ``--imports+=NAME`` for each ``--import``.

    Raises:
        InputError: listing what would be run.
    """
    given = {own_name(value) for key, _, value in (word.partition("=") for word in overrides) if key == "--imports+"}
    stored = read_recipe(config).get("imports") or [] if config.is_file() else []
    missing = [str(name) for name in (stored if isinstance(stored, list) else [stored]) if own_name(name) not in given]
    if missing:
        raise InputError(
            where,
            expected="--import for each file and module that the run names: their code would be run",
            got=f"none for {', '.join(missing)}",
            fix="if you trust them, add " + " ".join(f"--import {shlex.quote(name)}" for name in missing),
        )


def own_name(name: object) -> str:
    """Return what a file or module of code is told apart by: a file may have moved.

    >>> own_name("old/my_cells.py"), own_name("my_package.cells")
    ('my_cells.py', 'my_package.cells')
    """
    return Path(str(name)).name if str(name).endswith(".py") else str(name)


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
