"""Texts with a label, or with a set of labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets

from rnnzoo.data.labelled import LabelledData, label_text
from rnnzoo.data.readers import COMPRESSIONS, Row
from rnnzoo.data.sources import EXTENSIONS, split_of
from rnnzoo.data.tables import Sample
from rnnzoo.errors import InputError
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions


class TextClassificationData(LabelledData):
    """Texts to be classified.

    Files are tables (CSV, TSV, JSONL, Parquet) with the columns ``text`` and ``label``, or, with
    ``class_per_file: true``, one text file for each class with a sample a line.

    Args:
        tokenizer: what a token is.
        multi_label: a sample has a list of labels; in tables of text they are separated by `label_separator`.
        label_separator: what stands between the labels of a sample.
        class_per_file: each text file holds the samples of the class that it is named after.
        max_length: the longest text in tokens; of longer ones the beginning is kept, and the report says how many.
        source: where the data come from, and `missing_labels`; see `LabelledData`.
    """

    formats: tuple[str, ...] = ("csv", "tsv", "jsonl", "parquet")
    canonical = ("text", "label")

    def __init__(
        self,
        *,
        tokenizer: TokenizerOptions = TokenizerOptions(),
        multi_label: bool = False,
        label_separator: str = ",",
        class_per_file: bool = False,
        max_length: int | None = None,
        **source: Any,
    ) -> None:
        super().__init__(**source)
        self.tokenizer_options = tokenizer
        self.multi_label = multi_label
        self.label_separator = label_separator
        self.class_per_file = class_per_file
        self.max_length = max_length
        if max_length is not None and max_length < 1:
            raise InputError("data.max_length", expected="at least 1", got=str(max_length))
        if class_per_file:
            self.formats = ("text",)
            self.words_for_none = ()  # files are named on purpose

    def pools_files(self) -> bool:
        """Return whether a file holds several classes."""
        return not self.class_per_file

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"text", "label"}``, with an empty label (or a list of one) for none; an empty text is refused."""
        for where, row in self.with_label_columns(rows):
            text = self.pick(row, "text", where)
            if not isinstance(text, str) or not text.strip():
                got = "an empty one" if isinstance(text, str) else repr(text)
                raise InputError(where, expected="a text", got=got, fix="drop the row")
            label = class_of(Path(file)) if self.class_per_file else self.pick(row, "label", where)
            if self.multi_label:
                yield {"text": text, "label": self._label_set(label, where)}
            else:
                yield {"text": text, "label": label_text(label)}

    def _label_set(self, label: Any, where: str) -> list[str]:
        """Return the labels of a sample; ``[""]`` if it is not labelled, which is not the same as having none."""
        if label is None or label != label:  # NaN
            return [""]
        if isinstance(label, list) and None in label:
            raise InputError(where, expected="a list of labels", got=repr(label), fix="drop the row")
        parts = label if isinstance(label, list) else str(label).split(self.label_separator)
        return [str(part).strip() for part in parts if str(part).strip()]

    def label_columns(self) -> list[str]:
        """Return the column of the label, unless files tell it."""
        return [] if self.class_per_file else [self.columns["label"]]

    def learn_processor(self, train: datasets.Dataset) -> TextClassificationProcessor:
        """Train the tokenizer and collect the labels."""
        labels = train["label"]
        names = (name for label in labels for name in label) if self.multi_label else iter(labels)
        return TextClassificationProcessor(
            tokenizer=Tokenizer.train(train["text"], self.tokenizer_options),
            labels=LabelMap.learn(names),
            multi_label=self.multi_label,
            max_length=self.max_length,
        )

    def _reading(self) -> list[Any]:
        return [*super()._reading(), self.multi_label, self.label_separator, self.class_per_file]


def class_of(path: Path) -> str:
    """Return the class that a file is named for: its name without the split and the ends that say what is in it.

    >>> class_of(Path("New.York.txt.gz")), class_of(Path("train.pos.txt")), class_of(Path("Irish"))
    ('New.York', 'pos', 'Irish')
    """
    name = path.name
    for end in (*COMPRESSIONS, *EXTENSIONS):
        name = name.removesuffix(end)
    parts = [part for part in name.split(".") if split_of(part) is None]
    return ".".join(parts) or name
