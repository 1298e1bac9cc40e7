"""Whether the first row of a table names its columns, or is a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from rnnzoo.data.conll import read_conll
from rnnzoo.data.readers import decode_lines, open_bytes, read_fields
from rnnzoo.errors import InputError, did_you_mean

Header = tuple[int, list[str]]  # the number of a line, and its fields
DELIMITERS = {"csv": ",", "tsv": "\t"}
LABELS = "label labels sentiment class category target polarity topic tag intent rating stars emotion y gold activity"
TEXTS = "text sentence review content comment document tweet message body utterance question phrase headline"
LANGUAGES = "english german french spanish italian dutch portuguese russian czech chinese japanese arabic turkish"
ALIASES = {  # our name of a column → what data sets call it
    "text": TEXTS,
    "label": LABELS,
    "labels": f"{LABELS} phase state",
    "tokens": "tokens token words word form sentence text",
    "tags": "tags tag label labels ner pos upos xpos ner_tags pos_tags ner_tag pos_tag bio slots",
    "source": f"source src input text {LANGUAGES}",
    "target": f"target tgt trg output translation {LANGUAGES}",
    "image": "image img photo picture file filename file_name path image_name image_path image_id",
    "captions": "captions caption comment sentence text description raw",
}
ANSWERS = ("label", "labels", "tags")
NAME = re.compile(r"[^\W\d][\w .#%()/-]*")
LONGEST_NAME, MOST_WORDS = 40, 4
FEWEST_ROWS = 8  # that must differ from the first one in kind, where names alone do not tell
MOST_LIKE_NAMES = 0.2  # share of rows that may look like names in a column whose first row is one
ROWS_FOR_ADVICE = 1000
MOST_SHOWN = 5  # files in a note


def first_rows(
    formats: Mapping[Path, str], names: Sequence[str] | None, roles: Mapping[str, str], others: Iterable[str]
) -> tuple[dict[Path, int], list[str]]:
    """Return the line of the header of each file that has one although `names` says that it has none, with notes.

    Args:
        formats: file → format, those for training first.
        names: the names of the columns of files without a header, if they were given.
        roles: column of the data → our name of it.
        others: further columns that the data should have.

    Raises:
        InputError: if a header cannot be used as `names` says, or a file that should have a header has none, or has
            one that names none of the columns; with the options to give.
    """
    lines: dict[Path, int] = {}
    files: dict[str, list[str]] = {}  # header → names of files
    known = {*roles, *others}
    for path, format in formats.items():
        header = None
        if format == "conll":
            header = header_of_words(path, names, roles)
        elif format in DELIMITERS and names is not None:
            header = header_beside_names(path, format, names, roles)
        elif format in DELIMITERS:
            known |= check_header(path, format, known, roles)
        if header is not None:
            lines[path], fields = header
            files.setdefault(", ".join(fields), []).append(path.name)
    notes = []
    for shown, paths in files.items():
        listed = ", ".join([*paths[:MOST_SHOWN], *(["…"] if len(paths) > MOST_SHOWN else [])])
        notes.append(f"the first row of {listed} ({shown}) was taken for a header and is no sample")
    return lines, notes


def header_beside_names(path: Path, format: str, names: Sequence[str], roles: Mapping[str, str]) -> Header | None:
    """Return the first row of a table whose columns are named elsewhere, if it is a header with other names.

    Raises:
        InputError: if it is one whose columns are in another order, or of another number.
    """
    number, first = next(fields_of(path, format), (0, []))
    if not all(map(looks_like_name, first)) or lowered(first) == lowered(names):
        return None  # the reader skips a row of the very names
    kinds = [roles.get(name, "") for name in names]
    told = [role for role in kinds if role in ALIASES]
    if len(first) != len(names):
        if any(alias_of(role, first) for role in told):
            raise header_error(path, names, first, roles)
        return None
    columns = list(zip(kinds, first, names, strict=True))
    usual = told and all(is_alias(role, field) or is_same(field, name) for role, field, name in columns if role in told)
    if usual and (len(told) > 1 or (told[0] not in ANSWERS and not looks_alike(path, format, kinds.index(told[0])))):
        return number, first
    meant = {role: [other for other in told if is_alias(other, field)] for role, field, _ in columns if role in told}
    if len(told) > 1 and all(others and role not in others for role, others in meant.items()):
        raise header_error(path, names, first, roles)
    return (number, first) if is_unlike_the_rest(path, format, first, kinds) else None


def is_unlike_the_rest(path: Path, format: str, first: Sequence[str], kinds: Sequence[str]) -> bool:
    """Return whether the label of the first row occurs nowhere else while others do, and its other fields are names.

    A column in which many rows look like names (a list of names, single words) says nothing.
    """
    answer = next((index for index, role in enumerate(kinds) if role in ANSWERS), None)
    if answer is None or len(first) < 2:
        return False
    labels: Counter[str] = Counter()
    like_names: Counter[int] = Counter()
    numeric = [True] * len(first)
    count = 0
    for _, fields in islice(fields_of(path, format), 1, None):
        if len(fields) != len(first):
            return False
        count += 1
        labels[fields[answer].strip()] += 1
        for index, field in enumerate(fields):
            like_names[index] += looks_like_name(field)
            numeric[index] = numeric[index] and is_number(field)
        if first[answer].strip() in labels:
            return False
    rest = [index for index in range(len(first)) if index != answer]
    if count < 2 or any(like_names[index] > MOST_LIKE_NAMES * count for index in rest):
        return False
    repeated = 2 * len(labels) <= count or numeric[answer]
    return repeated and (count >= FEWEST_ROWS or any(numeric[index] for index in rest))


def looks_alike(path: Path, format: str, index: int) -> bool:
    """Return whether many rows of a column look like names, as the first does."""
    others = (fields for _, fields in islice(fields_of(path, format), 1, None) if len(fields) > index)
    rows = [looks_like_name(fields[index]) for fields in others]
    return not rows or sum(rows) > MOST_LIKE_NAMES * len(rows)


def header_of_words(path: Path, names: Sequence[str] | None, roles: Mapping[str, str]) -> Header | None:
    """Return the first line of CoNLL columns if it names them: ``Word Tag``, with a tag that occurs nowhere else."""
    lines = read_conll(decode_lines(open_bytes(path), str(path)), str(path), names)
    where, sentence = next(lines, ("", {}))
    first = {roles[name]: str(column[0]) for name, column in sentence.items() if name in roles}
    if not {"tokens", "tags"} <= set(first) or not all(is_alias(role, field) for role, field in first.items()):
        return None
    tag = next(name for name in sentence if roles.get(name) == "tags")
    if first["tags"] in sentence[tag][1:] or any(first["tags"] in row.get(tag, ()) for _, row in lines):
        return None
    return int(where.rpartition("line ")[2]), [str(column[0]) for column in sentence.values()]


def check_header(path: Path, format: str, known: set[str], roles: Mapping[str, str]) -> set[str]:
    """Return the names in the header of a table.

    Raises:
        InputError: if none of them is known, and the first row is a sample or has names that usually mean the same.
    """
    rows = fields_of(path, format)
    header = [field.strip() for field in next(rows, (0, []))[1]]
    if not header or known & set(header):
        return set(header)
    samples = [fields for _, fields in islice(rows, ROWS_FOR_ADVICE)]
    again = any(name and name == field.strip() for row in samples for name, field in zip(header, row, strict=False))
    if again or looks_like_sample(header):
        columns = names_for([header, *samples], roles)
        raise InputError(
            f"{path}, line 1",
            expected=f"a header, with the column {' or '.join(map(repr, roles or known))}",
            got=f"the row {', '.join(header)[:80]}",
            fix=f'name the columns of files without a header: --data.file_columns "[{", ".join(columns)}]"',
        )
    if advice := column_options(header, roles):
        raise InputError(
            f"{path}, header",
            expected=f"the column {' or '.join(map(repr, roles or known))}",
            got=", ".join(header),
            fix=f"give {advice}",
        )
    return set(header)


def missing_column(row: Mapping[str, object], name: str, column: str, where: str, *, headless: bool) -> InputError:
    """Return the error for a row without one of our columns, with the option that names it.

    Args:
        row: the row.
        name: our name of the column.
        column: what it should be called in the data.
        where: the file and line.
        headless: the names of the columns were given, for files without a header.
    """
    alias = column_options(list(row), {column: name})
    advice = f"give {alias}" if alias else f"say which with --data.columns.{name}"
    if headless:
        advice = "give --data.file_columns null if the file has a header"
    return InputError(
        f"{where}: data.columns.{name}",
        expected=f"one of {', '.join(row)}",
        got=repr(column),
        fix=did_you_mean(column, row) or advice,
    )


def looks_like_sample(header: Iterable[str]) -> bool:
    """Return whether the first row of a table can hardly be names: it has a number, or a sentence.

    >>> looks_like_sample(["a good film indeed", "pos"]), looks_like_sample(["text", "label"])
    (False, False)
    >>> looks_like_sample(["a good film, and long", "pos"]), looks_like_sample(["0.5", "a"])
    (True, True)
    """
    return any(is_number(field) or not may_be_name(field) for field in header)


def names_for(rows: Sequence[Sequence[str]], roles: Mapping[str, str]) -> list[str]:
    """Return names for the columns of rows without a header, as a suggestion.

    The answer is the column with the fewest words, a text the one with the longest, and what is left is numbered.
    """
    width = len(rows[0])
    columns = [[row[index] for row in rows if len(row) > index] for index in range(width)]
    names = [f"x{index}" for index in range(1, width + 1)]
    free = list(range(width))
    words = [{word for field in column for word in field.split()} for column in columns]
    by_variety = sorted(free, key=lambda index: (len(words[index]), -index))
    for column in (name for name, role in roles.items() if role in ANSWERS and free):
        index = next(index for index in by_variety if index in free)
        names[index] = column
        free.remove(index)
    wanted = [name for name, role in roles.items() if role in ALIASES and role not in ANSWERS]
    longest = sorted(free, key=lambda index: -sum(map(len, columns[index])))[: len(wanted)]
    for index, column in zip(sorted(longest), wanted, strict=False):
        names[index] = column
    return names


def column_options(header: Sequence[str], roles: Mapping[str, str]) -> str:
    """Return the options that say which columns of a header are ours, by the names that they usually have.

    >>> column_options(["review", "sentiment"], {"text": "text", "label": "label"})
    '--data.columns.text review --data.columns.label sentiment'
    """
    options = {role: alias_of(role, header) for role in roles.values()}
    return " ".join(f"--data.columns.{role} {quoted(name)}" for role, name in options.items() if name)


def header_error(path: Path, names: Sequence[str], header: Sequence[str], roles: Mapping[str, str]) -> InputError:
    """Return the error for a header that is not what `data.file_columns` says."""
    return InputError(
        f"{path}, line 1",
        expected=f"a sample with the columns {', '.join(names)} (data.file_columns)",
        got=f"the header {', '.join(header)}",
        fix=f"give --data.file_columns null {column_options(header, roles)}".strip(),
    )


def fields_of(path: Path, format: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV or TSV file that are not empty, as line numbers and fields."""
    return read_fields(decode_lines(open_bytes(path), str(path)), str(path), DELIMITERS[format])


