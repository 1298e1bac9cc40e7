"""Raw samples from lines of text or from rows of a table, one at a time, for prediction."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rnnzoo.data.conll import read_conll, read_conllu, split_words
from rnnzoo.data.headers import looks_like_sample
from rnnzoo.data.images import image_sample
from rnnzoo.data.numbers import sequence_id
from rnnzoo.data.readers import Reader, Row, decode_lines, read_delimited, read_jsonl, read_tsv
from rnnzoo.errors import InputError, did_you_mean, unknown_name

READERS: dict[str, Reader] = {"jsonl": read_jsonl, "csv": read_delimited, "tsv": read_tsv}
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
) -> Iterator[Row]:
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

    Raises:
        InputError: for an unknown format, or what does not fit it, with the line.
    """
    if format not in formats_of(kind):
        raise unknown_name("--format", format, formats_of(kind))
    if format == "text":
        numbered = ((f"{where}, line {number}", line) for number, line in decode_lines(lines, where))
        if kind == "frames":
            yield from frames_of_text(numbered)
        else:
            yield from (from_text(line, kind, place) for place, line in numbered)
        return
    rows = (READERS | WORD_READERS)[format](decode_lines(lines, where), where, None)
    yield from samples_of_rows(rows, kind=kind, column=column, features=features, table=format != "jsonl")


def formats_of(kind: str) -> list[str]:
    """Return the formats that are read for a processor of `kind`."""
    return ["text", *READERS, *(WORD_READERS if kind == "tagging" else ())]


def samples_of_rows(
    rows: Iterable[tuple[str, Row]],
    *,
    kind: str,
    column: str | None = None,
    features: Sequence[str] | None = None,
    table: bool = False,
) -> Iterator[Row]:
    """Yield raw samples from rows, each with its position for messages; see `read_samples`.

    Args:
        rows: the rows.
        kind: of the processor.
        column: the key or column; the processor's own name for it if left out.
        features: names of the inputs, for numbers.
        table: for numbers, the features are columns; else one key holds a vector, or the frames of a sequence.

    Raises:
        InputError: for a row without the column.
    """
    name = column or DEFAULT_COLUMNS[kind]
    if table and kind in ("frames", "vectors"):
        if kind == "vectors" and column is not None:
            raise InputError("--column", expected="none for vectors in a table", got=column, fix="leave it out")
        yield from from_table(rows, kind, list(features or ()), column)
        return
    for place, row in rows:
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


def from_table(rows: Iterable[tuple[str, Row]], kind: str, features: list[str], sequence: str | None) -> Iterator[Row]:
    """Yield the rows of a table of numbers as vectors, or as sequences of frames in the order in which they begin."""
    sequences: dict[str | None, array[float]] = {}
    for where, row in rows:
        name = None if sequence is None else sequence_id(row, sequence, where)
        numbers = [number_in(row, feature, features, where) for feature in features]
        if kind == "vectors":
            yield {"vector": numbers, "name": where}
        else:
            sequences.setdefault(name, array("d")).extend(numbers)
    for name, values in sequences.items():
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
