"""What a model folder says of the data that the model was trained on, before anything acts on it.

A recipe may name classes, files of options and import paths, and the parser imports them: a recipe is the user's own. A
model folder may be from anywhere, so of it only plain values are taken, for a class that is known already.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from rnnzoo.data import DATA_MODULES
from rnnzoo.data.base import ZooData
from rnnzoo.errors import InputError
from rnnzoo.limits import check_limit
from rnnzoo.schema import members, type_hints

KEYS = {"class_path", "init_args"}
SIZES = {"num_workers": "WORKERS", "image_size": "IMAGE_SIZE"}  # argument → its limit
PLAIN = (str, int, float, bool, type(None))


def check_stored_data(section: Any, where: str) -> dict[str, Any] | None:
    """Return the data section of a model folder, in which nothing names code that is not there yet.

    Args:
        section: what ``config.json`` has under ``data``; None if it has nothing.
        where: the file, for messages.

    Raises:
        InputError: if the class is neither the zoo's nor one that was imported, if it does not take an argument, or if
            a value is not plainly of the argument's type.
    """
    if section is None:
        return None
    if not isinstance(section, Mapping) or set(section) - KEYS or not isinstance(section.get("class_path"), str):
        raise InputError(f"{where}: data", expected="a class_path and init_args", got=repr(section)[:200])
    path, kind = known_class(section["class_path"], where)
    arguments = section.get("init_args", {})
    check_arguments(kind, arguments, f"{where}: data")
    for name, limited in SIZES.items():
        if type(size := arguments.get(name)) is int:
            check_limit(limited, f"{where}: data.{name}", size)
    return {"class_path": path, "init_args": dict(arguments)}


def known_class(path: str, where: str) -> tuple[str, type]:
    """Return a class of data with its import path, without importing what is not the zoo's.

    Raises:
        InputError: if it is neither the zoo's nor there already.
    """
    module, _, name = path.rpartition(".")
    found: Any = None
    if not module or module == "rnnzoo.data" or module.startswith("rnnzoo.data."):
        path = f"rnnzoo.data.{name}"
        if name in DATA_MODULES:
            found = DATA_MODULES[name]
    elif module in sys.modules:
        found = vars(sys.modules[module]).get(name)
    if not (isinstance(found, type) and issubclass(found, ZooData)):
        raise InputError(
            f"{where}: data",
            expected="data that are known here",
            got=repr(path),
            fix="give --import with the file or module that has them",
        )
    return path, found


def check_arguments(kind: type, arguments: Any, where: str) -> None:
    """Refuse arguments of a class that could name code: see `check_stored_data`."""
    if not isinstance(arguments, Mapping):
        raise InputError(where, expected=f"arguments of {kind.__name__}", got=repr(arguments)[:200])
    hints = type_hints(kind)
    for name, value in arguments.items():
        if name not in hints:
            raise InputError(f"{where}.{name}", expected=f"an argument of {kind.__name__}", got=repr(name))
        options = next((each for each in members(hints[name]) if dataclasses.is_dataclass(each)), None)
        if value is None or (isinstance(value, int | float) and options is None):
            continue
        if isinstance(options, type):
            check_arguments(options, value, f"{where}.{name}")
        elif not is_plain(hints[name]):
            raise InputError(f"{where}.{name}", expected="a value that names no code", got=repr(value)[:200])


def is_plain(hint: Any) -> bool:
    """Return whether a type hint has JSON values alone: no classes, functions or paths to them.

    >>> is_plain(dict[str, list[int]] | None), is_plain(typing.Any), is_plain(list[type])
    (True, False, False)
    """
    if hint in PLAIN or typing.get_origin(hint) is typing.Literal:
        return True
    parts = [each for each in typing.get_args(hint) if each is not Ellipsis]
    return bool(parts) and is_container(typing.get_origin(hint)) and all(map(is_plain, parts))


def is_container(origin: Any) -> bool:
    """Return whether a generic type only holds others."""
    holders = (list, tuple, dict, set)
    return origin in (typing.Union, types.UnionType) or (
        isinstance(origin, type) and any(issubclass(each, origin) for each in holders)
    )
