"""A table of names whose objects are imported only when they are asked for.

Listings must answer without importing torch, so an entry is a line of text and the place of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rnnzoo.errors import InputError, unknown_name


@dataclass(frozen=True)
class Entry:
    """One row of a registry.

    Args:
        target: the object itself, or its place as ``"module:attribute"``.
        summary: one line for the listings.
        facts: further columns of the listing, name → text.
    """

    target: Any
    summary: str
    facts: dict[str, str]


class Registry:
    """Names → objects, for one kind of thing.

    Args:
        kind: what the names are called in messages, e.g. ``"cell"``.
        hint: what to do about a name that is like none of them.

    >>> shapes = Registry("shape")
    >>> shapes.add("path", "pathlib:PurePath", "a path without a file system")
    >>> shapes["path"].__name__
    'PurePath'
    >>> shapes["pth"]
    Traceback (most recent call last):
    rnnzoo.errors.InputError: shape: expected one of path, got 'pth'; did you mean 'path'?
    """

    def __init__(self, kind: str, *, hint: str = "") -> None:
        self.kind = kind
        self.hint = hint
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: Any, summary: str, **facts: str) -> None:
        """Register `target` under `name`.

        Raises:
            InputError: if the name is taken.
        """
        if name in self._entries:
            raise InputError(f"{self.kind} {name!r}", expected="a new name", got="one that is taken")
        self._entries[name] = Entry(target, summary, facts)

    def remove(self, name: str) -> None:
        """Forget a name."""
        self.entry(name)
        del self._entries[name]

    def __getitem__(self, name: str) -> Any:
        """Return the object registered as `name`, importing its module if need be."""
        target = self.entry(name).target
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            return getattr(import_module(module), attribute)
        return target

    def entry(self, name: str) -> Entry:
        """Return the row of `name` without importing anything."""
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, hint=self.hint)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
