"""Reading files with a word a line: CoNLL columns and CoNLL-U."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

from rnnzoo.errors import InputError

Row = dict[str, Any]
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
Line = tuple[int, str, list[str]]  # its number, the line, and its columns
BLANKS = " \t"  # what separates words and columns; other blanks of Unicode do not
METADATA = re.compile(r"# (id \S|newdoc\b|newpar\b|[\w.:-]+ = )")  # a comment, whatever the columns of the file


def split_words(text: str) -> list[str]:
    r"""Return the words of a text, which ASCII blanks separate; all other blanks of Unicode are parts of words.

    >>> split_words(" 10\u00a0km  away")
    ['10\xa0km', 'away']
    """
    return [word for word in text.replace("\t", " ").replace("\r", " ").replace("\n", " ").split(" ") if word]


class Layout(NamedTuple):
    """How the word lines of a CoNLL file are written."""

    width: int  # the number of columns
    tabs: bool  # whether tabs separate them; else blanks do


def read_conll(lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield sentences of a file with a word a line and blank lines between sentences: each column as a list.

    The columns, separated by a tab or by ASCII blanks, are called by `names`; without them the first is ``tokens`` and
    the last ``tags``. A file may hold its first column, the words, alone. A line whose first column is ``-DOCSTART-``
    ends a sentence. Lines before a sentence that begin with ``# `` are comments if they cannot be word lines: if their
    columns are not those of the file, or they read ``# id ...``, ``# newdoc``, ``# newpar`` or ``# key = value``.
    """
    layout: Layout | None = None
    waiting: list[list[Line]] = []  # sentences before the first line that can only be a word line
    for sentence in conll_blocks(lines):
        waiting.append(sentence)
        layout = layout or layout_of(sentence, names, "# ")
        if layout is not None:
            for block in waiting:
                yield from conll_rows(block, layout, where, names)
            waiting = []
    for block in waiting:
        layout = layout or layout_of(block, names, "")
        if layout is not None:
            yield from conll_rows(block, layout, where, names)


def conll_blocks(lines: Iterable[tuple[int, str]]) -> Iterator[list[Line]]:
    """Yield the lines between blank lines and ``-DOCSTART-`` lines."""
    block: list[Line] = []
    for number, line in lines:
        columns = columns_of(line)
        if columns and columns[0] != "-DOCSTART-":
            block.append((number, line, columns))
        elif block:
            yield block
            block = []
    if block:
        yield block


def columns_of(line: str) -> list[str]:
    """Return the columns of a line: between tabs if it has any inside, or else between blanks."""
    if "\t" in line and "\t" in line.strip(BLANKS):
        return [field.strip(BLANKS) for field in line.rstrip(BLANKS).split("\t")]
    return split_words(line)


def layout_of(block: list[Line], names: Sequence[str] | None, comment: str) -> Layout | None:
    """Return the layout that the first word line of a block shows, or None if all lines may be comments.

    Args:
        block: the lines.
        names: the names of the columns, if they are known.
        comment: how a line begins that may be a comment; if this is empty, lines are judged by `METADATA` alone.
    """
    for _, line, columns in block:
        if METADATA.match(line) is None and not (comment and line.startswith(comment)):
            width = len(columns)
            return Layout(width if names is None or width == 1 else len(names), "\t" in line.strip(BLANKS))
    return None


def conll_rows(block: list[Line], layout: Layout, where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield the sentence of a block as a row, or nothing if all its lines are comments.

    Raises:
        InputError: for a word line with other columns than the file has.
    """
    words: list[list[str]] = []
    first = 0
    for number, line, fields in block:
        fits = len(fields) == layout.width
        if not words and line.startswith("# "):
            tabs = "\t" in line.strip(BLANKS)
            if METADATA.match(line) or not fits or (tabs != layout.tabs and layout.width > 1):
                continue
        if not fits:
            raise InputError(f"{where}, line {number}", expected=f"{layout.width} columns", got=str(len(fields)))
        first = first or number
        words.append(fields)
    if words:
        called = names or ["tokens", *(str(number) for number in range(1, layout.width - 1)), "tags"]
        columns = zip(*words, strict=True)
        yield f"{where}, line {first}", {name: list(column) for name, column in zip(called, columns, strict=False)}


def read_conllu(lines: Iterable[tuple[int, str]], where: str, names: Sequence[str] | None) -> Iterator[tuple[str, Row]]:
    """Yield sentences of a CoNLL-U file: each column as a list, ``form`` as ``tokens`` too.

    Multi-word tokens (1-2) and empty nodes (8.1) are skipped: they have no tag of their own. A part of speech or a
    relation that is not specified (``_``) is None.
    """
    words: list[list[str]] = []
    first = 0
    for number, line in chain(lines, [(0, "")]):
        if line.startswith("#"):
            continue
        if line.strip(BLANKS):
            fields = line.split("\t")
            if len(fields) != len(CONLLU_COLUMNS):
                raise InputError(
                    f"{where}, line {number}", expected=f"{len(CONLLU_COLUMNS)} columns", got=str(len(fields))
                )
            first = first or number
            if fields[0].isdigit():
                words.append(fields)
            elif not re.fullmatch(r"\d+[-.]\d+", fields[0]):
                raise InputError(
                    f"{where}, line {number}", expected="a number in the first column", got=repr(fields[0])
                )
        elif words:
            columns: Row = {
                name: list(column) for name, column in zip(CONLLU_COLUMNS, zip(*words, strict=True), strict=True)
            }
            for name in ("upos", "xpos", "deprel"):
                columns[name] = [None if value == "_" else value for value in columns[name]]
            yield f"{where}, line {first}", {**columns, "tokens": columns["form"]}
            words, first = [], 0
