"""CoNLL columns: a word is never taken for markup, and prediction splits words as training does."""

from __future__ import annotations

import itertools

import pytest

from rnnzoo.data import TaggingData
from rnnzoo.data.readers import decode_lines, read_rows
from rnnzoo.data.streams import read_samples
from rnnzoo.errors import InputError
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.labels import LabelMap
from rnnzoo.text.tokenizer import Tokenizer, TokenizerOptions

UNICODE_BLANKS = ["\u00a0", "\u2009", "\u3000", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]


def rows(tmp_path, content, names=None):
    path = tmp_path / "train.conll"
    path.write_bytes(content.encode())
    return [row for _, row in read_rows(path, "conll", names)]


def tokens(tmp_path, content, names=None):
    return [row["tokens"] for row in rows(tmp_path, content, names)]


@pytest.mark.parametrize("mark", [" ", "\t"])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("words", list(itertools.permutations(["#", "a", "#b", "-DOCSTART"], 3)))
def test_every_word_of_a_sentence_is_read_wherever_it_is(tmp_path, words, width, mark):
    line = mark.join(["{}", *["X"] * (width - 2), "O"])
    content = "\n\n".join("\n".join(line.format(word) for word in sentence) for sentence in (words, words[:1], words))
    assert tokens(tmp_path, content) == [list(words), [words[0]], list(words)]


def test_a_file_of_number_signs_alone_keeps_them(tmp_path):
    assert tokens(tmp_path, "# O\n\n# O\n# B\n") == [["#"], ["#", "#"]]


@pytest.mark.parametrize(
    "comment",
    ["# id 123 domain=en", "# sent_id = 5", "# text = It is", "# newdoc", "# newpar id = p1", "# a comment of words"],
)
@pytest.mark.parametrize("mark", [" ", "\t"])
@pytest.mark.parametrize("width", [2, 4])
def test_a_comment_before_a_sentence_is_no_word(tmp_path, comment, width, mark):
    line = mark.join(["{}", *["_"] * (width - 2), "O"])
    block = f"{comment}\n{line.format('#')}\n{line.format('b')}\n"
    assert tokens(tmp_path, f"{block}\n{block}") == [["#", "b"]] * 2
    assert tokens(tmp_path, f"{comment}\n\n{block}") == [["#", "b"]]


def test_a_line_without_tabs_is_a_comment_where_columns_have_tabs(tmp_path):
    assert tokens(tmp_path, "# two\n#\tO\nNew York\tB\n") == [["#", "New York"]]


@pytest.mark.parametrize("before", ["", "\n"])
@pytest.mark.parametrize("after", ["", "\n"])
def test_a_document_ends_a_sentence_with_or_without_a_blank_line(tmp_path, before, after):
    content = f"-DOCSTART- O\n{after}a O\nb O\n{before}-DOCSTART- O\n{after}c O\n-DOCSTART--like O\n"
    assert tokens(tmp_path, content) == [["a", "b"], ["c", "-DOCSTART--like"]]


@pytest.mark.parametrize("blank", UNICODE_BLANKS)
@pytest.mark.parametrize("mark", [" ", "\t", "  "])
def test_blanks_of_unicode_are_parts_of_words_in_training_and_in_prediction(tmp_path, blank, mark):
    words = [f"10{blank}km", f"{blank}a", f"b{blank}", blank]
    sentences = [words, words[:1]]
    content = "\n\n".join("\n".join(f"{word}{mark}O" for word in sentence) for sentence in sentences) + "\n"
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.conll").write_bytes(content.encode())
    data = TaggingData(path=str(tmp_path))
    assert list(data.raw("train")["tokens"]) == sentences
    text = "".join(" ".join(sentence) + "\n" for sentence in sentences).encode()
    for lines, format in (
        (text.splitlines(keepends=True), "text"),
        ([b"tokens\n", *(f'"{" ".join(sentence)}"\n'.encode() for sentence in sentences)], "csv"),
    ):
        samples = read_samples(lines, kind="tagging", format=format, where="input")
        assert [sample["tokens"] for sample in samples] == sentences


def test_blanks_around_a_text_are_left_out_in_training_and_in_prediction(tmp_path):
    (tmp_path / "Zulu.txt").write_bytes("  Dube \u3000\n".encode())
    ((_, row),) = read_rows(tmp_path / "Zulu.txt", "text")
    characters = Tokenizer.train(["Dube \u3000"], TokenizerOptions(kind="characters"))
    processor = TextClassificationProcessor(tokenizer=characters, labels=LabelMap(["Zulu"]))
    (sample,) = read_samples(["\t Dube \u3000 \n".encode()], kind="text_classification", format="text", where="input")
    assert row["text"] == "Dube \u3000"
    assert processor.encode(sample)["tokens"] == processor.encode(row)["tokens"]
    assert len(processor.encode(row)["tokens"]) == 6


def test_only_line_feeds_end_lines():
    lines = ["a\u2028b\x85c\x0cd O\r\n".encode(), b"e O\n"]
    assert [line for _, line in decode_lines(lines, "here")] == ["a\u2028b\x85c\x0cd O", "e O"]


def test_a_file_may_hold_words_alone(tmp_path):
    assert rows(tmp_path, "a\n#\n\n# b c\nd\n") == [{"tokens": ["a", "#"]}, {"tokens": ["d"]}]
    assert rows(tmp_path, "a\n#\n\nd\n", ["tokens", "pos", "tags"]) == [{"tokens": ["a", "#"]}, {"tokens": ["d"]}]


def test_a_line_of_other_columns_than_the_file_has_is_refused(tmp_path):
    for content, line in (("a O\nb\n", 2), ("a O\n\nb X O\n", 3), ("a O\n# O\n# b c\n", 3), ("a\n\nb O\n", 3)):
        with pytest.raises(InputError, match=f"line {line}: expected . columns, got "):
            rows(tmp_path, content)
