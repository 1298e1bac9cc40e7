"""Raw samples from streams: one at a time, and every complaint names the line."""

from __future__ import annotations

import itertools

import pytest

from rnnzoo.data.streams import read_samples
from rnnzoo.errors import InputError


def samples(text, kind, format, **options):
    lines = text if isinstance(text, list) else text.encode().splitlines(keepends=True)
    found = list(read_samples(lines, kind=kind, format=format, where="input", **options))
    assert all(sample.pop("name") for sample in found), "a sample knows its place"
    return found


def complaint(text, kind, format, **options):
    with pytest.raises(InputError) as caught:
        samples(text, kind, format, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text_classification", [{"text": "1 2"}, {"text": ""}, {"text": "3,4"}]),
        ("translation", [{"source": "1 2"}, {"source": ""}, {"source": "3,4"}]),
        ("tagging", [{"tokens": ["1", "2"]}, {"tokens": []}, {"tokens": ["3,4"]}]),
        ("vectors", [{"vector": [1.0, 2.0]}, {"vector": []}, {"vector": [3.0, 4.0]}]),
    ],
)
def test_text_gives_a_sample_a_line_so_that_answers_keep_step(kind, expected):
    assert samples("1 2\n\n3,4\n", kind, "text") == expected


def test_frames_in_text_are_sequences_between_empty_lines():
    assert samples("1 2\n3,4\n\n\n5 6\n", "frames", "text") == [
        {"frames": [[1.0, 2.0], [3.0, 4.0]]},
        {"frames": [[5.0, 6.0]]},
    ]


def test_a_column_of_csv_tells_sequences_of_frames_apart():
    for table in ("a,video\n1,x\n2,x\n3,y\n", "a,video\n1,x\n3,y\n2,x\n"):
        found = samples(table, "frames", "csv", features=["a"], column="video")
        assert found == [{"frames": [[1.0], [2.0]], "sequence": "x"}, {"frames": [[3.0]], "sequence": "y"}]
    assert "did you mean 'video'?" in complaint(table, "frames", "csv", features=["a"], column="vido")
    assert "--column" in complaint(table, "vectors", "csv", features=["a"], column="video")


def test_text_may_have_a_byte_order_mark_and_windows_line_ends():
    assert samples("\ufeffgood\r\nbad\r\n", "text_classification", "text") == [{"text": "good"}, {"text": "bad"}]


@pytest.mark.parametrize(
    ("kind", "line", "expected"),
    [
        ("text_classification", '{"text": "a b", "id": 3}', {"text": "a b"}),
        ("tagging", '{"tokens": ["New York", "b"]}', {"tokens": ["New York", "b"]}),
        ("tagging", '{"text": "a b"}', {"tokens": ["a", "b"]}),
        ("frames", '{"frames": [[1, 2], [3, 4]]}', {"frames": [[1, 2], [3, 4]]}),
        ("vectors", '{"vector": [1, 2]}', {"vector": [1, 2]}),
    ],
)
def test_jsonl_takes_the_key_of_the_processor(kind, line, expected):
    assert samples(line, kind, "jsonl") == [expected]


def test_a_column_may_have_another_name():
    assert samples('{"review": "a"}', "text_classification", "jsonl", column="review") == [{"text": "a"}]
    assert samples("review,stars\na b,3\n", "tagging", "csv", column="review") == [{"tokens": ["a", "b"]}]


def test_csv_takes_the_column_of_the_processor():
    assert samples('id,text\n1,"a, b"\n', "text_classification", "csv") == [{"text": "a, b"}]
    assert samples("id,tokens\n1,a b\n", "tagging", "csv") == [{"tokens": ["a", "b"]}]


def test_csv_of_numbers_is_vectors_or_one_sequence_in_the_order_of_the_features():
    table = "b,time,a\n1,noon,2\n3,one,4\n"
    assert samples(table, "vectors", "csv", features=["a", "b"]) == [{"vector": [2.0, 1.0]}, {"vector": [4.0, 3.0]}]
    assert samples(table, "frames", "csv", features=["a", "b"]) == [{"frames": [[2.0, 1.0], [4.0, 3.0]]}]
    assert samples("a,b\n", "frames", "csv", features=["a"]) == []


@pytest.mark.parametrize(
    ("format", "head", "line"),
    [("text", [], b"a\n"), ("jsonl", [], b'{"text": "a"}\n'), ("csv", [b"text\n"], b"a\n")],
)
def test_nothing_but_the_sample_at_hand_is_kept(format, head, line):
    taken = []

    def endless():
        yield from head
        while True:
            taken.append(1)
            yield line

    stream = read_samples(endless(), kind="text_classification", format=format, where="input")
    assert [sample["text"] for sample in itertools.islice(stream, 3)] == ["a"] * 3
    assert len(taken) <= 4


# Complaints


def test_an_unknown_format():
    assert "did you mean 'jsonl'?" in complaint("a", "tagging", "json")


@pytest.mark.parametrize(
    ("format", "text", "line"), [("jsonl", '{"text": "a"}\n{"txet": "b"}\n', 2), ("csv", "txet\na\n", 2)]
)
def test_a_missing_column_names_the_line_and_what_is_there(format, text, line):
    found = complaint(text, "text_classification", format)
    assert f"input, line {line}" in found
    assert "txet" in found
    assert "did you mean 'txet'?" in found


def test_broken_json_and_broken_utf8_name_the_line():
    assert "input, line 2: expected a JSON object" in complaint('{"text": "a"}\n{\n', "text_classification", "jsonl")
    assert "input, line 2" in complaint([b"a\n", b"\xe4\n"], "text_classification", "text")


@pytest.mark.parametrize("kind", ["vectors", "frames"])
def test_words_among_numbers_name_the_line(kind):
    assert "input, line 2: expected numbers" in complaint("1 2\n1 two\n", kind, "text")


@pytest.mark.parametrize("kind", ["vectors", "frames"])
def test_bad_tables_of_numbers_name_line_and_column(kind):
    text = complaint("a,b\n1,2\n3,x\n", kind, "csv", features=["a", "b"])
    assert "input, line 3, column 'b': expected a number, got 'x'" in text
    assert "'aa'" in complaint("a,b\n1,2\n", kind, "csv", features=["aa"])
