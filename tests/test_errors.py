"""Errors of the user's input: one line, in every process."""

from __future__ import annotations

import pickle

import pytest
from small_models import build

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


@pytest.mark.parametrize(
    ("model", "method", "values", "message"),
    [
        ("SequenceClassifier", "classify", "a text", "classify: expected a list, got 'a text'; put it into a list"),
        ("SequenceTagger", "tag", "The cat", "tag: expected a list of lists of words, got 'The cat'"),
        ("SequenceTagger", "tag", ["The cat"], "tag: expected a list of words in the list, got 'The cat'"),
        ("VectorClassifier", "classify", [1, 2], "classify: expected a list of numbers in the list, got 1"),
        ("FrameLabeller", "label", [[1, 2]], "label: expected a list of numbers in the list, got 1"),
        ("FrameLabeller", "label", 3, "label: expected a list of lists of frames, got 3"),
        ("Translator", "translate", "a text", "translate: expected a list, got 'a text'"),
        ("LanguageModel", "score", "a text", "score: expected a list, got 'a text'"),
        ("Captioner", "caption", "image.png", "caption: expected a list, got 'image.png'"),
        ("SequenceTagger", "answer", {"tokens": ["a"]}, "samples to answer: expected a list of samples, got {'tokens'"),
    ],
)
def test_one_thing_instead_of_a_list_is_not_taken_apart(model, method, values, message):
    with pytest.raises(InputError) as caught:
        list(getattr(build(model), method)(values))
    assert str(caught.value).startswith(message)
