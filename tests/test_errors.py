"""Errors of the user's input: one line, in every process."""

from __future__ import annotations

import pickle

from rnnzoo.errors import InputError, find_input_error

ERROR = InputError("a.csv, line 3", expected="a label", got="none", fix="drop the row")


def test_an_error_comes_whole_out_of_another_process():
    again = pickle.loads(pickle.dumps(ERROR))
    assert isinstance(again, InputError)
    assert str(again) == str(ERROR) == "a.csv, line 3: expected a label, got none; drop the row"


def test_the_error_of_a_worker_process_is_found_in_its_text():
    text = "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    text += f'  File "x.py", line 1\nOSError: broken\n\nThe above exception ...\n\nrnnzoo.errors.InputError: {ERROR}\n'
    assert str(find_input_error(RuntimeError(text))) == str(ERROR)


def test_errors_behind_others():
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = ERROR
    assert find_input_error(wrapped) is ERROR
    assert find_input_error(RuntimeError("InputError: something else")) is None
