"""``rnnzoo predict``: answer raw input, one JSON line a sample."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.output import check_file, open_target, print_note
from rnnzoo.errors import InputError

if TYPE_CHECKING:
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
  --help                   this text
"""
OWN = ("input", "output", "format", "column", "batch_size")


def run(argv: list[str]) -> int:
    """Read, answer and write; return the exit code."""
    arguments = sort_arguments(argv, own=OWN)
    if {"--help", "-h"} & set(arguments.overrides):
        print(HELP)
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
    if captions and source != "-" and (folder or is_image(Path(source))):
        with open_target("--output", target) as write:
            write_answers(model, image_samples(source), write, batch_size, named=True)
        return 0
    with open_target("--output", target) as write:
        samples = read_input(source, model, arguments.own.get("format"), arguments.own.get("column"))
        write_answers(model, samples, write, batch_size, named=captions)
    return 0


def read_input(source: str, model: ZooModel, format: str | None, column: str | None) -> Iterator[dict[str, Any]]:
    """Return the raw samples of a file, or of standard input.

    Args:
        source: the file; ``-`` is standard input.
        model: what is to answer them.
        format: the format; by the name of the file if left out.
        column: the column or key that holds the input.

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
            read_source(source), kind=kind, format=format, column=column, features=features, where=where
        )
    first = next(file_rows(Path(source), format, None), ("", {}))[1]
    return samples_of_rows(
        file_rows(Path(source), format, None),
        kind=kind,
        column=column,
        features=features,
        table=DEFAULT_COLUMNS[kind] not in first,
    )


def write_answers(
    model: ZooModel, samples: Iterable[dict[str, Any]], write: IO[Any], batch_size: int, *, named: bool
) -> None:
    """Write the answers to samples as JSON lines.

    Each has the name of its image if they are to be `named`, and the id of its sequence if a column gave one.
    """
    titles: deque[dict[str, str]] = deque()

    def remember() -> Iterator[dict[str, Any]]:
        for sample in samples:
            sequence = {"sequence": sample["sequence"]} if "sequence" in sample else {}
            titles.append({"image": sample["name"]} if named else sequence)
            yield sample

    for answer in model.answer(remember(), batch_size=batch_size):
        write.write(json.dumps({**titles.popleft(), **answer}, ensure_ascii=False) + "\n")


def positive(text: str, where: str) -> int:
    """Return a whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise InputError(where, expected="a whole number of at least 1", got=repr(text))
    return int(text)


def read_source(source: str) -> Iterable[bytes]:
    """Return the lines of a file, which may be compressed, or of standard input."""
    from rnnzoo.data.readers import bounded_lines, open_bytes

    return bounded_lines(sys.stdin.buffer, "standard input") if source == "-" else open_bytes(Path(source))
