"""Which columns of a table are inputs, and which the answer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rnnzoo.data.labelled import WORDS_FOR_NONE, label_text
from rnnzoo.data.readers import Row
from rnnzoo.data.row_counters import RowSource, row_counters
from rnnzoo.errors import InputError, did_you_mean


class NumberColumns:
    """Inputs and answer of the rows of a table.

    Args:
        features: the input columns; None takes all but the answer whose value in the first row is a number, and that
            do not merely count the rows.
        targets: the columns to predict as numbers; None takes the label.
        rename_labels: label of the data → label to use.
        label: the column of the label.
        other: a further column that is no input, such as the name of a sequence.
    """

    def __init__(
        self,
        features: list[str] | None,
        targets: list[str] | None,
        rename_labels: Mapping[str, str],
        *,
        label: str,
        other: str | None = None,
    ) -> None:
        self.features = features
        self.targets = targets
        self.rename_labels = dict(rename_labels)
        self.label = label
        self.other = other
        self.left_out: dict[str, str] = {}  # column → why it is no input

    def named(self) -> list[str]:
        """Return the columns that are named as inputs or answers."""
        return [*(self.features or ()), *(self.targets or ())]

    def follow(self, features: Sequence[str], targets: Sequence[str] | None, sources: Sequence[RowSource]) -> None:
        """Take the columns of a trained model, by their names, unless others were named or the rows have none."""
        _, row = next(sources[0].read(None), ("", {}))
        if self.features is None and any(name in row for name in features):
            self.features = list(features)
        if self.targets is None and targets and any(name in row for name in targets):
            self.targets = list(targets)

    def choose(self, sources: Sequence[RowSource], notes: list[str]) -> None:
        """Choose the input columns, unless they were named: numbers, but for columns that count the rows.

        A gap or NaN counts as a number here, so that it is refused later instead of dropping the column.

        Args:
            sources: the rows, those for training first.
            notes: takes a sentence on columns that count rows.

        Raises:
            InputError: if there is none.
        """
        if self.features is not None:
            return
        where, row = next(sources[0].read(None), (sources[0].name, {}))
        answers = [*(self.targets or [self.label]), self.other]
        columns = [name for name in row if name not in answers]
        numbers = [name for name in columns if may_be_number(row[name])]
        named, counting = row_counters(sources, numbers, sequence=self.other)
        counters = {**named, **counting}
        if counting and set(counters) == set(numbers):  # what nothing but its values speaks against is the only input
            notes.append(f"{listed(counting)}, the only input, counts the rows: check that it is no row number")
            counters = named
        self.features = [name for name in numbers if name not in counters]
        self.left_out = {name: counters.get(name, "no number") for name in columns if name not in self.features}
        if not self.features:
            raise InputError(
                where,
                expected="columns of numbers",
                got=f"none among {', '.join(name or repr(name) for name in row)}"
                + (f" but row numbers ({listed(counters)})" if counters else ""),
                fix="name them in data.features",
            )
        if counters:
            notes.append(
                f"left out, since it only counts the rows: {listed(counters)} (to keep it, name it in data.features: "
                f"{json.dumps([*self.features, *counters], ensure_ascii=False)})"
            )

    def split(self, row: Row, where: str) -> tuple[list[float], str | list[float]]:
        """Return the inputs of a row and its answer: a label, or numbers; an empty text or NaN where there is none.

        Raises:
            InputError: if a column is missing or holds no finite number.
        """
        inputs = [self._number(row, name, where) for name in self.features or ()]
        if self.targets is not None:
            return inputs, [self._target(row, name, where) for name in self.targets]
        label = label_text(self._value(row, self.label, where))
        return inputs, self.rename_labels.get(label, label)

    def settings(self) -> list[Any]:
        """Return what changes the result, as JSON values."""
        return [self.features, self.targets, self.rename_labels]

    def _value(self, row: Row, name: str, where: str) -> Any:
        if name not in row:
            raise InputError(
                where, expected=f"a column among {', '.join(row)}", got=repr(name), fix=did_you_mean(name, row)
            )
        return row[name]

    def _target(self, row: Row, name: str, where: str) -> float:
        text = label_text(self._value(row, name, where)).strip()
        return math.nan if text in ("", *WORDS_FOR_NONE) else self._number(row, name, where)

    def _number(self, row: Row, name: str, where: str) -> float:
        value = self._value(row, name, where)
        if not is_number(value):
            raise InputError(
                f"{where}, column {name!r}", expected="a finite number", got=repr(value), fix="fill or drop such rows"
            )
        return float(value)


def sequence_id(row: Row, column: str, where: str) -> str:
    """Return the id of the sequence that a row belongs to.

    Raises:
        InputError: if there is none.
    """
    if column not in row:
        raise InputError(
            where, expected=f"a column among {', '.join(row)}", got=repr(column), fix=did_you_mean(column, row)
        )
    value = row[column]
    if value is None or value != value or not str(value).strip():  # NaN
        raise InputError(
            f"{where}, column {column!r}", expected="the id of a sequence", got="none", fix="fill or drop such rows"
        )
    return str(value)


def listed(names: Iterable[str]) -> str:
    """Return the names of columns for a sentence."""
    return ", ".join(map(repr, names))


def may_be_number(value: Any) -> bool:
    """Return whether a column with this value may be one of numbers: a number, NaN, infinity, or a gap.

    >>> may_be_number("nan"), may_be_number(""), may_be_number("2015-02-04")
    (True, True, False)
    """
    try:
        float(value)
    except (TypeError, ValueError):
        return value is None or (isinstance(value, str) and not value.strip())
    return True


def is_number(value: Any) -> bool:
    """Return whether a value is, or reads as, a finite number.

    >>> is_number("2.5"), is_number("nan"), is_number("2015-02-04")
    (True, False, False)
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return number - number == 0
