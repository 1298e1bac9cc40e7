"""Samples, words and frames without a label: what is read as none, and what becomes of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import datasets

from rnnzoo.data.base import ZooData
from rnnzoo.data.readers import Row
from rnnzoo.data.sources import fingerprint
from rnnzoo.errors import InputError

WORDS_FOR_NONE = ("NaN", "nan", "null", "None")
Label = Any  # a text, a list of texts, or numbers; "" and NaN where there is none


class LabelledData(ZooData):
    """Data whose samples have a label, or one for each of their words or frames; some may have none.

    No label is null, NaN, an empty text, -100, a -1 that is no class, and what `missing_labels` names. In training,
    samples without any label are left out. A validation or test split in which nothing has a label is left out.

    Args:
        missing_labels: further texts that are no label. None takes NaN, nan, null and None (not for tags of words);
            an empty list keeps them as classes.
        source: where the data come from; see `ZooData`.
    """

    item: ClassVar[str] = ""  # what has a label, if samples have several: word or frame
    words_for_none: tuple[str, ...] = WORDS_FOR_NONE

    def __init__(self, *, missing_labels: list[str] | None = None, **source: Any) -> None:
        super().__init__(**source)
        self.missing_labels = missing_labels

    @abstractmethod
    def label_columns(self) -> list[str]:
        """Return the columns of the data that hold the labels, or the numbers to predict."""

    def known_labels(self) -> Collection[str] | None:
        """Return the labels of the trained model that the data are for, if there is one."""
        labels = getattr(self._processor, "labels", None)
        return None if labels is None else labels.labels

    def with_label_columns(self, rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
        """Yield rows, with None for the label where a row has no such column.

        Raises:
            InputError: if training data lack the column, or others have one that differs in its case only.
        """
        columns = self.label_columns()
        seen = False
        for where, row in rows:
            missing = [name for name in columns if name not in row]
            seen = seen or not missing
            if missing and not seen:
                similar = {name.strip().lower() for name in row} & {name.lower() for name in missing}
                if self.reading_split == "train" or similar:
                    self.refuse_missing_column(row, missing[0], where)
            yield where, {**row, **dict.fromkeys(missing)} if missing else row

    def refuse_missing_column(self, row: Row, column: str, where: str) -> None:
        """Refuse a row without a column, naming those that it has.

        Raises:
            InputError: always.
        """
        name = next((name for name, own in self.columns.items() if own == column), None)
        if name is not None:
            self.pick(row, name, where)
        raise InputError(where, expected=f"a column {column!r}", got=", ".join(row), fix="see data.targets")

    def accept(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Leave out what has no label, with a note for each split.

        Raises:
            InputError: if the training split has no labels, or no split has.
        """
        if self.path is None and self.synthetic is not None:
            return splits
        column = self.canonical[1]
        labels = {split: table[column][:] for split, table in splits.items()}
        gaps = self._gaps(labels)
        accepted = {}
        for split, table in splits.items():
            cleaned = [without_gaps(label, gaps, keep=bool(self.item)) for label in labels[split]]
            unlabelled = {number for number, label in enumerate(cleaned) if not has_label(label)}
            notes += self._word_notes(split, labels[split], gaps)
            if len(unlabelled) == len(table) > 0:
                leave_out(self, split, len(table), "label", notes)
                continue
            if cleaned != labels[split]:
                key = fingerprint(table._fingerprint, "gaps", sorted(gaps))
                table = table.map(Cleaner(column, gaps, keep=bool(self.item)), new_fingerprint=key)
            if unlabelled:
                notes.append(f"{split}: {len(unlabelled):,} of {len(table):,} samples have no label and are left out")
                table = table.select([number for number in range(len(table)) if number not in unlabelled])
            if self.item:
                counts = [count_labels(label) for number, label in enumerate(cleaned) if number not in unlabelled]
                missing, total = (sum(numbers) for numbers in zip(*counts, strict=True))
                if missing:
                    notes.append(
                        f"{split}: {missing:,} of {total:,} {self.item}s have no label and are left out of loss and "
                        "metrics"
                    )
            accepted[split] = table
        if not accepted:
            raise InputError(
                f"{self.path or self.hub}: data.columns.{column}",
                expected="samples with a label",
                got="none",
                fix="answer them with `rnnzoo predict`",
            )
        return accepted

    def _gaps(self, labels: Mapping[str, Sequence[Label]]) -> set[str]:
        """Return the texts among labels, of all splits, that are no label."""
        counts = {split: Counter(texts_in(column)) for split, column in labels.items()}
        words = self.words_for_none if self.missing_labels is None else self.missing_labels
        sure = self.missing_labels is not None
        return find_gaps(counts, words, known=self.known_labels(), sure=sure)

    def _word_notes(self, split: str, labels: Sequence[Label], gaps: set[str]) -> list[str]:
        counts = Counter(text for text in texts_in(labels) if text in gaps and text and number_of(text) is None)
        listed = ", ".join(f"{count:,} {text!r}" for text, count in counts.items())
        advice = "" if self.missing_labels is not None else " (if it is a class: --data.missing_labels '[]')"
        return [f"{split}: {listed} among the labels read as no label{advice}"] if listed else []

    def _reading(self) -> list[Any]:
        return [*super()._reading(), self.label_columns()]


