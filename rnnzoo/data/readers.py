"""Reading files row by row; every complaint names the file and the line."""

from __future__ import annotations

import codecs
import csv
import gzip
import lzma
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import IO, Any

from rnnzoo.data.conll import BLANKS, read_conll, read_conllu
from rnnzoo.documents import parse_json
from rnnzoo.errors import InputError, unknown_name
from rnnzoo.limits import limit, over_limit

Row = dict[str, Any]
COMPRESSIONS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
BYTE_ORDER_MARK = "\ufeff"


def open_bytes(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that may be compressed (.gz, .xz).

    Raises:
        InputError: if the file cannot be read.
    """
    opener = COMPRESSIONS.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            yield from bounded_lines(file, str(path))
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), expected="a file that can be read", got=reason) from error


def bounded_lines(file: IO[bytes], where: str) -> Iterator[bytes]:
    """Yield the lines of an open file; of one that unpacks to a line without end, no more than the limit is read.

    Raises:
        InputError: for a line above the limit, with its number.
    """
    most = limit("LINE_BYTES")
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise over_limit("LINE_BYTES", f"{where}, line {number}", "more")
        yield line


def decode_lines(lines: Iterable[bytes], where: str, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield line numbers from 1 and lines without their end; a byte order mark is dropped.

    Raises:
        InputError: for bytes that are not text in `encoding`, with the line.
    """
    for number, line in enumerate(lines, start=1):
        yield number, decode_line(line, number, where, encoding)


def decode_line(line: bytes, number: int, where: str, encoding: str = "utf-8") -> str:
    """Return a line as text, see `decode_lines`."""
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}, line {number}",
            expected=f"{codecs.lookup(encoding).name} text",
            got=f"byte 0x{line[error.start]:02x} at position {error.start + 1}",
            fix="save the file as UTF-8",
        ) from error
    return (text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text).rstrip("\r\n")


def read_rows(
    path: Path, format: str, names: Sequence[str] | None = None, skip: int | None = None
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a file, each with its place for error messages.

    Args:
        path: the file; its name may end in .gz or .xz.
        format: one of `FORMATS`.
        names: names of the columns of a file without a header (csv, tsv, conll).
        skip: the number of a line that is no sample.

    Raises:
        InputError: for an unknown format, or contents that do not fit it.
    """
    if format not in FORMATS:
        raise unknown_name("data.format", format, FORMATS)
    lines = decode_lines(open_bytes(path), str(path))
    if skip is not None:
        lines = ((number, line) for number, line in lines if number != skip)
    yield from FORMATS[format](lines, str(path), names)


def read_fields(lines: Iterable[tuple[int, str]], where: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a table that are not empty, as line numbers and fields.

    Raises:
        InputError: for quotation marks that do not fit together.
    """
    for number, fields in try_fields(lines, where, delimiter):
        if isinstance(fields, InputError):
            raise fields
        yield number, fields


def try_fields(
    lines: Iterable[tuple[int, str]], where: str, delimiter: str
) -> Iterator[tuple[int, list[str] | InputError]]:
    """Yield rows as `read_fields` does, and an error instead of a line that cannot be read, if others can."""
    csv.field_size_limit(sys.maxsize)  # a text may be long
    # Tab-separated files of corpora hold bare quotation marks.
    quoted: dict[str, Any] = {"strict": True} if delimiter == "," else {"quoting": csv.QUOTE_NONE}
    number = 0

    def text(line_number: int, line: str) -> str:
        nonlocal number
        number = line_number
        return line + "\n"

    rows = csv.reader(starmap(text, lines), delimiter=delimiter, **quoted)  # a generator could not go on after an error
    try:
        while True:
            fields = next_row(rows)
            if fields is None:
                return
            if fields:
                yield number, fields
    except csv.Error as error:
        raise InputError(
            f"{where}, line {number}",
            expected="a table",
            got=str(error),
            fix="a field that holds quotation marks is put in such, and they are doubled",
        ) from error


def next_row(rows: Iterator[list[str]]) -> list[str] | InputError | None:
    """Return the next row, the error of a line of it, or None at the end."""
    try:
        return next(rows, None)
    except InputError as error:
        return error


def read_delimited(
    lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None, delimiter: str = ","
) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a table; if the first row has one field more than the header, row names lead all rows.

    With `names`, a first row that holds just these is a header and no sample.

    Raises:
        InputError: for the first row that is not one of the table.
    """
    for position, row in try_delimited(lines, where, names, delimiter):
        if isinstance(row, InputError):
            raise row
        yield position, row


def try_delimited(
    lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None, delimiter: str = ","
) -> Iterator[tuple[str, Row | InputError]]:
    """Yield the rows of a table as `read_delimited` does, and an error instead of each that is not one of it.

    Raises:
        InputError: for what makes all rows after it unreadable.
    """
    header = list(names) if names is not None else None
    named: bool | None = None  # whether rows begin with a name that the header lacks, as R writes them
    for number, fields in try_fields(lines, where, delimiter):
        place = f"{where}, line {number}"
        if isinstance(fields, InputError):
            if header is None:
                raise fields
            yield place, fields
            continue
        if header is None:
            header = [field.strip() for field in fields]
            for name, count in Counter(header).items():
                if count > 1 and name:
                    got = f"{name!r} {count} times"
                    raise InputError(f"{where}, header", expected="each name once", got=got, fix="rename one")
            continue
        if named is None and names is not None and is_header(fields, names, place):
            named = False
            continue
        if named is None:  # a comma at the end of each row is no name
            named = names is None and len(fields) == len(header) + 1 and fields[-1] != ""
        if len(fields) != len(header) + named:
            expected = f"{len(header)} fields: {', '.join(header)}"
            yield place, InputError(place, expected=expected, got=f"{len(fields)}")
            continue
        yield place, dict(zip(header, fields[named:], strict=True))


def is_header(fields: Sequence[str], names: Sequence[str], place: str) -> bool:
    """Return whether the first row of a file that should have no header is one, of the very names that are given.

    Raises:
        InputError: if it is one with other names.
    """
    given, known = [field.strip().lower() for field in fields], [name.lower() for name in names]
    if given == known:
        return True
    same = [field == name for field, name in zip(given, known, strict=False)]
    # One word alone may be a sample's; the last column is most often the label, which is hardly called so.
    if same and (sum(same) > 1 or same[-1] or set(given) <= set(known)):
        raise InputError(
            place,
            expected=f"a sample, since data.file_columns says {', '.join(names)} of a file without a header",
            got=f"the header {', '.join(fields)}",
            fix="give --data.file_columns null",
        )
    return False


def read_tsv(lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a tab-separated table."""
    yield from read_delimited(lines, where, names, delimiter="\t")


def read_jsonl(lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield one JSON object a line."""
    for number, line in lines:
        if not line.strip():
            continue
        place = f"{where}, line {number}"
        row = parse_json(line, place, expected="a JSON object")
        if not isinstance(row, dict):
            raise InputError(place, expected="a JSON object", got=type(row).__name__)
        yield place, row


def read_text(lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield each line that is not empty as ``text``."""
    for number, line in lines:
        if line.strip():
            yield f"{where}, line {number}", {"text": line.strip(BLANKS)}


Reader = Callable[[Iterable[tuple[int, str]], str, "Sequence[str] | None"], Iterator[tuple[str, Row]]]
FORMATS: dict[str, Reader] = {
    "csv": read_delimited,
    "tsv": read_tsv,
    "jsonl": read_jsonl,
    "text": read_text,
    "conll": read_conll,
    "conllu": read_conllu,
}
