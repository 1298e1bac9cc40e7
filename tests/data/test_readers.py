"""Readers: every format in every wrapping gives the same rows, and every complaint names file and line."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from rnnzoo.data.readers import decode_lines, open_bytes, read_rows
from rnnzoo.errors import InputError

SAMPLES = {  # format → names of columns, text, rows
    "csv": (
        None,
        'text,label\n"good, very good",pos\nschlecht ä,neg\n',
        [{"text": "good, very good", "label": "pos"}, {"text": "schlecht ä", "label": "neg"}],
    ),
    "tsv": (
        ["text", "label"],
        'so "bad" it hurts\t0\nfine\t1\n',
        [{"text": 'so "bad" it hurts', "label": "0"}, {"text": "fine", "label": "1"}],
    ),
    "jsonl": (
        None,
        '{"tokens": ["é", "b"], "n": 1}\n\n{"tokens": [], "n": null}\n',
        [{"tokens": ["é", "b"], "n": 1}, {"tokens": [], "n": None}],
    ),
    "text": (None, "Ångström\n\n  Smith \n", [{"text": "Ångström"}, {"text": "Smith"}]),
    "conll": (
        ["tokens", "pos", "ner"],
        "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nüber IN O\n",
        [
            {"tokens": ["EU", "rejects"], "pos": ["NNP", "VBZ"], "ner": ["B-ORG", "O"]},
            {"tokens": ["über"], "pos": ["IN"], "ner": ["O"]},
        ],
    ),
}
WRAPPINGS = {
    "plain": ("", lambda text: text.encode()),
    "crlf": ("", lambda text: text.replace("\n", "\r\n").encode()),
    "byte order mark": ("", lambda text: b"\xef\xbb\xbf" + text.encode()),
    "no last line end": ("", lambda text: text.rstrip("\n").encode()),
    "gz": (".gz", lambda text: gzip.compress(text.encode())),
    "xz": (".xz", lambda text: lzma.compress(text.encode())),
    "xz, crlf, byte order mark": (
        ".xz",
        lambda text: lzma.compress(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()),
    ),
}
CONLLU = """# sent_id = 1
# text = I don't know
1\tI\tI\tPRON\tPRP\t_\t4\tnsubj\t_\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t_\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t_\t_
4\tknow\tknow\tVERB\tVB\t_\t0\troot\t_\t_
4.1\tit\tit\tPRON\tPRP\t_\t_\t_\t4:obj\t_

