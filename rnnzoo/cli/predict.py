"""``rnnzoo predict``: answer raw input, one JSON line a sample."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.output import check_file, open_target, print_note
from rnnzoo.errors import InputError
from rnnzoo.terminal import echo, to_json

if TYPE_CHECKING:
    from rnnzoo.models.answering import Sample
    from rnnzoo.models.base import ZooModel

SUMMARY = "answer raw input (text or a table) with a trained model, as JSONL"
HELP = """usage: rnnzoo predict RUN_OR_MODEL [--input FILE] [--output FILE] [options]

Answer raw input with a trained model (of a run that was interrupted: its best checkpoint), one JSON line a sample, in
the order of the input. Input is read as it is answered, so it may be larger than memory; it may be compressed (.gz,
.xz). For captions the input may also be an image, or a folder or zip of them.

options, in any order:
  --input FILE             what to answer, for captions a folder, zip or image too; standard input if left out or -
  --output FILE            a new file for the answers; standard output if left out or -
  --format FORMAT          text (one sample a line; words of a tagger are split at blanks and tabs; images are
                           given by their paths), jsonl, csv, tsv or parquet, and conll or conllu for a tagger; by the
                           name of the file if left out, and text on standard input
  --column NAME            the column (csv) or key (jsonl) that holds the text, words or frames; for frames in csv
                           the column that tells sequences apart: rows with the same value are one sequence wherever
                           they stand, and its answer, in the order in which sequences begin, names it; such a table is
                           read whole before it is answered
  --batch_size N           samples computed together (default 32)
  --skip_bad               go on after input that cannot be read or answered, and write {"error": "..."} instead of
                           its answer; else what comes before it is answered, and the command ends with exit code 2
  --help                   this text
"""
OWN = ("input", "output", "format", "column", "batch_size")
FLAGS = ("skip_bad",)


def run(argv: list[str]) -> int:
    """Read, answer and write; return the exit code."""
    arguments = sort_arguments(argv, own=OWN, flags=FLAGS)
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    if arguments.positional is None:
        raise InputError("rnnzoo predict", expected="a run folder or a model folder", got="none")
    source, target = arguments.own.get("input", "-"), arguments.own.get("output", "-")
    if source != "-" and not Path(source).exists():
        raise InputError(f"--input {source}", expected="a file", got="nothing")
    if target != "-":
        check_file("--output", Path(target))
    batch_size = positive(arguments.own.get("batch_size", "32"), "--batch_size")

    from rnnzoo.bundle import load
    from rnnzoo.data.images import image_samples, is_image

    model = load(arguments.positional, note=print_note)
    captions = model.processor.kind == "captions"
    folder = source != "-" and Path(source).is_dir()
    if folder and not captions:
        raise InputError(f"--input {source}", expected="a file", got="a folder")
    skip_bad = "skip_bad" in arguments.flags
    written = Written(target)
    with written.reported(), open_target("--output", target, keep=True) as file:
        samples: Iterable[Sample]
        if captions and source != "-" and (folder or is_image(Path(source))):
            samples = image_samples(source)
        else:
            format, column = arguments.own.get("format"), arguments.own.get("column")
            samples = read_input(source, model, format, column, skip_bad=skip_bad)
        for line in answer_lines(model, samples, batch_size, named=captions, skip_bad=skip_bad):
            file.write(to_json(line) + "\n")
            written.count(line)
    return 0


@dataclass
class Written:
    """Counts the answers, and tells how far they came.

    Args:
        target: the file that they go to; ``-`` is standard output.
    """

    target: str
    answered: int = 0
    refused: int = 0

    def count(self, line: dict[str, Any]) -> None:
        """Count a line that was written."""
        if "error" in line:
            self.refused += 1
        else:
            self.answered += 1

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Say at the end what was refused, and where an error stopped the work.

        Raises:
            InputError: the error, with the number of answers that are kept.
        """
        try:
            yield
        except InputError as error:
            lines = self.answered + self.refused
            if lines == 0:
                raise
            where = "were written" if self.target == "-" else f"are in {self.target}"
            text = f"{error}; the {lines:,} answers before it {where}; --skip_bad goes on after what cannot be answered"
            raise InputError.from_text(text) from error
        finally:
            if self.refused:
                lines = self.answered + self.refused
                print_note(f"{self.refused:,} of {lines:,} inputs were refused: see 'error' in their lines")


def read_input(
    source: str, model: ZooModel, format: str | None, column: str | None, *, skip_bad: bool = False
) -> Iterator[Sample]:
    """Return the raw samples of a file, or of standard input.

    Args:
        source: the file; ``-`` is standard input.
        model: what is to answer them.
        format: the format; by the name of the file if left out.
        column: the column or key that holds the input.
        skip_bad: yield an error instead of what cannot be read.

    Raises:
        InputError: for a format that is not read here.
    """
    from rnnzoo.data.sources import file_rows, format_of
    from rnnzoo.data.streams import DEFAULT_COLUMNS, formats_of, read_samples, samples_of_rows

    kind = model.processor.kind
    features = getattr(model.processor, "features", None)
    formats = [*formats_of(kind), *(["parquet"] if source != "-" else [])]
    where = f"--input {source}" if format is None else "--format"
    format = format or format_of(Path(source)) or "text"
    if format not in formats:
        raise InputError(where, expected=" or ".join(formats), got=format, fix="convert it, or give --format")
    if format != "parquet":
        where = source if source != "-" else "standard input"
        return read_samples(
            read_source(source),
            kind=kind,
            format=format,
            column=column,
            features=features,
            where=where,
            skip_bad=skip_bad,
        )
    first = next(file_rows(Path(source), format, None), ("", {}))[1]
    return samples_of_rows(
        file_rows(Path(source), format, None),
        kind=kind,
        column=column,
        features=features,
        table=DEFAULT_COLUMNS[kind] not in first,
        skip_bad=skip_bad,
    )


def answer_lines(
    model: ZooModel, samples: Iterable[Sample], batch_size: int, *, named: bool, skip_bad: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the answers to samples.

    Each has the name of its image if they are to be `named`, and the id of its sequence if a column gave one.
    """
    titles: deque[dict[str, str]] = deque()

    def remember() -> Iterator[Sample]:
        for sample in samples:
            title = {}
            if not isinstance(sample, InputError):
                title = {"sequence": sample["sequence"]} if "sequence" in sample else {}
                title = {"image": sample["name"]} if named else title
            titles.append(title)
            yield sample

    for answer in model.answer(remember(), batch_size=batch_size, skip_bad=skip_bad):
        yield {**titles.popleft(), **answer}


def positive(text: str, where: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise InputError(where, expected="a whole number of at least 1", got=repr(text))
    return int(text)


def read_source(source: str) -> Iterable[bytes]:
    """Return the lines of a file, which may be compressed, or of standard input."""
    from rnnzoo.data.readers import bounded_lines, open_bytes

    return bounded_lines(sys.stdin.buffer, "standard input") if source == "-" else open_bytes(Path(source))