def leave_out(data: ZooData, split: str, count: int, what: str, notes: list[str]) -> None:
    """Leave a split of which no sample has an answer out of the training and the metrics, with a note.

    Args:
        data: the data, whose `unlabelled` gets the split.
        split: the split.
        count: its samples.
        what: what they lack: label or target.
        notes: takes the note.

    Raises:
        InputError: if it is the training split.
    """
    if split == "train":
        raise InputError(
            f"{data.path or data.hub}: data.columns.{data.canonical[1]}",
            expected=f"training samples with a {what}",
            got=f"{count:,} without",
            fix="name the column of the data that holds it",
        )
    data.unlabelled.add(split)
    notes.append(
        f"{split}: none of {count:,} samples has a {what}, so the split is left out (`rnnzoo predict` answers it)"
    )


class Cleaner:
    """Replaces what is no label in the rows of a table; a class, since `datasets` pickles it.

    Args:
        column: the column of the labels.
        gaps: the texts that are no label.
        keep: see `without_gaps`.
    """

    def __init__(self, column: str, gaps: set[str], *, keep: bool) -> None:
        self.column, self.gaps, self.keep = column, gaps, keep

    def __call__(self, row: Row) -> Row:
        """Return the cleaned column of a row."""
        return {self.column: without_gaps(row[self.column], self.gaps, keep=self.keep)}


def label_text(value: Any) -> str:
    """Return a label as text: an empty one for null, NaN and blanks.

    >>> label_text(3), label_text(None), label_text(float("nan")), label_text("  ")
    ('3', '', '', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = str(value)
    return text if text.strip() else ""


def number_of(text: str) -> float | None:
    """Return the number that a text reads as, or None.

    >>> number_of("-1.0"), number_of("nan"), number_of("pos")
    (-1.0, None, None)
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def find_gaps(
    counts: Mapping[str, Mapping[str, int]], words: Collection[str], *, known: Collection[str] | None, sure: bool
) -> set[str]:
    """Return the texts among labels that are no label.

    These are empty texts, -100, -1 unless it is one of several numbers in training, and `words` unless fewer than two
    classes would be left. Of a trained model, what it knows as a label stays one.

    Args:
        counts: split → label → how often it occurs.
        words: texts that may be no label.
        known: the labels of a trained model.
        sure: `words` are no label, however few classes are left.

    >>> sorted(find_gaps({"train": {"a": 3, "b": 2, "NaN": 1, "-1": 2}}, ["NaN"], known=None, sure=False))
    ['', '-1', 'NaN']
    >>> sorted(find_gaps({"train": {"-1": 3, "1": 2}, "test": {"-100": 1}}, ["NaN"], known=None, sure=False))
    ['', '-100']
    """
    texts = {text for split in counts.values() for text in split}
    always = {"", *(text for text in texts if number_of(text) == -100)}
    minus = {text for text in texts if number_of(text) == -1}
    named = texts & set(words)
    if known is not None:
        return always | ((minus | named) - set(known))
    train = set(counts.get("train", ())) - always
    if not sure and len(train - named - minus) < 2 <= len(train - minus):
        named = set()  # None against Some, for one
    classes = train - named
    others = classes - minus
    if others and all(number_of(text) is not None for text in others):
        minus -= classes
    return always | named | minus


def texts_in(labels: Iterable[Label]) -> Iterator[str]:
    """Yield the texts among labels, lists of texts and numbers."""
    for label in labels:
        for value in label if isinstance(label, list) else [label]:
            if isinstance(value, str):
                yield value


def without_gaps(label: Label, gaps: Collection[str], *, keep: bool) -> Label:
    """Return a label with an empty text for what is none; a set of labels loses it, unless positions are kept.

    >>> without_gaps("-1", {"-1"}, keep=False), without_gaps(["a", "-1"], {"-1"}, keep=True)
    ('', ['a', ''])
    >>> without_gaps(["a", "-1"], {"-1"}, keep=False), without_gaps(["-1"], {"-1"}, keep=False)
    (['a'], [''])
    """
    if isinstance(label, str):
        return "" if label in gaps else label
    if not label or not isinstance(label[0], str):
        return label
    if keep:
        return ["" if text in gaps else text for text in label]
    return [text for text in label if text not in gaps] or [""]


def has_label(label: Label) -> bool:
    """Return whether a sample has a label: a text, an empty set of labels, any word or frame with one, or a number.

    >>> has_label(""), has_label([]), has_label(["", "a"]), has_label([math.nan]), has_label([[math.nan, 2.0]])
    (False, True, True, False, True)
    """
    if isinstance(label, list):
        return not label or any(has_label(value) for value in label)
    return label == label and label != ""  # NaN differs from itself


def count_labels(labels: Sequence[Label]) -> tuple[int, int]:
    """Return how many words or frames of a sample have no label, and how many there are."""
    return sum(not has_label(label) for label in labels), len(labels)
