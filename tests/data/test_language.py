"""Running text from files, tables and synthetic tasks; splits cut by position; batches of lanes."""

from __future__ import annotations

import json

import pytest
import torch

from rnnzoo.data import LanguageData
from rnnzoo.data.language import cut_texts, paragraphs
from rnnzoo.errors import InputError
from rnnzoo.text.tokenizer import TokenizerOptions

CHARACTERS = TokenizerOptions(kind="characters", unicode=None)
WORDS = TokenizerOptions(kind="words")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def three(text):
    return {f"{split}.txt": text for split in ("train", "valid", "test")}


def texts(data, split="train"):
    return list(data.raw(split)["text"])


def decoded(data, split="train"):
    return data.processor.decode(data.encoded(split).tokens.tolist())


# Reading


def test_a_file_is_one_document_read_as_it_is(folder):
    text = " a b\n\n\tc  \nd"
    data = LanguageData(path=folder(three(text)), tokenizer=CHARACTERS)
    assert texts(data) == [text]
    stream = data.encoded("train")
    assert decoded(data) == text
    assert not data.processor.document_end
    assert stream.resets.sum() == 1
    assert stream.inputs[0] == data.processor.end_id


@pytest.mark.parametrize("raw", [b"\xef\xbb\xbfa\r\nb\r\n", b"a\nb\n"])
def test_byte_order_marks_and_windows_line_ends_are_not_text(folder, raw):
    data = LanguageData(path=folder(dict.fromkeys(three(""), raw)), tokenizer=CHARACTERS)
    assert texts(data) == ["a\nb\n"]


def test_compressed_text_and_several_files(folder):
    files = {"a.train.txt.xz": "ab", "b.train.txt": "ba", "valid.txt": "a", "test.txt": "b"}
    data = LanguageData(path=folder(files), tokenizer=CHARACTERS)
    assert texts(data) == ["ab", "ba"]
    stream = data.encoded("train")
    assert stream.resets.tolist() == [True, False, True, False], "each file begins anew"


def test_lines_and_paragraphs_as_documents(folder):
    text = "a b\nc\n\n \nd\n"
    lines = LanguageData(path=folder(three(text)), documents="line", tokenizer=CHARACTERS)
    assert texts(lines) == ["a b", "c", "d"]
    assert lines.processor.document_end
    end = lines.processor.end_id
    assert (lines.encoded("train").tokens == end).sum() == 3
    blocks = LanguageData(path=folder(three(text)), documents="paragraph", tokenizer=CHARACTERS)
    assert texts(blocks) == ["a b\nc", "d"]
    assert decoded(blocks) == "a b\nc\nd\n"
    assert blocks.encoded("train").resets.nonzero()[0].tolist() == [0, 6]
    assert paragraphs("\n\n a\n") == [" a"]


def test_line_ends_as_tokens_count_like_those_of_the_penn_treebank(folder):
    data = LanguageData(path=folder(three(" a b \n c <unk> \n")), tokenizer=WORDS, line_end=True)
    stream = data.encoded("test")
    a, b, c, end = *data.processor.tokenizer.encode("a b c"), data.processor.end_id
    assert stream.tokens.tolist() == [a, b, end, c, 1, end]
    assert stream.inputs.tolist() == [end, a, b, end, c, 1]
    assert stream.words.sum() == 6
    assert stream.characters.sum() == 16
    assert stream.resets.sum() == 1, "the state is carried from line to line"


def table(rows):
    return "".join(json.dumps({"text": row}) + "\n" for row in rows)


def test_rows_of_a_table_are_documents_or_one(folder):
    files = {f"{split}.jsonl": table(["ab\n", "", "c"]) for split in ("train", "valid", "test")}
    data = LanguageData(path=folder(files), tokenizer=CHARACTERS)
    assert texts(data) == ["ab\n", "c"]
    assert data.processor.document_end
    assert decoded(data) == "ab\nc\n"
    assert data.encoded("train").resets.nonzero()[0].tolist() == [0, 3]
    joined = LanguageData(path=folder(files), tokenizer=CHARACTERS, documents="file", line_end=True)
    assert texts(joined) == ["ab\n\nc\n"]
    assert not joined.processor.document_end
    assert joined.encoded("train").resets.sum() == 1


def test_a_synthetic_text_is_documents_or_one():
    rows = LanguageData(synthetic="markov_text", limit=10)
    assert rows.encoded("train").resets.sum() == 10
    one = LanguageData(synthetic="markov_text", limit=10, documents="file", line_end=True)
    assert one.encoded("train").resets.sum() == 1
    assert one.encoded("train").tokens.tolist() == rows.encoded("train").tokens.tolist()
    assert one.best_scores == rows.best_scores


def test_the_description_counts_tokens_and_characters(folder):
    files = {**three("a b\n"), "valid.txt": "b b\n", "test.txt": "b a\n"}
    data = LanguageData(path=folder(files), tokenizer=WORDS, line_end=True)
    assert data.describe().notes == []
    assert data.processor is not None
    assert data.describe().notes[-1].startswith("3 tokens of 4 characters in train, 3 tokens")


# Splits by position


