"""Damaged files of all formats: each is read or refused in one line, and nothing else is ever raised."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from fuzzing import CASES, Case, damage

from rnnzoo.data.row_counters import RowSource
from rnnzoo.data.sources import file_rows, find_files
from rnnzoo.errors import InputError

TEXT_CASES = [case for case in CASES if not case.name.endswith(".parquet")]
PARQUET_CASES = [case for case in CASES if case.name.endswith(".parquet")]


def rows_of(case: Case, folder: str) -> None:
    """Read all samples of a folder, without a table being made of them."""
    data = case.data(folder)
    files = find_files(folder, format=None, allowed=data.formats, named=data.named)
    for split, paths in files.splits.items():
        data.inspect(
            [RowSource(str(path), split, partial(file_rows, path, files.formats[path], None)) for path in paths], []
        )
        for _ in data._generate(tuple((str(path), files.formats[path]) for path in paths)):
            pass


def encoded(case: Case, folder: str) -> None:
    """Read a folder as a training does: tables, splits, a processor, encoded samples."""
    data = case.data(folder)
    assert data.processor is not None
    data.encoded("train")


def try_damaged(cases, read, numbers, folder: Path) -> int:
    """Read damaged files, one for each of `numbers`, which seed them; return how many were not refused."""
    accepted = 0
    for number in numbers:
        case = cases[number % len(cases)]
        draw = random.Random(number)
        content = case.make(draw)
        if (
            not case.name.endswith(".parquet") or draw.random() < 0.2
        ):  # a changed byte of Parquet is nearly always fatal
            content = damage(content, draw)
        file = folder / case.name
        file.write_bytes(content)
        try:
            read(case, str(folder))
            accepted += 1
        except InputError as error:
            if "\n" in str(error):
                raise AssertionError(f"file {number}, {case.name}: more than one line: {error}") from error
        except Exception as error:
            raise AssertionError(f"file {number}, {case.name} by {case.data.__name__}: {error!r}") from error
        file.unlink()
    return accepted


def test_valid_files_are_read(tmp_path):
    """Else the fuzz would only see refusals."""
    for case in CASES:
        read = 0
        for number in range(20):
            content = case.make(random.Random(number))
            (tmp_path / case.name).write_bytes(content)
            try:
                rows_of(case, str(tmp_path))
                read += 1
            except InputError:
                pass
            (tmp_path / case.name).unlink()
        images_are_missing = case.data.__name__ == "captions"
        assert read >= 2 or images_are_missing, (case.name, case.data.__name__)


@pytest.mark.parametrize("part", range(2))
def test_damaged_files_are_read_or_refused(tmp_path, part):
    count = 700
    assert try_damaged(CASES, rows_of, range(part * count, (part + 1) * count), tmp_path) > 0.05 * count


def test_what_is_made_of_damaged_files_is_trained_on_or_refused(tmp_path):
    assert try_damaged(CASES, encoded, range(10**6, 10**6 + 150), tmp_path) > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ninety_thousand_damaged_text_files(tmp_path, part):
    start = 2 * 10**6 + part * 9_000
    try_damaged(TEXT_CASES, rows_of, range(start, start + 9_000), tmp_path)


@pytest.mark.slow
def test_six_thousand_damaged_parquet_files(tmp_path):
    try_damaged(PARQUET_CASES, rows_of, range(3 * 10**6, 3 * 10**6 + 6_000), tmp_path)


@pytest.mark.slow
def test_four_thousand_damaged_files_as_training_data(tmp_path):
    try_damaged(CASES, encoded, range(4 * 10**6, 4 * 10**6 + 4_000), tmp_path)


def test_text_that_is_no_unicode_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a \\ud800", "label": "x"}\n{"text": "b", "label": "y"}\n')
    with pytest.raises(InputError, match="Unicode"):
        next(case for case in CASES if case.data.__name__ == "classify").data(str(tmp_path)).raw("train")
