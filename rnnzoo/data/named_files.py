"""Files that are named for a split or for one of several test sets, and what is to be said of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rnnzoo.errors import InputError

SPLITS = ("train", "validation", "test")
SET_NAME = re.compile(r"[\w.-]+")
MOST_SHOWN = 8  # files in a note


def split_of_set(name: str) -> str:
    """Return the split that a test set belongs to; a split is its own.

    >>> split_of_set("test/2016"), split_of_set("train")
    ('test', 'train')
    """
    return name.partition("/")[0]


def in_order(splits: Iterable[str]) -> list[str]:
    """Return the names of splits in our order, and those of test sets after the test split, in the order given.

    >>> in_order(["test/b", "test", "test/a", "train"])
    ['train', 'test', 'test/b', 'test/a']
    """
    return sorted(splits, key=lambda name: (SPLITS.index(split_of_set(name)), name != split_of_set(name)))


def name_test_sets(test: Mapping[str, str] | str | None, folder: Path) -> dict[str, str | None]:
    """Return ``test`` → files, or ``test/NAME`` → files for each of several test sets, with commas between files.

    Args:
        test: files with commas between; or ``NAME=FILE`` pairs with commas between; or name → files. A file whose own
            name has a ``=`` is no pair.
        folder: where the files are, if they are not paths of their own.

    Raises:
        InputError: for a name that is none, or where some files have a name and others do not.

    >>> name_test_sets("2016=a.en,2017=b.en", Path("."))
    {'test': None, 'test/2016': 'a.en', 'test/2017': 'b.en'}
    """
    if isinstance(test, Mapping):
        pairs = [(str(name), files) for name, files in test.items()]
    else:
        items = [item.strip() for item in (test or "").split(",") if item.strip()]
        named = [item for item in items if "=" in item and not is_file(item, folder)]
        if not named:
            return {"test": test}
        if len(named) < len(items):
            raise InputError(
                "data.test", expected="a name for each test set, or for none", got=repr(test), fix="write NAME=FILE"
            )
        pairs = [(item.partition("=")[0].strip(), item.partition("=")[2]) for item in items]
    sets: dict[str, str | None] = {"test": None}
    for name, files in pairs:
        if not SET_NAME.fullmatch(name) or not str(files or "").strip():
            raise InputError(
                "data.test",
                expected="test sets as NAME=FILE, with letters, digits, '.', '-' and '_' in names",
                got=f"{name!r} = {files!r}",
            )
        earlier = sets.get(f"test/{name}")
        sets[f"test/{name}"] = f"{earlier},{files}" if earlier else str(files)
    return sets


def is_file(name: str, folder: Path) -> bool:
    """Return whether a file of a name is in a folder, or a path of its own."""
    return any((base / name).is_file() for base in (folder, Path()))


def items_of(named: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Yield split (or test set) and name for each file that is named, of which a comma separates several."""
    for split, names in named.items():
        for name in (names or "").split(","):
            if name.strip():
                yield split, name.strip()


def refuse_without_folder(named: Mapping[str, str | None], path: str | None, source: str) -> None:
    """See that no files are named for data that are not read from files.

    Raises:
        InputError: if there are.
    """
    for split, name in items_of(named) if path is None else ():
        raise InputError(
            f"data.{split_of_set(split)} {name}",
            expected="data.path beside it, a folder or file",
            got=source,
            fix="give --data.path",
        )


def refuse_repeated(split: str, path: Path, taken: Mapping[str, Sequence[Path]]) -> None:
    """See that a file is not named twice for a split, or for two of its test sets.

    Raises:
        InputError: if it is.
    """
    for other, paths in taken.items():
        if split_of_set(other) == split_of_set(split) and path.resolve() in (each.resolve() for each in paths):
            raise InputError(
                f"data.{split_of_set(split)}", expected="each file once", got=f"{path.name} twice", fix="name it once"
            )


def file_notes(contents: Mapping[str, Sequence[tuple[str, str]]], *, pooled: bool) -> list[str]:
    """Return sentences on files that are measured together, and on contents that are there twice.

    Args:
        contents: split (or test set) → name and checksum of each file, or of each pair of files.
        pooled: several files of a split are several sets; not so where each file is a sample or a class.
    """
    notes = []
    for split in ("validation", "test"):
        names = [name for name, _ in contents.get(split, ())]
        if pooled and len(names) > 1:
            shown = ", ".join([*names[:MOST_SHOWN], *(["…"] if len(names) > MOST_SHOWN else [])])
            advice = " (--data.test NAME=FILE,NAME=FILE measures each by itself, too)" if split == "test" else ""
            notes.append(f"{split}: {len(names)} files are measured together: {shown}{advice}")
    first: dict[str, tuple[str, str]] = {}
    for split, files in contents.items():
        for name, checksum in files:
            other_split, other = first.setdefault(checksum, (split, name))
            if other_split != split:
                notes.append(f"{other_split} and {split} share their samples: {same_contents(other, name)}")
            elif other != name:
                notes.append(f"{split}: each of its samples counts twice: {same_contents(other, name)}")
    return notes


def same_contents(one: str, other: str) -> str:
    """Say that two files are the same."""
    return f"{one} is in both" if one == other else f"{one} and {other} have the same contents"
