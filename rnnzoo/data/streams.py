"""Raw samples from lines of text or from rows of a table, one at a time, for prediction."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import starmap
from typing import Any

from rnnzoo.data.conll import read_conll, read_conllu, split_words
from rnnzoo.data.headers import looks_like_sample
from rnnzoo.data.images import image_sample
from rnnzoo.data.numbers import sequence_id
from rnnzoo.data.readers import (
    Reader,
    Row,
    decode_line,
    decode_lines,
    read_delimited,
    read_jsonl,
    read_tsv,
    try_delimited,
)
from rnnzoo.errors import InputError, did_you_mean, unknown_name

READERS: dict[str, Reader] = {"jsonl": read_jsonl, "csv": read_delimited, "tsv": read_tsv}
DELIMITERS = {"csv": ",", "tsv": "\t"}
WORD_READERS: dict[str, Reader] = {"conll": read_conll, "conllu": read_conllu}  # for a tagger
DEFAULT_COLUMNS = {
    "text_classification": "text",
    "tagging": "tokens",
    "frames": "frames",
    "vectors": "vector",
    "translation": "source",
    "language": "text",
    "captions": "image",
}


def read_samples(
    lines: Iterable[bytes],
    *,
    kind: str,
    format: str,
    column: str | None = None,
    features: Sequence[str] | None = None,
    where: str,
    skip_bad: bool = False,
) -> Iterator[Row | InputError]:
    """Yield raw samples for a processor of `kind`; but for a table of frames, only the current sample is in memory.

    - Text: a line is a sample; a tagger's words are split at ASCII blanks, the numbers of a vector at blanks or
      commas. An empty line is an empty sample, so that answers and lines keep step; a translator refuses it. For
      frames a line is a frame, and an empty line ends a sequence. For captions a line is the path of an image, or of
      an array of regions.
    - JSONL: a key holds the text, the words, the frames, the vector, the path of an image, or regions.
    - CSV and TSV: a column holds the text (or the words, between blanks); for numbers, the columns are the features
      and a row is a vector or a frame. The table is one sequence of frames, or with `column` one for each of its
      values: rows of one value are put together wherever they stand, so that all are read before the first sequence is
      yielded; such a sample has its value as ``sequence``.
    - CoNLL columns and CoNLL-U, for a tagger: the words of a sentence, with or without tags.

    Args:
        lines: the stream.
        kind: of the processor.
        format: one of `formats_of`.
        column: the key or column; the processor's own name for it if left out.
        features: names of the inputs, for numbers.
        where: what the stream is called in messages.
        skip_bad: yield an error instead of a sample that cannot be read, where the next one still can: lines of
            text and JSONL, rows of CSV and TSV. A sequence of which a line or row cannot be read is a bad sample.

    Raises:
        InputError: for an unknown format, or what does not fit it, with the line.
    """
    if format not in formats_of(kind):
        raise unknown_name("--format", format, formats_of(kind))
    source = Source(lines)
    numbered = decode_lines(source, where)
    if skip_bad:  # after an error this can go on, which a generator cannot
        numbered = starmap(lambda number, line: (number, decode_line(line, number, where)), enumerate(source, start=1))

    def read() -> Iterator[Row | InputError]:
        if format == "text":
            named = ((f"{where}, line {number}", line) for number, line in numbered)
            if kind == "frames":
                yield from frames_of_text(named)
            else:
                yield from (from_text(line, kind, place) for place, line in named)
        elif skip_bad and format in DELIMITERS:
            rows = source.checked(try_delimited(numbered, where, None, DELIMITERS[format]))
            yield from samples_of_rows(rows, kind=kind, column=column, features=features, table=True, skip_bad=True)
        else:
            rows = (READERS | WORD_READERS)[format](numbered, where, None)
            yield from samples_of_rows(rows, kind=kind, column=column, features=features, table=format != "jsonl")

    if not skip_bad or format not in ("text", "jsonl"):
        yield from read()
        return
    while not (yield from until_refused(read(), source)):
        if format == "text" and kind == "frames":  # the rest of the sequence, which ends with an empty line
            while next_line(numbered, source).strip():
                pass


def until_refused(samples: Iterator[Row | InputError], source: Source) -> Generator[Row | InputError, None, bool]:
    """Yield samples, and an error instead of the first that is refused; return whether all were yielded."""
    try:
        yield from samples
    except InputError as error:
        if source.failed:
            raise
        yield error
        return False
    return True


def next_line(lines: Iterator[tuple[int, str]], source: Source) -> str:
    """Return the next line, whatever is wrong with it; an empty one at the end."""
    try:
        return next(lines, (0, ""))[1]
    except InputError:
        if source.failed:
            raise
        return "?"


class Source:
    """The lines of a stream; whether the stream itself has failed, after which there are no more."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.failed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._lines)
        except InputError:
            self.failed = True
            raise

    def checked(self, rows: Iterable[tuple[str, Row | InputError]]) -> Iterator[tuple[str, Row | InputError]]:
        """Yield rows that are read from the stream.

        Raises:
            InputError: if the stream has failed.
        """
        for where, row in rows:
            if isinstance(row, InputError) and self.failed:
                raise row
            yield where, row


def formats_of(kind: str) -> list[str]:
    """Return the formats that are read for a processor of `kind`."""
    return ["text", *READERS, *(WORD_READERS if kind == "tagging" else ())]


