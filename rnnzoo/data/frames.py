"""Sequences of frames with a label, or numbers, for each frame."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from rnnzoo.data.base import FileFormat
from rnnzoo.data.labelled import LabelledData
from rnnzoo.data.numbers import NumberColumns, sequence_id
from rnnzoo.data.readers import Row
from rnnzoo.data.row_counters import RowSource
from rnnzoo.data.sources import fingerprint
from rnnzoo.data.tables import Sample
from rnnzoo.errors import InputError
from rnnzoo.processors.frames import FrameProcessor, derive, derived_names
from rnnzoo.processors.normalisation import Normalisation, as_table
from rnnzoo.text.labels import LabelMap


class FrameData(LabelledData):
    """Videos or sensor records to be labelled frame by frame.

    A row of a table is a frame, a file is a sequence, unless a column says which sequence a row belongs to.
    Training cuts sequences into windows; evaluation reads them whole.

    Args:
        features: the columns that are inputs; None takes all but the label whose first value is a number, without
            columns that only count the rows (of a file, or of each sequence).
        targets: the columns to predict as numbers; None classifies by the column ``label``.
        rename_labels: labels of the data → labels to use, for misspellings and for merging classes.
        sequence: the column whose value tells sequences apart. Rows with the same value are one sequence, in the order
            in which they come, also where rows of others stand between them or they go on in a further file of the
            split; a note says so.
        normalise_sequences: bring each sequence to mean 0 and deviation 1 by itself, before the normalisation that is
            measured on the training part; for people or devices that differ by an offset.
        deltas: for each number k of frames, add the slopes of all features over k frames to both sides.
        window_size: frames of a training window; None trains on whole sequences.
        window_stride: frames from one window to the next; the size of a window if left out.
        source: where the data come from, and `missing_labels`; see `LabelledData`.
    """

    item = "frame"
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

    def column_roles(self) -> dict[str, str]:
        """Return the column of the label, unless numbers are to be predicted."""
        return {} if self.numbers.targets else {self.columns["labels"]: "labels"}

    def further_columns(self) -> Sequence[str]:
        """Return the columns that the settings, or a trained model, name."""
        trained = self._processor.features if isinstance(self._processor, FrameProcessor) else []
        return [*trained, *self.numbers.named(), *([] if self.sequence is None else [self.sequence])]

    def input_columns(self) -> tuple[list[str], dict[str, str]]:
        """Return the input columns, and those that were left out with the reason."""
        return self.numbers.features or [], self.numbers.left_out

    def pools_files(self) -> bool:
        """Return whether a file holds several sequences."""
        return self.sequence is not None

    def samples(self, rows: Iterable[tuple[str, Row]], file: str) -> Iterator[Sample]:
        """Yield ``{"name", "frames", "labels"}``, a sequence each, in the order in which they begin."""
        if self.sequence is None:
            frames, labels = [], []
            for where, row in self.with_label_columns(rows):
                inputs, answer = self.numbers.split(row, where)
                frames.append(inputs)
                labels.append(answer)
            if frames:
                yield {"name": Path(file).name, "frames": frames, "labels": labels}
        else:
            yield from self._grouped([(file, rows)])

    def _generate(self, files: Sequence[FileFormat]) -> Iterator[Sample]:
        if self.sequence is None or len(files) == 1:
            yield from super()._generate(files)
        else:
            yield from self._grouped((path, self._rows(path, format)) for path, format in files)

    def _grouped(self, files: Iterable[tuple[str, Iterable[tuple[str, Row]]]]) -> Iterator[Sample]:
        """Yield the sequences of files, each with its id, its files, and the number of runs that its rows came in."""
        assert self.sequence is not None
        sequences: dict[str, dict[str, Any]] = {}
        for file, rows in files:
            last = None
            for where, row in self.with_label_columns(rows):
                name = sequence_id(row, self.sequence, where)
                inputs, answer = self.numbers.split(row, where)
                new = {"frames": array("d"), "labels": [], "sequence": name, "files": [], "runs": 0}
                sample = sequences.setdefault(name, new)
                if name != last:
                    sample["runs"] += 1
                    if Path(file).name not in sample["files"]:
                        sample["files"].append(Path(file).name)
                last = name
                sample["frames"].extend(inputs)
                sample["labels"].append(sys.intern(answer) if isinstance(answer, str) else answer)
            if last is None:
                raise InputError(file, expected="frames", got="none")
        width = len(self.numbers.features or ())
        for name, sample in sequences.items():
            numbers = sample["frames"]
            frames = [numbers[start : start + width].tolist() for start in range(0, len(numbers), width)]
            yield {"name": f"{sample['files'][0]} {name}", **sample, "frames": frames}

    def accept(self, splits: dict[str, datasets.Dataset], notes: list[str]) -> dict[str, datasets.Dataset]:
        """Say which sequences were put together of rows that did not stand together, and which are in two splits."""
        splits = super().accept(splits, notes)
        if self.sequence is None or not all("runs" in table.column_names for table in splits.values()):
            return splits
        seen: dict[str, str] = {}
        repeated: dict[tuple[str, str], list[str]] = {}
        for split, table in splits.items():
            columns = [table[name][:] for name in ("sequence", "files", "runs")]
            notes += grouping_notes(split, self.sequence, list(zip(*columns, strict=True)))
            for name in columns[0]:
                if seen.setdefault(name, split) != split:
                    repeated.setdefault((seen[name], split), []).append(name)
        notes += [
            f"{len(names):,} ids of column {self.sequence!r} are in both {first} and {second}: {some(names)}"
            for (first, second), names in repeated.items()
        ]
        return {split: table.remove_columns(["sequence", "files", "runs"]) for split, table in splits.items()}

    def label_columns(self) -> list[str]:
        """Return the columns of the answer."""
        return self.numbers.targets or [self.numbers.label]

    def learn_processor(self, train: datasets.Dataset) -> FrameProcessor:
        """Measure the inputs of the training part and collect its labels."""
        answers = train["labels"][:]
        frames = train["frames"][:]
        features = self.numbers.features or [f"x{place}" for place in range(len(frames[0][0]))]
        if isinstance(answers[0][0], str):
            labels: LabelMap | None = LabelMap.learn(label for sequence in answers for label in sequence if label)
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


def grouping_notes(split: str, column: str, sequences: Sequence[tuple[str, list[str], int]]) -> list[str]:
    """Return a sentence for each list of files whose rows had to be grouped.

    Args:
        split: what the sequences are of.
        column: the column that tells them apart.
        sequences: id, files and number of runs of each.
    """
    notes = []
    interleaved: dict[str, list[str]] = {}
    for name, files, runs in sequences:
        if runs > len(files):
            interleaved.setdefault(some(files), []).append(name)
    for listed, names in interleaved.items():
        notes.append(
            f"{split}: rows of {len(names):,} sequences of column {column!r} were interleaved in {listed} and were "
            f"grouped: {some(names)}"
        )
    joined = [name for name, files, _ in sequences if len(files) > 1]
    if joined:
        notes.append(
            f"{split}: {len(joined):,} ids of column {column!r} come back in further files and were joined to one "
            f"sequence each: {some(joined)} (where these are different sequences, give them different ids)"
        )
    return notes


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names for a sentence; of many, the first.

    >>> some(["a", "b", "c"], most=2)
    'a, b, …'
    """
    return ", ".join([*names[:most], *(["…"] if len(names) > most else [])])


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
