"""Text as tokens: where end tokens stand, what each token stands for, and prompts with what training never saw."""

from __future__ import annotations

import pytest

from rnnzoo.batches import IGNORED
from rnnzoo.errors import InputError
from rnnzoo.processors.base import load_processor
from rnnzoo.processors.language import LanguageProcessor, split_lines
from rnnzoo.text.tokenizer import KINDS, Tokenizer, TokenizerOptions

TEXT = "the cat  saw\nthe\tdog é日\n\n the end \n"


def processor(kind="words", texts=(TEXT,), line_end=False, document_end=False):
    lines = [line for text in texts for line in split_lines(text)]
    tokenizer = Tokenizer.train(lines, TokenizerOptions(kind=kind, unicode=None))
    return LanguageProcessor(tokenizer=tokenizer, line_end=line_end, document_end=document_end)


def encode(found, text):
    return found.encode({"text": text})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line_end", [False, True])
@pytest.mark.parametrize("document_end", [False, True])
def test_every_character_and_word_of_the_raw_text_is_counted_once(kind, line_end, document_end):
    row = encode(processor(kind, line_end=line_end, document_end=document_end), TEXT)
    assert len(row["tokens"]) == len(row["characters"]) == len(row["words"]) == row["length"]
    assert row["characters"].sum() == len(TEXT)
    assert row["words"].sum() == len(TEXT.split()) + 4


def test_each_token_stands_for_its_own_part_of_the_text():
    row = encode(processor("characters"), TEXT)
    assert set(row["characters"].tolist()) == {1}
    assert row["words"].tolist() == [
        int(now == "\n" or (not now.isspace() and before.isspace()))
        for before, now in zip(" " + TEXT, TEXT, strict=False)
    ]
    row = encode(processor("words", line_end=True), " a  bc\n\nd \n")
    assert row["characters"].tolist() == [2, 4, 1, 1, 1, 2]
    assert row["words"].tolist() == [1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
@pytest.mark.parametrize("line_end", [False, True])
def test_text_comes_back_exactly(kind, line_end):
    found = processor(kind, line_end=line_end)
    assert found.decode(encode(found, TEXT)["tokens"].tolist()) == TEXT


def test_words_come_back_with_blanks_between_and_lines_with_their_ends():
    found = processor(line_end=True)
    assert found.decode(encode(found, TEXT)["tokens"].tolist()) == "the cat saw\nthe dog é日\n\nthe end\n"


def test_an_end_token_stands_for_each_line_end():
    found = processor("characters", ["ab"], line_end=True)
    a, b, end = *found.tokenizer.encode("ab"), found.end_id
    assert encode(found, "ab\n\na")["tokens"].tolist() == [a, b, end, end, a, end]
    assert encode(found, "a\n")["tokens"].tolist() == encode(found, "a")["tokens"].tolist() == [a, end]
    assert encode(found, "")["tokens"].tolist() == [end], "an empty line"
    assert end == found.vocabulary_size - 1


def test_an_end_token_stands_for_the_end_of_a_document():
    found = processor("characters", ["ab\n"], document_end=True)
    a, b, line, end = *found.tokenizer.encode("ab\n"), found.end_id
    assert encode(found, "a\nb\n")["tokens"].tolist() == [a, line, b, end]
    assert encode(found, "a\nb")["tokens"].tolist() == [a, line, b, end]
    assert encode(found, "\n\n\n")["tokens"].tolist() == [line, line, end]
    assert encode(found, "")["tokens"].tolist() == [end]


def test_without_ends_nothing_is_added():
    found = processor("characters", ["ab\n"])
    assert encode(found, "a\nb")["tokens"].tolist() == found.tokenizer.encode("a\nb")
    row = encode(found, "")
    assert row["length"] == 0
    assert row["tokens"].tolist() == []


def test_many_lines_are_those_of_one_after_the_other():
    found = processor("characters", ["ab \n"], line_end=True)
    text = "".join(f"{'ab' * (place % 3)} \n" for place in range(2500))
    assert encode(found, text)["tokens"].tolist() == [
        token for line in split_lines(text) for token in encode(found, line)["tokens"].tolist()
    ]


def test_a_text_becomes_a_lane_of_its_own():
    found = processor("characters", ["abc"], line_end=True)
    rows = [{**encode(found, text), "id": place} for place, text in enumerate(["ab", "c"])]
    batch = found.collate(rows)
    a, b, c, end = *found.tokenizer.encode("abc"), found.end_id
    assert batch.tokens.tolist() == [[end, a, b], [end, c, 0]]
    assert batch.targets.tolist() == [[a, b, end], [c, end, IGNORED]]
    assert batch.resets.tolist() == [[True, False, False], [True, False, False]]
    assert batch.lengths.tolist() == [3, 2]
    assert batch.begins.tolist() == [True, True]
    assert batch.characters.tolist() == [3, 2]
    assert batch.words.tolist() == [2, 2]
    assert float(batch.scale) == 1


def test_json_and_back():
    found = processor("bpe", line_end=True)
    again = load_processor(found.to_json())
    assert isinstance(again, LanguageProcessor)
    assert again.checksum == found.checksum
    assert again.checksum != processor("bpe").checksum
    assert encode(again, TEXT)["tokens"].tolist() == encode(found, TEXT)["tokens"].tolist()


# Prompts


def test_a_prompt_leaves_its_last_line_open():
    found = processor("characters", ["ab"], line_end=True)
    a, b, end = *found.tokenizer.encode("ab"), found.end_id
    assert found.encode_prompt("a\nb") == [a, end, b]
    assert found.encode_prompt("a\n") == [a, end]
    assert found.encode_prompt("") == []


@pytest.mark.parametrize(("kind", "listed"), [("characters", "'x', 'y'"), ("words", "'xay'")])
def test_what_training_never_saw_is_refused_by_name(kind, listed):
    with pytest.raises(InputError, match=rf"prompt: .*got unknown {listed}; .*--unknown skip"):
        processor(kind, ["ab a b"]).encode_prompt("b xay")


def test_what_training_never_saw_is_skipped_or_read_as_unknown():
    found = processor("characters", ["ab"])
    a, b = found.tokenizer.encode("ab")
    assert found.encode_prompt("axby", "skip") == [a, b]
    assert found.encode_prompt("axby", "keep") == [a, 1, b, 1]
    with pytest.raises(InputError, match="did you mean 'skip'"):
        found.encode_prompt("a", "skp")


def test_long_lists_are_cut():
    with pytest.raises(InputError, match="and 6 more"):
        processor("characters", ["?"]).encode_prompt("abcdefghijklmnop")


def test_the_unknown_word_itself_may_be_written():
    found = processor("words", ["a <unk> b"])
    assert found.encode_prompt("a <unk>")[1] == 1


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_bytes_know_everything(kind):
    found = processor(kind, ["abc"])
    assert found.decode(found.encode_prompt("Zoë 🦉")) == "Zoë 🦉"