def samples_of_rows(
    rows: Iterable[tuple[str, Row | InputError]],
    *,
    kind: str,
    column: str | None = None,
    features: Sequence[str] | None = None,
    table: bool = False,
    skip_bad: bool = False,
) -> Iterator[Row | InputError]:
    """Yield raw samples from rows, each with its position for messages; see `read_samples`.

    Args:
        rows: the rows.
        kind: of the processor.
        column: the key or column; the processor's own name for it if left out.
        features: names of the inputs, for numbers.
        table: for numbers, the features are columns; else one key holds a vector, or the frames of a sequence.
        skip_bad: yield an error instead of a row that is one, or whose inputs are no numbers.

    Raises:
        InputError: for a row without the column.
    """
    name = column or DEFAULT_COLUMNS[kind]
    if table and kind in ("frames", "vectors"):
        if kind == "vectors" and column is not None:
            raise InputError("--column", expected="none for vectors in a table", got=column, fix="leave it out")
        yield from from_table(rows, kind, list(features or ()), column, skip_bad=skip_bad)
        return
    for place, row in rows:
        if isinstance(row, InputError):
            yield row
            continue
        other = {"tagging": "text", "captions": "regions"}.get(kind)
        key = other if other is not None and column is None and name not in row and other in row else name
        if key not in row:
            raise InputError(
                place,
                expected=f"{name!r} among {', '.join(row)}",
                got="none",
                fix=did_you_mean(name, row) or advice_on(row, "say which with --column NAME"),
            )
        named = kind == "captions" and isinstance(row[key], str)
        yield {**from_value(row[key], kind), "name": row[key] if named else place}


def advice_on(header: Iterable[str], otherwise: str) -> str:
    """Return what to do about a table that lacks a column: its first row may be a sample."""
    return "the first row must name the columns, and looks like a sample" if looks_like_sample(header) else otherwise


def from_text(line: str, kind: str, where: str) -> Row:
    """Return a line of text as a raw sample."""
    if kind in ("text_classification", "translation", "language"):
        return {DEFAULT_COLUMNS[kind]: line, "name": where}
    if kind == "tagging":
        return {"tokens": split_words(line), "name": where}
    if kind == "captions":
        return image_sample(line.strip(), line.strip() or where)
    return {"vector": numbers_of(line, where), "name": where}


def frames_of_text(lines: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Yield sequences of frames, a line each, that end with an empty line."""
    frames: list[list[float]] = []
    first = ""
    for place, line in lines:
        if line.strip():
            first = first or place
            frames.append(numbers_of(line, place))
        elif frames:
            yield {"frames": frames, "name": first}
            frames, first = [], ""
    if frames:
        yield {"frames": frames, "name": first}


def numbers_of(line: str, where: str) -> list[float]:
    """Return the numbers of a line."""
    try:
        return [float(part) for part in line.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(
            where,
            expected="numbers between blanks or commas",
            got=repr(line)[:60],
            fix="a table with a header needs --format csv",
        ) from error


def from_value(value: Any, kind: str) -> Row:
    """Return a value of JSONL or CSV as a raw sample."""
    if kind == "tagging":
        return {"tokens": split_words(value) if isinstance(value, str) else value}
    return image_sample(value, "") if kind == "captions" else {DEFAULT_COLUMNS[kind]: value}


def from_table(
    rows: Iterable[tuple[str, Row | InputError]],
    kind: str,
    features: list[str],
    sequence: str | None,
    *,
    skip_bad: bool = False,
) -> Iterator[Row | InputError]:
    """Yield the rows of a table of numbers as vectors, or as sequences of frames in the order in which they begin."""
    sequences: dict[str | None, array[float]] = {}
    bad: dict[str | None, InputError] = {}
    for where, row in rows:
        if isinstance(row, InputError):
            if kind != "vectors":  # nobody knows to which sequence it belongs
                raise row
            yield row
            continue
        name = None if sequence is None else sequence_id(row, sequence, where)
        try:
            numbers = [number_in(row, feature, features, where) for feature in features]
        except InputError as error:
            missing = any(feature not in row for feature in features)  # in all rows
            if missing or not skip_bad:
                raise
            if kind == "vectors":
                yield error
            else:
                sequences.setdefault(name, array("d"))
                bad.setdefault(name, error)
            continue
        if kind == "vectors":
            yield {"vector": numbers, "name": where}
        else:
            sequences.setdefault(name, array("d")).extend(numbers)
    for name, values in sequences.items():
        if name in bad:
            yield bad[name]
            continue
        frames = [values[start : start + len(features)].tolist() for start in range(0, len(values), len(features))]
        title = {"name": "table"} if name is None else {"name": f"sequence {name}", "sequence": name}
        yield {"frames": frames, **title}


def number_in(row: Row, feature: str, features: Sequence[str], where: str) -> float:
    """Return an input of a row of a table.

    Raises:
        InputError: if there is none, or it is no number.
    """
    if feature not in row:
        raise InputError(
            where,
            expected=f"the columns {', '.join(features)}",
            got=f"no {feature!r} among {', '.join(row)}",
            fix=did_you_mean(feature, row) or advice_on(row, ""),
        )
    try:
        return float(row[feature])
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}, column {feature!r}", expected="a number", got=repr(row[feature])) from error
