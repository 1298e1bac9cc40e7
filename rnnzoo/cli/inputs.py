"""What a run is trained on: the checksums of its files, so that it is never resumed on others without a word."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rnnzoo.bundle import sha256, weights_file
from rnnzoo.cli.engine import ZooCLI
from rnnzoo.cli.run_folder import ALLOW_CHANGED_DATA
from rnnzoo.documents import read_json
from rnnzoo.errors import InputError
from rnnzoo.files import write_atomically

NAME = "inputs.json"
READ_AS_DATA = ("path", "train", "validation", "test")  # arguments of data whose files the data module checks itself


@dataclass
class Inputs:
    """The files of a run.

    Args:
        data: file → SHA-256, or one entry for the revision of a data set of the Hub or a synthetic task.
        files: other files that the configuration names, by their keys → SHA-256.
        changes: sentences on what was changed when the run was resumed.
    """

    data: dict[str, str]
    files: dict[str, str]
    changes: list[str] = field(default_factory=list)

    def write(self, run: Path) -> None:
        """Write ``inputs.json`` into a run folder."""
        text = json.dumps({"data": self.data, "files": self.files, "changes": self.changes}, indent=1)
        write_atomically(run / NAME, text + "\n")


def inputs_of(cli: ZooCLI) -> Inputs:
    """Return the files that a training reads, with their checksums."""
    description = cli.datamodule.describe()
    revision = description.revision
    data = dict(revision) if isinstance(revision, Mapping) else {description.source: str(revision)}
    tree = yaml.safe_load(cli.resolved())
    files = {}
    for section in ("imports", "model", "data"):
        for key, value in named_files(tree.get(section), section):
            files[key] = sha256(value)
    return Inputs(data, files)


def named_files(value: Any, key: str) -> Iterator[tuple[str, Path]]:
    """Yield the files that a part of a configuration names, each with its key; imports by the name of the file."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if key != "data.init_args" or name not in READ_AS_DATA:
                yield from named_files(inner, f"{key}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            named = key == "imports" and isinstance(inner, str)
            yield from named_files(inner, f"{key}.{Path(inner).name if named else index}")
    elif isinstance(value, str) and value:
        path = Path(value)
        if key == "model.init_args.init_from":
            yield key, weights_file(path)
        elif ("/" in value or path.suffix) and is_file(path):  # not any word that a file has for a name
            yield key, path


def is_file(path: Path) -> bool:
    """Return whether a text of a configuration is the path of a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a null character
        return False


def check_inputs(cli: ZooCLI, run: Path, *, allow: bool) -> Inputs:
    """Return the files of a training; of one that is resumed, see that they are those that it began with.

    Args:
        cli: the training, built.
        run: its folder.
        allow: whether it may go on with others; this is kept among the changes.

    Raises:
        InputError: naming the files that changed.
    """
    now = inputs_of(cli)
    if cli.resumed is None:
        return now
    before = read_inputs(run)
    if before is None:  # a run of an earlier version
        return now
    changed = [*differences(before.data, now.data), *differences(before.files, now.files)]
    now.changes = before.changes
    if changed and not allow:
        raise InputError(
            f"--resume {run}",
            expected="the files that the run began with",
            got="; ".join(changed),
            fix=f"bring them back, or give --{ALLOW_CHANGED_DATA} to go on with these",
        )
    if changed:
        change = f"resumed after {cli.resumed.steps} steps on changed files: {'; '.join(changed)}"
        now.changes = [*before.changes, change]
    return now


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what is said of files that changed; one that was renamed did not.

    >>> differences({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "3", "e": "5"})
    ['b was changed', 'e is new']
    >>> differences({"a": "1", "b": "2"}, {"a": "1"})
    ['b is missing']
    """
    missing = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    for name in list(missing):
        renamed = next((other for other in new if now[other] == before[name]), None)
        if renamed is not None:
            missing.remove(name)
            new.remove(renamed)
    told = {name: "was changed" for name in before if name in now and before[name] != now[name]}
    told |= dict.fromkeys(missing, "is missing") | dict.fromkeys(new, "is new")
    return [f"{name} {state}" for name, state in sorted(told.items())]


def read_inputs(run: Path) -> Inputs | None:
    """Return what a run folder tells of its files; None if there is no such record.

    Raises:
        InputError: if the record is damaged.
    """
    path = run / NAME
    if not path.is_file():
        return None
    try:
        record = read_json(path, size="FILE_BYTES", values="JSON_VALUES")
        return Inputs(dict(record["data"]), dict(record["files"]), list(record["changes"]))
    except (ValueError, KeyError, TypeError) as error:
        fix = "remove it, and the files are not compared"
        raise InputError(str(path), expected="JSON that rnnzoo wrote", got="other contents", fix=fix) from error
