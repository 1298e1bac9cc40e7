"""The rows of metrics.csv: those of a resumed run follow those of before, whatever a kill left of the last one."""

from __future__ import annotations

import csv

import pytest

from rnnzoo.cli.metrics_log import MetricsLog


def rows(path):
    with (path / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def log(folder, *metrics, steps=0):
    logger = MetricsLog(folder, steps=steps)
    for step, row in metrics:
        logger.log_metrics(row, step)
        logger.save()


def test_rows_with_new_columns_and_old_ones_are_all_there(tmp_path):
    log(tmp_path, (3, {"a": 1.5}), (3, {"a": 2.0}), (7, {"b": 0.25}), (7, {"a": 3.0, "b": 1e-7}))
    assert rows(tmp_path) == [
        {"step": "3", "a": "1.5"},
        {"step": "3", "a": "2.0"},
        {"step": "7", "b": "0.25"},
        {"step": "7", "a": "3.0", "b": "1e-07"},
    ]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_row_that_was_cut_short_is_left_out(tmp_path, cut):
    log(tmp_path, (3, {"a": 1.5}), (7, {"a": 12.25}))
    path = tmp_path / "metrics.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    log(tmp_path, (7, {"a": 9.0}), steps=8)
    begin = [{"step": "3", "a": "1.5"}] if cut <= len("12.25,7\r\n") else []
    assert rows(tmp_path) == [*begin, {"step": "7", "a": "9.0"}]


def test_rows_after_the_checkpoint_are_logged_again(tmp_path):
    log(tmp_path, (3, {"a": 1.0}), (7, {"a": 2.0}))
    log(tmp_path, (7, {"a": 3.0, "b": 1.0}), steps=4)
    assert rows(tmp_path) == [{"step": "3", "a": "1.0"}, {"step": "7", "a": "3.0", "b": "1.0"}]


@pytest.mark.parametrize("damage", [b"", b"\0\0\0\n", b"step\n1,2,3\n", b"\xff\xfe\n,\n", b"a,b\n1,2\n"])
def test_a_damaged_file_does_not_stop_the_run(tmp_path, damage):
    (tmp_path / "metrics.csv").write_bytes(damage)
    log(tmp_path, (7, {"a": 3.0}), steps=8)
    assert rows(tmp_path) == [{"step": "7", "a": "3.0"}]
