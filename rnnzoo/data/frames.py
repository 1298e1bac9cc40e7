"""Sequences of frames with a label, or numbers, for each frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from rnnzoo.data.base import ZooData
from rnnzoo.data.numbers import NumberColumns
from rnnzoo.data.readers import Row
from rnnzoo.data.row_counters import RowSource
from rnnzoo.data.sources import fingerprint
from rnnzoo.data.tables import Sample
from rnnzoo.errors import InputError
from rnnzoo.processors.frames import FrameProcessor, derive, derived_names
from rnnzoo.processors.normalisation import Normalisation, as_table
from rnnzoo.text.labels import LabelMap


class FrameData(ZooData):
    """Videos or sensor records to be labelled frame by frame.

    A row of a table is a frame, a file is a sequence, unless a column says which sequence a row belongs to.
    Training cuts sequences into windows; evaluation reads them whole.

    Args:
        features: the columns that are inputs; None takes all but the label whose first value is a number, without
            columns that only count the rows (of a file, or of each sequence).
        targets: the columns to predict as numbers; None classifies by the column ``label``.
        rename_labels: labels of the data → labels to use, for misspellings and for merging classes.
        sequence: the column whose value tells sequences apart; rows of a sequence stand together.
        normalise_sequences: bring each sequence to mean 0 and deviation 1 by itself, before the normalisation that is
            measured on the training part; for people or devices that differ by an offset.
        deltas: for each number k of frames, add the slopes of all features over k frames to both sides.
        window_size: frames of a training window; None trains on whole sequences.
        window_stride: frames from one window to the next; the size of a window if left out.
        source: where the data come from; see `ZooData`.
    """

    formats = ("csv", "tsv", "jsonl", "parquet")
    canonical = ("frames", "labels")

    def __init__(
        self,
        *,
        features: list[str] | None = None,
        targets: list[str] | None = None,
        rename_labels: dict[str, str] | None = None,
        sequence: str | None = None,
        normalise_sequences: bool = False,
        deltas: list[int] | None = None,
        window_size: int | None = None,
        window_stride: int | None = None,
        **source: Any,
    ) -> None:
        super().__init__(**source)
        for name, size in (("window_size", window_size), ("window_stride", window_stride)):
            if size is not None and size < 1:
                raise InputError(f"data.{name}", expected="at least 1", got=str(size))
        self.numbers = NumberColumns(
            features, targets, rename_labels or {}, label=self.columns["labels"], other=sequence
        )
        if any(delta < 1 for delta in deltas or ()):
            raise InputError("data.deltas", expected="numbers of at least 1", got=str(deltas))
        self.sequence = sequence
        self.derivation: dict[str, Any] = {"normalise_sequences": normalise_sequences, "deltas": deltas or []}
        self.window_size = window_size
        self.window_stride = window_stride or window_size

    def inspect(self, sources: Sequence[RowSource], notes: list[str]) -> None:
        """Choose the input columns: those of a trained model if there is one."""
        if isinstance(self._processor, FrameProcessor):
            scale = self._processor.targets_scale
            self.numbers.follow(self._processor.features, None if scale is None else scale.names, sources)
        self.numbers.choose(sources, notes)

    def input_columns(self) -> tuple[list[str], dict[str, str]]:
        """Return the input columns, and those that were left out with the reason."""
        return self.numbers.features or [], self.numbers.left_out

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"name", "frames", "labels"}``, a sequence each."""
        name = Path(file).name
        frames: list[list[float]] = []
        labels: list[str | list[float]] = []
        current: Any = None
        for where, row in rows:
            if self.sequence is not None:
                if self.sequence not in row:
                    raise InputError(where, expected=f"a column among {', '.join(row)}", got=repr(self.sequence))
                if frames and row[self.sequence] != current:
                    yield {"name": f"{name} {current}", "frames": frames, "labels": labels}
                    frames, labels = [], []
                current = row[self.sequence]
            inputs, answer = self.numbers.split(row, where)
            frames.append(inputs)
            labels.append(answer)
        if frames:
            yield {"name": name if current is None else f"{name} {current}", "frames": frames, "labels": labels}

    def learn_processor(self, train: datasets.Dataset) -> FrameProcessor:
        """Measure the inputs of the training part and collect its labels."""
        answers = train["labels"][:]
        frames = train["frames"][:]
        features = self.numbers.features or [f"x{place}" for place in range(len(frames[0][0]))]
        if isinstance(answers[0][0], str):
            labels: LabelMap | None = LabelMap.learn(label for sequence in answers for label in sequence)
            targets_scale = None
        else:
            names = self.numbers.targets or [f"y{place}" for place in range(len(answers[0][0]))]
            labels, targets_scale = None, Normalisation.learn(names, answers)
        tables = (derive(as_table(table, features, "training frames"), **self.derivation) for table in frames)
        return FrameProcessor(
            inputs_scale=Normalisation.learn(derived_names(features, self.derivation["deltas"]), tables),
            labels=labels,
            targets_scale=targets_scale,
            features=features,
            **self.derivation,
        )

    def training_rows(self, table: datasets.Dataset) -> datasets.Dataset:
        """Cut sequences into windows; the last window of a sequence ends with it."""
        if self.window_size is None:
            return table
        settings = {"size": self.window_size, "stride": self.window_stride}
        return table.map(
            cut_windows,
            batched=True,
            batch_size=1,
            fn_kwargs=settings,
            new_fingerprint=fingerprint(table._fingerprint, "windows", settings),
        )

    def _reading(self) -> list[Any]:
        return [*super()._reading(), *self.numbers.settings(), self.sequence]


def cut_windows(rows: dict[str, list[Any]], size: int, stride: int) -> dict[str, list[Any]]:
    """Cut each sequence of a batch of rows into windows of `size` frames, or fewer for a shorter sequence.

    >>> cut_windows({"frames": [[[1], [2], [3]]], "targets": [[0, 1, 0]], "length": [3]}, 2, 2)["frames"]
    [[[1], [2]], [[2], [3]]]
    """
    cut: dict[str, list[Any]] = {"frames": [], "targets": [], "length": []}
    for frames, targets in zip(rows["frames"], rows["targets"], strict=True):
        last = max(0, len(frames) - size)
        for start in [*range(0, last, stride), last]:
            window = frames[start : start + size]
            cut["frames"].append(window)
            cut["targets"].append(targets[start : start + size])
            cut["length"].append(len(window))
    return cut