# sent_id = 2
1\tNew York\tNew York\tPROPN\tNNP\t_\t0\troot\t_\t_
"""


def write(tmp_path, content, name="train.x"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path, format, names=None):
    return [row for _, row in read_rows(path, format, names)]


def complaint(path, format, names=None):
    with pytest.raises(InputError) as caught:
        list(read_rows(path, format, names))
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


# Formats and wrappings


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("format", SAMPLES)
def test_every_format_reads_the_same_in_every_wrapping(tmp_path, format, wrapping):
    names, text, expected = SAMPLES[format]
    suffix, wrap = WRAPPINGS[wrapping]
    assert rows(write(tmp_path, wrap(text), "train.x" + suffix), format, names) == expected


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_conllu_skips_word_ranges_and_empty_nodes(tmp_path, wrapping):
    suffix, wrap = WRAPPINGS[wrapping]
    found = rows(write(tmp_path, wrap(CONLLU), "train.conllu" + suffix), "conllu")
    assert [row["tokens"] for row in found] == [["I", "do", "n't", "know"], ["New York"]]
    assert [row["upos"] for row in found] == [["PRON", "AUX", "PART", "VERB"], ["PROPN"]]
    assert found[0]["form"] == found[0]["tokens"]
    assert found[0]["id"] == ["1", "2", "3", "4"]


def test_places_name_file_and_line(tmp_path):
    path = write(tmp_path, 'text,label\na,1\n\n"b\nc",2\nd,3\n')
    assert [place for place, _ in read_rows(path, "csv")] == [f"{path}, line {line}" for line in (2, 5, 6)]
    path = write(tmp_path, "-DOCSTART- O\n\na O\nb O\n\nc O\n")
    assert [place for place, _ in read_rows(path, "conll")] == [f"{path}, line 3", f"{path}, line 6"]
    path = write(tmp_path, CONLLU)
    assert [place for place, _ in read_rows(path, "conllu")] == [f"{path}, line 3", f"{path}, line 11"]
    path = write(tmp_path, '\n{"a": 1}\n')
    assert [place for place, _ in read_rows(path, "jsonl")] == [f"{path}, line 2"]


# Tables


@pytest.mark.parametrize(
    ("content", "names", "expected"),
    [
        ('text,label\na,x\n"b,y\nc,x\nd,y\n', None, "a field that holds quotation marks is put in such"),
        ("good film,pos,en\nbad film,neg,en\n", ["text", "label"], "expected 2 fields: text, label, got 3"),
        ("text,label\ngood film,pos,\nbad film,neg,\n", None, "expected 2 fields: text, label, got 3"),
        ("text,label,text\na,x,b\n", None, "header: expected each name once, got 'text' 2 times"),
    ],
)
def test_a_table_that_would_be_read_shifted_or_in_part_is_refused(tmp_path, content, names, expected):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=expected):
        list(read_rows(tmp_path / "a.csv", "csv", names))


def test_csv_fields_may_hold_quotes_commas_and_line_ends(tmp_path):
    path = write(tmp_path, 'text,label\r\n"He said ""no"", twice\r\nthen left",neg\r\n')
    assert rows(path, "csv") == [{"text": 'He said "no", twice\nthen left', "label": "neg"}]


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_a_header_of_the_names_that_are_given_is_no_sample(tmp_path, format):
    blank = {"csv": ",", "tsv": "\t"}[format]
    (tmp_path / "a").write_text(f"Text{blank}label\na{blank}x\ntext{blank}label\n")
    assert rows(tmp_path / "a", format, ["text", "label"]) == [
        {"text": "a", "label": "x"},
        {"text": "text", "label": "label"},
    ]


@pytest.mark.parametrize(
    ("first", "expected"),
    [("text,nice", True), ("label,x", True), ("sentence,Label", False), ("Label,Text", False), ("text,label", True)],
)
def test_a_first_sample_that_says_the_name_of_a_column_is_a_sample(tmp_path, first, expected):
    path = write(tmp_path, f"{first}\na,x\n")
    if expected:
        assert len(rows(path, "csv", ["text", "label"])) == (1 if first == "text,label" else 2)
    else:
        assert "line 1: expected a sample, since data.file_columns says text, label" in complaint(
            path, "csv", ["text", "label"]
        )


def test_a_header_may_have_blanks_around_its_names(tmp_path):
    assert rows(write(tmp_path, "text, label\na,b\n"), "csv") == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize(("format", "mark"), [("csv", ","), ("tsv", "\t")])
def test_a_row_name_more_than_the_header_is_dropped(tmp_path, format, mark):
    path = write(tmp_path, '"x","y"\n"1",2.5,3\n"2",3.5,4\n'.replace('"', "").replace(",", mark))
    assert rows(path, format) == [{"x": "2.5", "y": "3"}, {"x": "3.5", "y": "4"}]


def test_a_stray_comma_in_one_row_is_not_taken_for_a_row_name(tmp_path):
    text = complaint(write(tmp_path, "text,label\ngood,1\nbad, really bad,0\n"), "csv")
    assert "line 3" in text


def test_names_of_columns_make_the_first_line_a_row(tmp_path):
    path = write(tmp_path, "a,b\n")
    assert rows(path, "csv", ["x", "y"]) == [{"x": "a", "y": "b"}]
    assert rows(path, "csv") == []


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "text"])
def test_a_long_text_is_read_whole(tmp_path, format):
    long = "word " * 60_000
    content = {
        "csv": f'text,label\n"{long}",1\n',
        "tsv": f"text\tlabel\n{long}\t1\n",
        "jsonl": f'{{"text": "{long}"}}\n',
        "text": long + "\n",
    }[format]
    (row,) = rows(write(tmp_path, content), format)
    assert row["text"].strip() == long.strip()


@pytest.mark.parametrize("format", ["csv", "tsv"])
def test_ragged_rows_are_refused_with_the_line_and_the_columns(tmp_path, format):
    mark = {"csv": ",", "tsv": "\t"}[format]
    for row in ("only", mark.join("abcd")):
        text = complaint(write(tmp_path, f"text{mark}label\nx{mark}1\n{row}\n"), format)
        assert "line 3: expected 2 fields: text, label" in text


# CoNLL columns


def test_conll_calls_first_column_tokens_and_last_tags(tmp_path):
    found = rows(write(tmp_path, "EU NNP I-NP I-ORG\n"), "conll")
    assert found == [{"tokens": ["EU"], "1": ["NNP"], "2": ["I-NP"], "tags": ["I-ORG"]}]


def test_conll_with_tabs_keeps_blanks_inside_a_word(tmp_path):
    assert rows(write(tmp_path, "New York\tB\nwon\tO\n"), "conll") == [
        {"tokens": ["New York", "won"], "tags": ["B", "O"]}
    ]


def test_conll_comments_and_blank_lines_with_blanks_end_no_word(tmp_path):
    content = "# id = 1\na O\nb O\n  \n\t\n# id = 2\nc O\n"
    assert [row["tokens"] for row in rows(write(tmp_path, content), "conll")] == [["a", "b"], ["c"]]


@pytest.mark.parametrize("mark", ["\t", " "])
def test_conll_keeps_the_word_number_sign_inside_a_sentence(tmp_path, mark):
    content = "He O\nis O\n# O\none O\n".replace(" ", mark)
    assert rows(write(tmp_path, content), "conll") == [{"tokens": ["He", "is", "#", "one"], "tags": ["O"] * 4}]


def test_conll_rows_with_missing_columns_are_refused(tmp_path):
    assert "line 3: expected 3 columns, got 2" in complaint(write(tmp_path, "\na X O\nb O\n"), "conll")
    assert "line 1: expected 3 columns, got 2" in complaint(write(tmp_path, "b O\n"), "conll", ["a", "b", "c"])
    assert "line 2: expected 10 columns, got 2" in complaint(write(tmp_path, "# x\n1\ta\n"), "conllu")


def test_conllu_refuses_an_id_that_is_none(tmp_path):
    content = CONLLU.replace("\n4\tknow", "\nfour\tknow")
    assert "line 7" in complaint(write(tmp_path, content), "conllu")


# Complaints


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1}\n{"a": \n', "line 2: expected a JSON object"),
        ("[1, 2]\n", "line 1: expected a JSON object, got list"),
    ],
)
def test_broken_json_names_the_line(tmp_path, content, expected):
    assert expected in complaint(write(tmp_path, content), "jsonl")


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "text", "conll", "conllu"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_broken_utf8_names_line_byte_and_place(tmp_path, format, suffix):
    first = {"csv": b"text\n", "tsv": b"text\n", "jsonl": b'{"a": 1}\n', "conllu": b"# x\n"}.get(format, b"a b\n")
    raw = first + b"ab\xff\n"
    wrapped = {"": raw, ".gz": gzip.compress(raw), ".xz": lzma.compress(raw)}[suffix]
    text = complaint(write(tmp_path, wrapped, "train.x" + suffix), format)
    assert "line 2" in text
    assert "utf-8" in text
    assert "0xff at position 3" in text


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_truncated_and_damaged_archives_are_refused(tmp_path, suffix, compress):
    whole = compress("".join(f"line {number * number}\n" for number in range(2000)).encode())
    damaged = bytearray(whole)
    for place in range(len(whole) // 2, len(whole) // 2 + 40):
        damaged[place] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(damaged), b"not an archive\n"):
        complaint(write(tmp_path, content, "train.txt" + suffix), "text")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    complaint(tmp_path / "none.csv", "csv")


def test_an_unknown_format_gets_the_list_and_a_hint(tmp_path):
    with pytest.raises(InputError, match=r"data\.format.*conllu.*did you mean 'jsonl'"):
        list(read_rows(write(tmp_path, "a"), "json"))


# Streams of bytes


def test_lines_are_read_one_at_a_time():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield b"a\r\n"

    lines = decode_lines(endless(), "here")
    assert [next(lines), next(lines)] == [(1, "a"), (2, "a")]
    assert len(taken) == 2


def test_a_byte_order_mark_counts_only_at_the_beginning():
    lines = ["\ufeffa\n".encode(), "\ufeffb\n".encode()]
    assert list(decode_lines(lines, "here")) == [(1, "a"), (2, "\ufeffb")]


def test_compression_is_told_by_the_name(tmp_path):
    for suffix, compress in ((".gz", gzip.compress), (".xz", lzma.compress)):
        assert list(open_bytes(write(tmp_path, compress(b"a\nb"), f"x{suffix}"))) == [b"a\n", b"b"]
    assert list(open_bytes(Path(write(tmp_path, b"a\nb", "x")))) == [b"a\n", b"b"]