def test_tiny_shakespeare_is_cut_as_is_the_custom(folder):
    text = "".join(chr(97 + place % 26) for place in range(1115394 // 100))  # the real one has 1,115,394 characters
    data = LanguageData(path=folder({"input.txt": text}), tokenizer=CHARACTERS, test_fraction=0.0)
    cut = int(len(text) * 0.9)
    assert texts(data, "train") == [text[:cut]]
    assert texts(data, "validation") == [text[cut:]]
    assert data.describe().split_sizes == {"train": 1, "validation": 1}
    assert "by position" in data.describe().notes[0]
    assert int(1115394 * (1.0 - 0.1)) == 1003854


def test_both_splits_are_cut_from_the_end_in_the_order_of_the_text(folder):
    text = "".join(map(str, range(10))) * 10
    data = LanguageData(path=folder({"input.txt": text}), tokenizer=CHARACTERS, validation_fraction=0.2)
    assert texts(data, "train") + texts(data, "validation") + texts(data, "test") == [text[:70], text[70:90], text[90:]]


def test_documents_are_kept_whole(folder):
    text = "".join(f"line {place}\n" for place in range(20))
    data = LanguageData(path=folder({"input.txt": text}), tokenizer=CHARACTERS, documents="line")
    parts = [texts(data, split) for split in ("train", "validation", "test")]
    assert [line for part in parts for line in part] == text.splitlines()
    assert [len(part) for part in parts] == [17, 2, 1]


@pytest.mark.parametrize("place", range(7))
@pytest.mark.parametrize("exact", [True, False])
def test_cutting_loses_nothing(place, exact):
    before, after = cut_texts(["abc", "de", "f"], place, exact=exact)
    assert "".join(before + after) == "abcdef"
    assert "" not in before + after
    if exact:
        assert len("".join(before)) == place


# Batches


def loader(split, folder, text="abcdefghij" * 12, **options):
    data = LanguageData(path=folder(three(text)), tokenizer=CHARACTERS, **options)
    return data, list(getattr(data, f"{split}_dataloader")())


def test_training_batches_are_lanes_side_by_side(folder):
    data, batches = loader("train", folder, batch_size=3, chunk_length=16)
    assert len(batches) == 3
    assert [batch.ids.tolist() for batch in batches] == [[0, 40, 80], [16, 56, 96], [32, 72, 112]]
    assert [batch.lengths.tolist() for batch in batches] == [[16] * 3, [16] * 3, [8] * 3]
    lanes = torch.cat([batch.targets for batch in batches], dim=1)
    assert lanes.flatten().tolist() == data.encoded("train").tokens.tolist()
    assert batches[0].tokens[1, 0] == batches[0].targets[0, 0] + 9, "a lane in the middle goes on from the token before"
    assert batches[0].resets.nonzero().tolist() == [[0, 0]]
    assert [batch.begins.tolist() for batch in batches] == [[True] * 3, [False] * 3, [False] * 3]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_evaluation_reads_one_lane_unless_told_otherwise(folder, size):
    data, batches = loader("test", folder, batch_size=3, eval_chunk_length=size)
    assert all(batch.tokens.shape[0] == 1 for batch in batches)
    assert torch.cat([batch.targets for batch in batches], dim=1)[0].tolist() == data.encoded("test").tokens.tolist()
    _, batches = loader("val", folder, eval_lanes=4, eval_chunk_length=size)
    assert batches[0].tokens.shape[0] == 4


# Complaints


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"documents": "lines"}, "data.documents: expected one of .* did you mean 'line'"),
        ({"test_fraction": 0.5}, "data.test_fraction"),
        ({"validation_fraction": 0.0}, "data.validation_fraction"),
        ({"chunk_length": 0}, "data.chunk_length: expected at least 1, got 0"),
        ({"eval_lanes": 0}, "data.eval_lanes: expected at least 1, got 0"),
        ({"max_tokens": 100}, "data.max_tokens: expected none .* data.batch_size lanes"),
    ],
)
def test_options_out_of_range(options, complaint):
    with pytest.raises(InputError, match=complaint):
        LanguageData(path=".", **options)


def test_what_a_document_is_must_fit_the_files(folder):
    with pytest.raises(InputError, match="'file', 'line' or 'paragraph' for text"):
        texts(LanguageData(path=folder(three("a")), documents="row"))
    files = {f"{split}.jsonl": table(["a"]) for split in ("train", "valid", "test")}
    with pytest.raises(InputError, match="'row' or 'file' for a table"):
        texts(LanguageData(path=folder(files, "tables"), documents="line"))


def test_text_that_is_none(folder):
    with pytest.raises(InputError, match=r"train\.txt: expected text, got white space alone"):
        texts(LanguageData(path=folder(three(" \n\n"))))
    with pytest.raises(InputError, match=r"valid\.txt, line 2: expected utf-8 text, got byte 0xff"):
        texts(LanguageData(path=folder({**three("a\n"), "valid.txt": b"a\n\xff\n"}, "broken")))
    rows = {f"{split}.jsonl": '{"text": 3}\n' for split in ("train", "valid", "test")}
    with pytest.raises(InputError, match="expected a text, got 3"):
        texts(LanguageData(path=folder(rows, "numbers")))


def test_too_little_text(folder):
    with pytest.raises(InputError, match="enough training text to make a test split, got 1 documents, 3 characters"):
        texts(LanguageData(path=folder({"input.txt": "one"}), documents="line"))
    with pytest.raises(InputError, match="as many lanes as there are training tokens, 3, got 32"):
        LanguageData(path=folder(three("abc"), "short"), tokenizer=CHARACTERS).train_dataloader()
