"""Fixed-size inputs with a label, or with numbers to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets

from rnnzoo.data.labelled import LabelledData
from rnnzoo.data.numbers import NumberColumns
from rnnzoo.data.readers import Row
from rnnzoo.data.row_counters import RowSource
from rnnzoo.data.tables import Sample
from rnnzoo.processors.normalisation import Normalisation
from rnnzoo.processors.vectors import VectorProcessor
from rnnzoo.text.labels import LabelMap


class VectorData(LabelledData):
    """Rows of numbers to be classified, one sample a row of a table.

    Args:
        features: the columns that are inputs; None takes all but the label whose first value is a number, without
            columns that only count the rows.
        targets: the columns to predict as numbers; None classifies by the column ``label``.
        rename_labels: labels of the data → labels to use, for misspellings and for merging classes.
        source: where the data come from, and `missing_labels`; see `LabelledData`.
    """

    formats = ("csv", "tsv", "jsonl", "parquet")
    canonical = ("vector", "label")

    def __init__(
        self,
        *,
        features: list[str] | None = None,
        targets: list[str] | None = None,
        rename_labels: dict[str, str] | None = None,
        **source: Any,
    ) -> None:
        super().__init__(**source)
        self.numbers = NumberColumns(features, targets, rename_labels or {}, label=self.columns["label"])

    def inspect(self, sources: Sequence[RowSource], notes: list[str]) -> None:
        """Choose the input columns: those of a trained model if there is one."""
        if isinstance(self._processor, VectorProcessor):
            scale = self._processor.targets_scale
            self.numbers.follow(self._processor.features, None if scale is None else scale.names, sources)
        self.numbers.choose(sources, notes)

    def column_roles(self) -> dict[str, str]:
        """Return the column of the label, unless numbers are to be predicted."""
        return {} if self.numbers.targets else {self.columns["label"]: "label"}

    def further_columns(self) -> Sequence[str]:
        """Return the columns that the settings, or a trained model, name."""
        trained = self._processor.features if isinstance(self._processor, VectorProcessor) else []
        return [*trained, *self.numbers.named()]

    def input_columns(self) -> tuple[list[str], dict[str, str]]:
        """Return the input columns, and those that were left out with the reason."""
        return self.numbers.features or [], self.numbers.left_out

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"vector", "label"}``."""
        for where, row in self.with_label_columns(rows):
            inputs, answer = self.numbers.split(row, where)
            yield {"vector": inputs, "label": answer}

    def label_columns(self) -> list[str]:
        """Return the columns of the answer."""
        return self.numbers.targets or [self.numbers.label]

    def learn_processor(self, train: datasets.Dataset) -> VectorProcessor:
        """Measure the inputs and collect the labels."""
        answers = train["label"][:]
        vectors = train["vector"][:]
        features = self.numbers.features or [f"x{place}" for place in range(len(vectors[0]))]
        if isinstance(answers[0], str):
            labels, targets_scale = LabelMap.learn(answers), None
        else:
            names = self.numbers.targets or [f"y{place}" for place in range(len(answers[0]))]
            labels, targets_scale = None, Normalisation.learn(names, [answers])
        return VectorProcessor(
            inputs_scale=Normalisation.learn(features, [vectors]), labels=labels, targets_scale=targets_scale
        )

    def _reading(self) -> list[Any]:
        return [*super()._reading(), *self.numbers.settings()]
