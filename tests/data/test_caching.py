"""What is read and encoded once and found again, and what must be read anew."""

from __future__ import annotations

import numpy as np
import pytest
from small_files import csv

from rnnzoo.data import FrameData, TextClassificationData
from rnnzoo.data.base import ZooData
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.tokenizer import TokenizerOptions

SPLITS = ("train", "validation", "test")


def test_a_second_build_reads_and_encodes_nothing(folder, monkeypatch):
    files = {"train.csv": csv(30, "cached"), "dev.csv": csv(7, "cached"), "test.csv": csv(5, "cached")}
    path = folder(files)
    first = TextClassificationData(path=path)
    encoded = {split: list(first.encoded(split).table) for split in SPLITS}

    def refuse(*_, **__):
        raise AssertionError("what is cached was made again")

    monkeypatch.setattr(ZooData, "_generate", refuse)
    monkeypatch.setattr(TextClassificationProcessor, "encode", refuse)
    second = TextClassificationData(path=path)
    for split in SPLITS:
        assert second.raw(split)._fingerprint == first.raw(split)._fingerprint
        assert second.encoded(split).table._fingerprint == first.encoded(split).table._fingerprint
        assert list(second.encoded(split).table) == encoded[split]


def test_a_copy_of_the_files_elsewhere_uses_the_same_cache(folder):
    one, other = (
        TextClassificationData(path=folder({"train.csv": csv(30), "test.csv": csv(3)}, place))
        for place in ("one", "other")
    )
    assert one.raw("test")._fingerprint == other.raw("test")._fingerprint


def test_changed_files_are_read_again(folder):
    before = TextClassificationData(path=folder({"train.csv": csv(9, "old"), "test.csv": csv(3, "old")}))
    assert "old1" in before.processor.tokenizer.vocabulary
    after = TextClassificationData(path=folder({"train.csv": csv(9, "new"), "test.csv": csv(3, "new")}))
    assert "old1" not in after.processor.tokenizer.vocabulary
    assert after.raw("test")[0]["text"] == "new0 shared"


@pytest.mark.parametrize(
    "other",
    [
        {"tokenizer": TokenizerOptions(lowercase=True)},
        {"tokenizer": TokenizerOptions(kind="characters")},
        {"tokenizer": TokenizerOptions(kind="bytes")},
        {"tokenizer": TokenizerOptions(min_count=2)},
        {"max_length": 1},
    ],
    ids=str,
)
def test_another_option_gives_other_encoded_data_never_the_cached(folder, other):
    content = "text,label\nThe The the,x\nthe cat,y\n"
    path = folder({"train.csv": content, "dev.csv": content, "test.csv": content})
    plain, changed = TextClassificationData(path=path), TextClassificationData(path=path, **other)
    assert plain.raw("test")._fingerprint == changed.raw("test")._fingerprint
    for split in SPLITS:
        one, another = ([row["tokens"] for row in data.encoded(split).table] for data in (plain, changed))
        assert one != another
        assert plain.encoded(split).table._fingerprint != changed.encoded(split).table._fingerprint


def test_another_column_is_read_again(folder):
    content = "text,title,label\nlong text,short,x\n"
    path = folder({"train.csv": content, "dev.csv": content, "test.csv": content})
    assert TextClassificationData(path=path).raw("train")[0]["text"] == "long text"
    assert TextClassificationData(path=path, columns={"text": "title"}).raw("train")[0]["text"] == "short"


def test_another_format_is_read_again(folder):
    content = "a,b\tc\n"
    path = folder({"train.txt": content, "dev.txt": content, "test.txt": content})
    rows = [
        TextClassificationData(path=path, format=format, file_columns=["text", "label"]).raw("test")[0]
        for format in ("csv", "tsv")
    ]
    assert rows == [{"text": "a", "label": "b\tc"}, {"text": "a,b", "label": "c"}]


def test_splits_from_files_of_one_name_are_not_mixed_up(folder):
    train, test = folder({"data.csv": csv(20, "first")}, "a"), folder({"data.csv": csv(6, "second")}, "b")
    data = TextClassificationData(path=train, train="data.csv", test=f"{test}/data.csv")
    assert data.raw("train")[0]["text"].startswith("first")
    assert data.raw("test")[0]["text"] == "second0 shared"
    assert data.describe().split_sizes["test"] == 6


def test_label_options_are_part_of_what_is_cached(folder):
    content = "text,label\na,x;y\nb,x\n"
    path = folder({"train.csv": content, "dev.csv": content, "test.csv": content})
    one = TextClassificationData(path=path, multi_label=True)
    other = TextClassificationData(path=path, multi_label=True, label_separator=";")
    single = TextClassificationData(path=path)
    assert one.raw("test")[0]["label"] == ["x;y"]
    assert other.raw("test")[0]["label"] == ["x", "y"]
    assert single.raw("test")[0]["label"] == "x;y"


def test_frame_options_are_part_of_what_is_cached(folder):
    content = "x,y,who,labels\n1,2,A,a\n3,4,A,b\n5,6,B,a\n"
    path = folder({"train.csv": content, "dev.csv": content, "test.csv": content})
    shapes = [
        [np.asarray(frames).shape for frames in FrameData(path=path, **options).raw("test")["frames"]]
        for options in ({}, {"features": ["x"]}, {"sequence": "who"}, {"features": ["y"], "sequence": "who"})
    ]
    assert shapes == [[(3, 2)], [(3, 1)], [(2, 2), (1, 2)], [(2, 1), (1, 1)]]
    renamed = FrameData(path=path, rename_labels={"a": "c"})
    assert renamed.raw("test")[0]["labels"] == ["c", "b", "c"]
    windows = [FrameData(path=path, window_size=size).encoded("train").lengths.tolist() for size in (None, 1, 2, 3, 9)]
    assert windows == [[3], [1, 1, 1], [2, 2], [3], [3]]
