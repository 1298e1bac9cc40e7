"""Classes that a recipe names: each must be a subclass of what its key is for, and of a module that is trusted.

The parser imports whatever is written where a class is expected, and calls it. What a recipe and the overrides say
together is therefore checked before, with the type hints of the classes that they configure.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from typing import Any

from lightning.pytorch import Trainer

from rnnzoo.data.base import ZooData
from rnnzoo.documents import parse_yaml
from rnnzoo.errors import InputError, did_you_mean
from rnnzoo.imports import named_modules
from rnnzoo.models.base import ZooModel
from rnnzoo.recipes import read_recipe
from rnnzoo.schema import type_hints

TRUSTED = ("torch", "lightning", "pytorch_lightning", "torchmetrics", "rnnzoo")
SECTIONS: dict[str, type] = {"model": ZooModel, "data": ZooData}
SUBCLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
PLAIN = (str, int, float, bool, complex, bytes, type(None), PurePath, datetime.timedelta, enum.Enum)
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
FILES = (".yaml", ".yml", ".json")  # the parser would read options from them


def check_classes(args: list[str], known: Mapping[str, Any] | None = None) -> None:
    """Refuse every class in the recipes and overrides that is not a subclass of what its key is for.

    Args:
        args: ``--config=FILE`` and ``--key=value``, later ones on top.
        known: what lies below them: sections of a model folder.

    Raises:
        InputError: for the first such class, or one of a module that was neither imported nor is trusted.
    """
    tree: dict[str, Any] = dict(known or {})
    for word in args:
        name, _, value = word.partition("=")
        if name == "--config":
            merge(tree, read_recipe(value))
        elif name.startswith("--") and value and not name.startswith("--print_config") and not name.endswith(".help"):
            put(tree, name[2:].rstrip("+").split("."), parse_yaml(value, name))
    for section, base in SECTIONS.items():
        check(tree.get(section), base, section)
    trainer = tree.get("trainer")
    for key, value in (trainer if isinstance(trainer, Mapping) else {}).items():
        check(value, type_hints(Trainer).get(key), f"trainer.{key}")


def merge(tree: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Put a mapping on top of another, key by key."""
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict):
            merge(tree[key], value)
        else:
            tree[key] = copied(value)


def copied(value: Any) -> Any:
    """Return a tree of new mappings and lists."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Put an override into a tree; ``init_args`` may be left out of its key, and a list means its last item."""
    node = tree
    for index, key in enumerate(keys):
        inner = node.get("init_args") if "class_path" in node and key not in SUBCLASS_KEYS else node
        if not isinstance(inner, dict):
            inner = node["init_args"] = {}
        node = inner
        if index == len(keys) - 1:
            break
        below = node.get(key)
        below = below[-1] if isinstance(below, list) and below else below
        if isinstance(below, str):  # the short form of a class
            below = node[key] = {"class_path": below}
        elif not isinstance(below, dict):
            below = node[key] = {}
        node = below
    merge(node, {keys[-1]: value})


def check(value: Any, hint: Any, where: str) -> None:
    """Refuse what would be imported for a value of a type and is no subclass of it.

    Args:
        value: of a recipe.
        hint: the type hint of its key; None if it is not known.
        where: for messages.

    Raises:
        InputError: for the first such value.
    """
    bases = tuple(class_bounds(hint))
    if isinstance(value, str) and (bases or hint is None or has_functions(hint)):
        check_text(value, bases, where, known=hint is not None)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check(item, hint, f"{where}[{index}]" if len(value) > 1 else where)
    elif isinstance(value, Mapping) and "class_path" in value:
        kind = find(str(value["class_path"]), bases, f"{where}.class_path")
        hints = hints_of(kind) if kind is not None else {}
        for part in ("init_args", "dict_kwargs"):
            for key, item in (value.get(part) or {}).items():
                check(item, hints.get(key), f"{where}.{key}")
    elif isinstance(value, Mapping):
        options = next((each for each in parts(hint) if dataclasses.is_dataclass(each)), None)
        hints = typing.get_type_hints(options) if options is not None else {}
        for key, item in value.items():
            check(item, hints.get(key), f"{where}.{key}")


