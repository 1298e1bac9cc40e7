"""Text written token by token: exact for characters, bytes and byte pairs, joined by blanks for words."""

from __future__ import annotations

import pytest

from rnnzoo.text.tokenizer import KINDS, PAD_ID, Tokenizer, TokenizerOptions
from rnnzoo.text.writer import TextWriter

TEXTS = ["Zoë sees 日本, twice\u0301:  “so” 🦉.", "a b\tc", "", "  x ", "naïve café 🦉🦉"]


def tokenizer(kind, texts=TEXTS):
    return Tokenizer.train(texts, TokenizerOptions(kind=kind, unicode=None))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "words"])
@pytest.mark.parametrize("text", TEXTS)
def test_everything_but_words_is_restored_exactly(kind, text):
    found = tokenizer(kind)
    writer = TextWriter(found)
    pieces = [writer.push(token) for token in found.encode(text)]
    assert "".join(pieces) + writer.finish() == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_joined_by_blanks(text):
    found = tokenizer("words")
    assert TextWriter(found).write(found.encode(text)) == " ".join(text.split())


def test_a_character_of_several_bytes_comes_when_it_is_whole():
    found = tokenizer("bytes")
    writer = TextWriter(found)
    assert [writer.push(token) for token in found.encode("a🦉b")] == ["a", "", "", "", "🦉", "b"]


def test_a_character_that_is_never_finished_is_shown_as_such():
    found = tokenizer("bytes")
    writer = TextWriter(found)
    owl = found.encode("🦉")
    assert writer.write(owl[:2]) + writer.finish() == "\ufffd"
    assert writer.write(owl) == "🦉", "what was held back is forgotten"
    assert writer.write([*owl[:2], *found.encode("x")]) == "\ufffdx"


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_is_a_line_end_and_padding_nothing(kind):
    found = tokenizer(kind)
    writer = TextWriter(found)
    a = found.encode("a") or found.encode("b")
    if kind == "words":
        assert writer.write([*a, *a, found.end_id, *a, PAD_ID, *a]) == "a a\na a"
    else:
        assert writer.write([*a, *a, found.end_id, *a, PAD_ID]) == "aa\na"


def test_an_unknown_word_is_written_as_unknown():
    found = tokenizer("words")
    assert TextWriter(found).write(found.encode("a dog")) == "a <unk>"
