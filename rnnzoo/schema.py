"""JSON values against type hints: what a class or dataclass takes is read off its own signature."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from rnnzoo.errors import InputError, did_you_mean

NAMES = {int: "an integer", float: "a finite number", str: "a text", bool: "true or false", type(None): "null"}
LARGEST = 2**63


def type_hints(kind: type) -> dict[str, Any]:
    """Return the arguments of a class with the type hint of each; an argument without one has None."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:  # a constructor that hands **arguments on takes those of the next class too
        if "__init__" not in vars(base):
            continue
        constructor: Any = vars(base)["__init__"]
        hints = typing.get_type_hints(constructor)
        signature = inspect.signature(constructor).parameters.values()
        handed_on = [parameter for parameter in signature if parameter.kind is inspect.Parameter.VAR_KEYWORD]
        for parameter in signature:
            if parameter not in handed_on and parameter.name not in ("self", "processor"):
                found.setdefault(parameter.name, hints.get(parameter.name))
        if not handed_on:
            break
    return found


def members(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type that a hint is.

    >>> members(int | None)
    (<class 'int'>, <class 'NoneType'>)
    """
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def check_arguments(arguments: Any, hints: Mapping[str, Any], where: str, of: str) -> None:
    """Refuse JSON values that are not what a class takes.

    Args:
        arguments: what should be names with values.
        hints: name → type hint; None where there is none.
        where: for messages.
        of: what the arguments are of, for messages.

    Raises:
        InputError: for the first that is wrong, with its key.
    """
    if not isinstance(arguments, Mapping):
        raise InputError(where, expected=f"the arguments of {of} by name", got=repr(arguments)[:80])
    for name, value in arguments.items():
        if name not in hints:
            fix = did_you_mean(str(name), hints) or f"it takes {', '.join(hints)}"
            raise InputError(f"{where}.{name}", expected=f"an argument of {of}", got=repr(name), fix=fix)
        check_value(value, hints[name], f"{where}.{name}")


def check_value(value: Any, hint: Any, where: str) -> None:
    """Refuse a JSON value that is not of a type; numbers must be finite, and integers fit into 64 bits.

    Args:
        value: the value.
        hint: the type; None and Any take all. A dataclass takes its fields as a mapping.
        where: for messages.

    Raises:
        InputError: naming the innermost key that is wrong.
    """
    options = members(hint)
    if isinstance(value, Mapping):
        for option in options:
            if isinstance(option, type) and dataclasses.is_dataclass(option):
                check_arguments(value, typing.get_type_hints(option), where, option.__name__)
                return
    if not any(fits(value, option) for option in options):
        names = [name for option in options if (name := describe(option))]
        raise InputError(where, expected=" or ".join(dict.fromkeys(names)), got=repr(value)[:80])


def fits(value: Any, hint: Any) -> bool:
    """Return whether a JSON value is of a type that is no union.

    >>> fits(1, float), fits(True, int), fits(float("nan"), float), fits([1, "a"], list[int])
    (True, False, False, False)
    """
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint in (None, Any):
        return is_finite(value)
    if origin is typing.Literal:
        return value in inner
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool) and is_finite(value)
    if origin in (str, bool, type(None)):
        return isinstance(value, origin)
    if not isinstance(origin, type) or issubclass(origin, str):
        return False
    if issubclass(dict, origin) and issubclass(origin, Mapping):
        key, item = inner or (Any, Any)
        return isinstance(value, Mapping) and all(fits_any(k, key) and fits_any(v, item) for k, v in value.items())
    if issubclass(origin, Collection) and (issubclass(list, origin) or issubclass(tuple, origin)):
        if not isinstance(value, list | tuple):
            return False
        if issubclass(origin, tuple) and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(fits_any, value, inner))
        return all(fits_any(item, inner[0] if inner else Any) for item in value)
    return False


def fits_any(value: Any, hint: Any) -> bool:
    """Return whether a value is of one of the types of a union."""
    return any(fits(value, option) for option in members(hint))


def is_finite(value: Any) -> bool:
    """Return whether all numbers in a JSON value are finite, and all integers fit into 64 bits."""
    if isinstance(value, Mapping):
        return all(map(is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(is_finite, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or -LARGEST <= value < LARGEST


def describe(hint: Any) -> str:
    """Return what messages call a type; nothing for one that JSON does not have.

    >>> describe(int), describe(list[str]), describe(dict[str, float])
    ('an integer', 'a list (each: a text)', 'names with values (each: a finite number)')
    """
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint in (None, Any):
        return "JSON with finite numbers"
    if origin in NAMES:
        return NAMES[origin]
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if not isinstance(origin, type):
        return ""
    if dataclasses.is_dataclass(origin):
        return f"the options of {origin.__name__}"
    item = next((name for part in inner[-1:] for name in [describe(part)] if name and part is not Ellipsis), "")
    if issubclass(origin, Mapping):
        return "names with values" + (f" (each: {item})" if item and inner[-1] is not Any else "")
    if issubclass(origin, Collection):
        item = describe(inner[0]) if inner else ""
        return "a list" + (f" (each: {item})" if item else "")
    return ""