def check_text(text: str, bases: tuple[type, ...], where: str, *, known: bool) -> None:
    """Refuse a text that the parser would take for the path of a class, or of a file of options."""
    if bases and text.endswith(FILES):
        raise InputError(where, expected="the options themselves", got=f"a file, {text}", fix="give it by --config")
    if not DOTTED.fullmatch(text):
        return
    if bases:
        find(text, bases, where)
    elif known or find_spec(text.partition(".")[0]) is not None:  # a function, or an argument without a type hint
        check_module(text.rpartition(".")[0], text, where, roots=named_modules())


def find(path: str, bases: tuple[type, ...], where: str) -> type | None:
    """Return the class at an import path; None for a name without dots, which the parser finds among subclasses.

    Raises:
        InputError: if its module was neither imported nor is trusted, or it is no subclass of one of `bases`; without
            `bases`, if no ``--import`` named its module.
    """
    module, _, name = path.rpartition(".")
    if not module:
        return None
    if not bases:
        check_module(module, path, where, roots=named_modules())
    elif module not in sys.modules:
        check_module(module, path, where, roots=(*TRUSTED, *named_modules()))
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        near = did_you_mean(name, dir(sys.modules[module])) if module in sys.modules else ""
        expected = f"a class of {module}" if module in sys.modules else "the import path of a class"
        raise InputError(where, expected=expected, got=repr(path), fix=near or str(error)) from error
    if not isinstance(found, type) or (bases and not issubclass(found, bases)):
        names = " or ".join(dict.fromkeys(base.__name__ for base in bases))
        raise InputError(where, expected=f"a subclass of {names}" if bases else "a class", got=repr(path))
    return found


def check_module(module: str, path: str, where: str, *, roots: tuple[str, ...]) -> None:
    """Refuse a module that is in none of the packages `roots`: importing it would run code that nobody named."""
    if module.partition(".")[0] not in {root.partition(".")[0] for root in roots}:
        raise InputError(
            where,
            expected=f"something of {', '.join(TRUSTED)}, or of a module that is imported first",
            got=repr(path),
            fix=f"if you trust it, give --import {module}",
        )


def parts(hint: Any) -> Iterator[Any]:
    """Yield a type hint and all in it, but not what functions take and return."""
    yield hint
    if typing.get_origin(hint) is not Callable:
        for inner in typing.get_args(hint):
            if inner is not Ellipsis:
                yield from parts(inner)


def class_bounds(hint: Any) -> Iterator[type]:
    """Yield the classes of which a value may name a subclass: in the hint, or returned by a function in it.

    >>> from torch.optim import Optimizer
    >>> list(class_bounds(Callable[[list], Optimizer] | None)), list(class_bounds(dict[str, float]))
    ([<class 'torch.optim.optimizer.Optimizer'>], [])
    """
    for part in parts(hint):
        kind = typing.get_args(part)[-1] if typing.get_origin(part) is Callable and typing.get_args(part) else part
        for each in parts(kind):
            if isinstance(each, type) and typing.get_origin(each) is None and not is_plain_class(each):
                yield each


def is_plain_class(kind: type) -> bool:
    """Return whether values of a class are written as they are: numbers, texts, containers, groups of options."""
    return issubclass(kind, PLAIN) or dataclasses.is_dataclass(kind) or kind.__module__ in ("builtins", "typing")


def has_functions(hint: Any) -> bool:
    """Return whether a value of a type may be a function."""
    return any(part in (Any, Callable, typing.Callable) or typing.get_origin(part) is Callable for part in parts(hint))


def hints_of(kind: type) -> dict[str, Any]:
    """Return the type hints of the arguments of a class, as far as they can be told."""
    try:
        return type_hints(kind)
    except (NameError, TypeError, AttributeError):  # hints that only type checkers see
        return dict.fromkeys(inspect.signature(kind).parameters)
