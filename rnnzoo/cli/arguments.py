"""Sorting a command line: one positional argument, this program's own options, and what Lightning will parse."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from rnnzoo.errors import InputError, did_you_mean


@dataclass
class Arguments:
    """A sorted command line.

    Args:
        positional: the one argument that belongs to no option, or None.
        own: values of the verb's own options, by name without dashes.
        configs: values of ``--config``, in order.
        overrides: everything else, in order, as ``--key=value`` or bare ``--flag``.
        flags: the verb's own options without a value that are set.
    """

    positional: str | None = None
    own: dict[str, str] = field(default_factory=dict)
    configs: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def take_values(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Take an option, which may come several times, out of a command line; return what is left, and its values.

    Raises:
        InputError: if the last one lacks its value.

    >>> take_values(["cells", "--import", "a.py", "--json", "--import=b.py"], "--import")
    (['cells', '--json'], ['a.py', 'b.py'])
    """
    left, values = [], []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name != option:
            left.append(word)
            continue
        value = value if equals else next(rest, "")
        if not value or value.startswith("--"):
            raise InputError(option, expected="a value", got="none", fix=f"write {option} VALUE")
        values.append(value)
    return left, values


FLAG_VALUES = ("true", "false")
BARE = ("--print_config", "--help", "-h")  # options of jsonargparse that take no value


def sort_arguments(
    argv: list[str],
    *,
    own: Collection[str] = (),
    prefixes: Collection[str] | None = None,
    flags: Collection[str] = (),
) -> Arguments:
    """Sort a command line whose parts may come in any order.

    Args:
        argv: the arguments after the verb.
        own: names of the options of the verb itself, each with one value.
        flags: names of options of the verb that need no value; ``true`` and ``false`` may be given.
        prefixes: the first parts that other options may have, as ``model`` in ``--model.cell``; None allows none.

    Raises:
        InputError: for a second positional argument, a missing value, or an option of no known name.

    >>> sort_arguments(["--model.cell", "gru", "ewt.yaml", "--run_dir=here"], own=["run_dir"], prefixes=["model"])
    Arguments(positional='ewt.yaml', own={'run_dir': 'here'}, configs=[], overrides=['--model.cell=gru'], flags=set())
    """
    found = Arguments()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            if found.positional is not None:
                raise InputError(
                    "command line", expected="one argument without dashes", got=f"{found.positional!r} and {word!r}"
                )
            found.positional = word
            continue
        if word in BARE or word.split("=")[0].endswith(".help") or word.startswith("--print_config="):
            found.overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--config" if name == "-c" else name
        check_option(name, own=[*own, *flags], prefixes=prefixes)
        if name[2:] in flags:
            value = value if equals else rest.pop(0) if rest and rest[0] in FLAG_VALUES else "true"
            if value not in FLAG_VALUES:
                raise InputError(name, expected="true, false or no value", got=repr(value))
            if value == "true":
                found.flags.add(name[2:])
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise InputError(name, expected="a value", got="none", fix=f"write {name} VALUE")
            value = rest.pop(0)
        if name == "--config":
            found.configs.append(value)
        elif name[2:] in own:
            found.own[name[2:]] = value
        else:
            found.overrides.append(f"{name}={value}")
    return found


def check_option(name: str, *, own: Collection[str], prefixes: Collection[str] | None) -> None:
    """Refuse an option that nothing knows, naming the nearest that is known."""
    allowed = [f"--{option}" for option in own] + ([] if prefixes is None else ["--config"])
    prefix = name[2:].split(".")[0].rstrip("+")
    if name in allowed or (prefixes is not None and prefix in prefixes):
        return
    known = allowed + [f"--{prefix}.…" for prefix in prefixes or ()]
    raise InputError(
        "command line", expected=f"one of {', '.join(known)}", got=name, fix=did_you_mean(name, known) or "see --help"
    )