def alias_of(role: str, names: Iterable[str]) -> str | None:
    """Return the one name that usually means a column of ours, or None if none or several do."""
    hits = [name for name in names if is_alias(role, name)]
    exact = [name for name in hits if name.strip().lower() == role]
    return exact[0] if len(exact) == 1 else hits[0] if len(hits) == 1 else None


def is_alias(role: str, name: str) -> bool:
    """Return whether a name usually means a column of ours, whatever its case.

    >>> is_alias("text", "Review"), is_alias("text", "The review"), is_alias("x", "x")
    (True, False, False)
    """
    return name.strip().lower().replace(" ", "_") in ALIASES.get(role, "").split()


def is_same(one: str, other: str) -> bool:
    """Return whether two names are the same but for case."""
    return lowered([one]) == lowered([other])


def lowered(names: Iterable[str]) -> list[str]:
    """Return names as they are compared."""
    return [name.strip().lower() for name in names]


def quoted(name: str) -> str:
    """Return a value as a shell takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else f"'{name}'"


def looks_like_name(field: str) -> bool:
    """Return whether a field may be the name of a column: a few words that begin with a letter.

    >>> looks_like_name("Sentence #"), looks_like_name("0.5"), looks_like_name("A good film."), looks_like_name("Go!")
    (True, False, False, False)
    """
    text = field.strip()
    return (
        NAME.fullmatch(text) is not None
        and len(text) <= LONGEST_NAME
        and len(text.split()) <= MOST_WORDS
        and not text.endswith(".")
    )


def may_be_name(field: str) -> bool:
    """Return whether a field of a header is no sentence; it may be empty.

    >>> may_be_name("No."), may_be_name("Sentence #"), may_be_name("Run away!")
    (True, True, False)
    """
    words = field.split()
    sentence = len(words) > 1 and words[-1].endswith((".", "!", "?", "。"))
    return len(field) <= LONGEST_NAME and len(words) <= MOST_WORDS and not sentence


def is_number(field: str) -> bool:
    """Return whether a field reads as a number."""
    try:
        float(field)
    except ValueError:
        return False
    return True
