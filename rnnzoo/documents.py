"""JSON, YAML and logged metrics from files that may be from anywhere, or damaged.

Of JSON and YAML the sizes are checked first, and every fault is one `InputError`.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import yaml

from rnnzoo.errors import InputError
from rnnzoo.limits import check_limit, limit, over_limit

COUNTED_FROM = 2**20  # characters; a shorter document holds too few values to count


def read_whole(path: Path, size: str) -> str:
    """Return the text of a file that is no larger than a limit.

    Args:
        path: the file.
        size: the name of the limit, see `rnnzoo.limits`.

    Raises:
        InputError: if it is larger, cannot be read or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(limit(size) + 1)
    except OSError as error:
        raise InputError(str(path), expected="a file that can be read", got=error.strerror or str(error)) from error
    check_limit(size, str(path), len(raw))
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(str(path), expected="UTF-8 text", got=f"byte 0x{raw[error.start]:02x}") from error


def read_json(path: Path, *, size: str, values: str) -> Any:
    """Return the value of a JSON file.

    Args:
        path: the file.
        size: the name of the limit on its bytes.
        values: the name of the limit on its values.

    Raises:
        InputError: if it is larger, or no JSON.
    """
    return parse_json(read_whole(path, size), str(path), values=values)


def parse_json(text: str | bytes, where: str, *, values: str = "JSON_VALUES", expected: str = "JSON") -> Any:
    """Return the value of a JSON text.

    Args:
        text: the text.
        where: what messages call it.
        values: the name of the limit on its values.
        expected: what it should have been, for messages.

    Raises:
        InputError: if it is none, is nested too deeply, or holds too many values.
    """
    if len(text) > min(COUNTED_FROM, limit(values)):
        count = text.count if isinstance(text, str) else lambda mark: text.count(mark.encode())
        check_limit(values, where, sum(map(count, ",[{")))
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(where, expected=expected, got="one that is nested too deeply") from error
    except ValueError as error:
        raise InputError(where, expected=expected, got=str(error)) from error


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of logged metrics, ``metrics.csv``; none if there is no such file.

    A row that was cut short by the end of a process, or in which a value is not a number, is left out.

    Args:
        path: the file.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        text = file.read().replace("\0", "")
    whole = text[: text.rfind("\n") + 1]
    try:
        rows = list(csv.DictReader(io.StringIO(whole, newline=""), restkey="", restval=None))
    except csv.Error:  # a quote that is never closed makes one value of the rest
        return []
    return [row for row in rows if "" not in row and all(map(is_number_or_empty, row.values()))]


def is_number_or_empty(text: Any) -> bool:
    """Return whether a value of a table is a number, or empty.

    >>> is_number_or_empty("1e-3"), is_number_or_empty(""), is_number_or_empty("x"), is_number_or_empty(None)
    (True, True, False, False)
    """
    try:
        return text == "" or float(text) is not None
    except (TypeError, ValueError):
        return False


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader, which refuses deep nesting, and aliases that multiply what is written."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, unless it is nested too deeply."""
        self.depth += 1
        if self.depth > limit("CONFIG_DEPTH"):
            raise over_limit("CONFIG_DEPTH", str(self.name), "more")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_document(self, node: Any) -> Any:
        """Construct the values of a document, unless there are too many."""
        check_limit("CONFIG_VALUES", str(self.name), written_out(node, {}, str(self.name)))
        return super().construct_document(node)


def written_out(node: Any, sizes: dict[int, int], where: str) -> int:
    """Return how many values a YAML node has if each alias in it is replaced by what it stands for.

    Raises:
        InputError: for a node inside itself.
    """
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise InputError(f"{where}, line {node.start_mark.line + 1}", expected="YAML", got="an alias of itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    total = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(written_out(each, sizes, where) for each in children)
    sizes[id(node)] = total
    return total


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; it runs no code.

    Raises:
        InputError: if it is malformed, with its line, is nested too deeply, or its aliases multiply.
    """
    loader = None
    try:
        loader = BoundedLoader(text)  # it looks for characters that YAML does not have
        loader.name = where
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark is not None else where
        raise InputError(
            place, expected="YAML", got=str(getattr(error, "problem", None) or error).splitlines()[0]
        ) from error
    except (ValueError, OverflowError, RecursionError) as error:  # of dates and numbers that are none
        if isinstance(error, InputError):
            raise
        raise InputError(where, expected="YAML", got=str(error)) from error
    finally:
        if loader is not None:
            loader.dispose()
