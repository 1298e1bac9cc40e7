"""Columns of a table that only count its rows, which say nothing of a sample but where it stood in a file."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rnnzoo.data.readers import Row

# What pandas and R call row numbers: an empty header in CSV, "Unnamed: 0" once that is read and written again,
# "__index_level_0__" in Parquet.
ROW_NUMBERS = re.compile(r"(unnamed: 0(\.\d+)*|__index_level_\d+__)?", re.IGNORECASE)
# Names whose whole numbers tell rows apart, even with gaps: of a table from which rows were dropped.
IDENTIFIERS = re.compile(
    r"(row[ _]?)?(id|idx|index|nr|no|number|names)|row|#|.*([ _-]id|(?-i:[a-z]I[dD]))", re.IGNORECASE
)
WHOLE_NUMBER = re.compile(r"\s*(-?[0-9]{1,18})(\.0*)?\s*")
FEWEST = 3  # values of a column that counts; one or two may be consecutive by chance
FIRST_CHECK = 16  # values


@dataclass(frozen=True)
class RowSource:
    """Rows that can be read again: those of a file, or of a split of the Hub.

    Args:
        name: the file or the split.
        split: ``train``, ``validation`` or ``test``.
        read: columns, or None for all → rows with their position for error messages. Formats that store rows as lines
            yield all columns in any case.
    """

    name: str
    split: str
    read: Callable[[Sequence[str] | None], Iterator[tuple[str, Row]]]


class DistinctIntegers:
    """Integers that come one by one, until one comes twice."""

    def __init__(self) -> None:
        self.values = array("q")
        self._next_check = FIRST_CHECK

    def add(self, value: int) -> bool:
        """Add a value and return whether all differ so far, as of the last time that their number doubled."""
        self.values.append(value)
        if len(self.values) < self._next_check:
            return True
        self._next_check *= 2
        return is_distinct(self.values)


Group = tuple[int, Any]  # the index of a source, and of a sequence in it its id
Counts = dict[Group, DistinctIntegers]


def row_counters(
    sources: Sequence[RowSource], columns: Sequence[str], *, sequence: str | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the columns that count rows, as column → reason: those told by their names, and those by their values.

    The values of a column count rows if they are all different whole numbers that are consecutive once they are
    sorted: in each training file, in each sequence, in all training files together, or in the files of all splits
    together (a table that was numbered before it was split). Of a column called ``id``, ``index`` or ``PassengerId``
    they need only be different.

    Args:
        sources: the rows, those for training first.
        columns: the columns in question.
        sequence: the column that tells sequences apart.
    """
    named = {name: "row numbers" for name in columns if ROW_NUMBERS.fullmatch(name.strip())}
    candidates = [name for name in columns if name not in named]
    training = [source for source in sources if source.split == "train"]
    others = [source for source in sources if source.split != "train"]
    counts = read_integers(training, candidates, sequence)
    counting = {name for name, groups in counts.items() if counts_rows(groups)}
    counting |= {name for name in counts if IDENTIFIERS.fullmatch(name.strip()) and has_several(counts[name])}
    rest = [name for name in counts if name not in counting and others]
    for name, groups in read_integers(others, rest, None).items():
        if groups and is_consecutive([*counts[name].values(), *groups.values()]):
            counting.add(name)
    return named, {name: "counts the rows" for name in columns if name in counting}


def read_integers(sources: Iterable[RowSource], columns: Sequence[str], sequence: str | None) -> dict[str, Counts]:
    """Return the values of columns of different integers, by source and sequence; other columns are dropped.

    Rows are read until no column is left.
    """
    counts: dict[str, Counts] = {name: {} for name in columns}
    for index, source in enumerate(sources):
        if not counts:
            break
        for _, row in source.read([*counts, *([] if sequence is None else [sequence])]):
            group = (index, None if sequence is None else str(row.get(sequence)))
            for name in list(counts):
                value = as_integer(row.get(name))
                if value is not None and group not in counts[name]:
                    counts[name][group] = DistinctIntegers()
                if value is None or not counts[name][group].add(value):
                    del counts[name]
            if not counts:
                break
    return {name: groups for name, groups in counts.items() if all(is_distinct(g.values) for g in groups.values())}


def as_integer(value: Any) -> int | None:
    """Return a whole number, or a text that reads as one; None for all else.

    pandas turns the integers of an index into floats where tables with and without it are joined.

    >>> as_integer("12"), as_integer("12.0"), as_integer(7.0), as_integer("1e3"), as_integer(0.5), as_integer(True)
    (12, 12, 7, None, None, None)
    """
    if isinstance(value, str):
        match = WHOLE_NUMBER.fullmatch(value)
        return None if match is None else int(match[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**62 or value % 1:
        return None
    return int(value)


def counts_rows(groups: Mapping[Group, DistinctIntegers]) -> bool:
    """Return whether the values are consecutive in each sequence, in each source, or in all together."""
    by_source: dict[int, list[DistinctIntegers]] = {}
    for (index, _), integers in groups.items():
        by_source.setdefault(index, []).append(integers)
    partitions = ([[integers] for integers in groups.values()], list(by_source.values()), [list(groups.values())])
    return any(
        all(map(is_consecutive, parts)) and max(sum(len(g.values) for g in part) for part in parts) >= FEWEST
        for parts in partitions
        if parts
    )


def has_several(groups: Mapping[Group, DistinctIntegers]) -> bool:
    """Return whether a sequence, or a source, has so many values that it is no chance that they differ."""
    return max((len(integers.values) for integers in groups.values()), default=0) >= FEWEST


def is_distinct(values: array[int]) -> bool:
    """Return whether no value comes twice."""
    return len(np.unique(np.frombuffer(values, dtype=np.int64))) == len(values) if values else True


def is_consecutive(parts: Iterable[DistinctIntegers]) -> bool:
    """Return whether all values together are start, start + 1, ..., each once, in any order."""
    values = np.concatenate([np.frombuffer(part.values, dtype=np.int64) for part in parts])
    return len(values) > 0 and int(values.max()) - int(values.min()) == len(values) - 1 == len(np.unique(values)) - 1
