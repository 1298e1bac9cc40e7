"""Configuration errors as one line that names the key, what was expected and what came."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentError
from lightning.pytorch import Trainer

from rnnzoo.cli.class_paths import SECTIONS as BASES
from rnnzoo.cli.class_paths import find
from rnnzoo.data import DATA_MODULES
from rnnzoo.errors import InputError, did_you_mean, unknown_name
from rnnzoo.models import MODELS
from rnnzoo.recipes import read_recipe
from rnnzoo.registry import Registry
from rnnzoo.schema import type_hints

TOP_LEVEL = ("seed_everything", "imports", "trainer", "model", "data")
SECTIONS: dict[str, Registry] = {"model": MODELS, "data": DATA_MODULES}


def refuse_unknown_keys(args: list[str], known: Mapping[str, type] | None = None) -> None:
    """Check every key of the recipes and overrides in `args` against the classes that they configure.

    Args:
        args: ``--config=FILE`` and ``--key=value``.
        known: section → class, for classes that no recipe in `args` names.

    Raises:
        InputError: for the first key that does not exist, with the nearest one that does.
    """
    classes: dict[str, type] = {"trainer": Trainer, **(known or {})}
    found: list[tuple[str, str]] = []  # where it was written, dotted key
    for word in args:
        name, _, value = word.partition("=")
        if name == "--config":
            recipe = read_recipe(value)
            for section in SECTIONS:
                if isinstance(recipe.get(section), Mapping) and "class_path" in recipe[section]:
                    classes[section] = find_class(section, recipe[section]["class_path"])
            found += [(value, key) for key in flatten(recipe)]
        elif name in ("--model", "--data"):
            classes[name[2:]] = find_class(name[2:], value)
        elif name.startswith("--") and value and not name.startswith("--print_config") and not name.endswith(".help"):
            key = name[2:].rstrip("+")
            if key.endswith(".class_path") and key.split(".")[0] in SECTIONS and key.count(".") == 1:
                classes[key.split(".")[0]] = find_class(key.split(".")[0], value)
            found.append(("command line", key))
    for where, key in found:
        check_key(where, key.replace(".init_args", ""), classes)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a tree of mappings."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{path}.")
        else:
            yield path


def find_class(section: str, path: str) -> type:
    """Return the class that a ``class_path`` names: in full, or by its name in the registry.

    Raises:
        InputError: if there is no such class, it is none of models or data, or nobody imported its module.
    """
    module, _, name = str(path).rpartition(".")
    registry = SECTIONS[section]
    if not module or module.startswith(f"rnnzoo.{'models' if section == 'model' else 'data'}"):
        if name not in registry:
            raise unknown_name(f"{section}.class_path", name, registry)
        return registry[name]
    found = find(str(path), (BASES[section],), f"{section}.class_path")
    assert found is not None
    return found


def check_key(where: str, key: str, classes: Mapping[str, type]) -> None:
    """Refuse a dotted key whose first parts no class takes; deeper parts of free dicts and classes are not checked."""
    section, *rest = key.split(".")
    if section not in TOP_LEVEL:
        raise InputError(
            f"{where}: {key}",
            expected=f"a key under {', '.join(TOP_LEVEL)}",
            got=repr(section),
            fix=did_you_mean(section, TOP_LEVEL),
        )
    if not rest or section not in classes or rest[0] == "class_path":
        return
    known: Any = classes[section]
    path = section
    for part in rest:
        fields = parameters(known)
        if fields is None:
            return
        if part not in fields:
            raise InputError(
                f"{where}: {path}.{part}",
                expected=f"an argument of {known.__name__}",
                got=repr(part),
                fix=did_you_mean(part, fields) or f"it takes {', '.join(fields)}",
            )
        known, path = fields[part], f"{path}.{part}"


def parameters(kind: Any) -> dict[str, Any] | None:
    """Return the arguments of a class with the dataclass behind each, or None where they are not known."""
    if not isinstance(kind, type) or kind.__module__ == "builtins":
        return None
    return {name: dataclass_in(hint) for name, hint in type_hints(kind).items()}


def dataclass_in(hint: Any) -> type | None:
    """Return the dataclass in a type hint such as ``Options | dict | None``, if there is one."""
    for part in (hint, *typing.get_args(hint)):
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            return part
    return None


def explain_config_error(error: ArgumentError) -> InputError:
    """Condense what jsonargparse says over many lines to the key, what was expected there and what came."""
    text = str(error)
    key = ".".join(dict.fromkeys(re.findall(r'[Kk]ey "([^"]+)"', text))) or "configuration"
    if option := re.search(r"Option '([^']+)' is not accepted.*class_path='([^']+)'", text):
        name, path = option.groups()
        known = list(inspect.signature(import_path(path)).parameters)[1:]
        return InputError(
            f"{key}.{name}",
            expected=f"an argument of {path}",
            got=repr(name),
            fix=did_you_mean(name, known) or f"it takes {', '.join(known)}",
        )
    if lacking := re.search(r"following arguments are required: ([\w, ]+)", text):
        names = lacking[1].split(", ")
        fix = f"set {' '.join(f'--{key}.{name}' for name in names)}"
        return InputError(key, expected=f"its arguments {lacking[1]}", got="none", fix=fix)
    if missing := re.search(r"module '([^']+)' has no attribute '([^']+)'", text):
        module, name = missing.groups()
        return InputError(
            key, expected=f"a class of {module}", got=repr(name), fix=did_you_mean(name, dir(import_module(module)))
        )
    expected = [
        readable(each) for each in re.findall(r"Expected an? (<class '[^']+'>|typing\.Literal\[[^\]]+\])", text)
    ]
    wanted = [each for each in dict.fromkeys(expected) if each != "nothing"]
    if "dot import path" in text and not wanted:
        wanted = ["the import path of a class, such as torch.optim.Adam"]
    came = re.findall(r"val='([^']*)'|Given value: (.+?)(?:\. Got value|$)|Got value: (.+)", text, flags=re.MULTILINE)
    values = [value for found in came for value in found if value and not value.startswith(("NestedArg", "Namespace"))]
    if wanted and values:
        return InputError(key, expected=" or ".join(wanted), got=repr(values[-1]))
    return InputError(key, expected="a valid value", got=re.sub(r"\s+", " ", text)[:300])


def import_path(path: str) -> Any:
    """Return the object at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def readable(kind: str) -> str:
    """Return how a type is called, from how Python prints it.

    >>> readable("<class 'int'>"), readable("typing.Literal['a', 'b']"), readable("<class 'NoneType'>")
    ('an int', "one of 'a', 'b'", 'nothing')
    """
    kind = kind.strip()
    if found := re.fullmatch(r"<class '([\w.]+)'>", kind):
        name = found[1].rpartition(".")[2]
        return "nothing" if name == "NoneType" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    if kind.startswith("typing.Literal["):
        return f"one of {kind.removeprefix('typing.Literal[').removesuffix(']')}"
    return kind
