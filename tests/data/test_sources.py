"""Sources: files sorted into splits by their names or one by one, and data sets loaded by a Hub id."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import datasets
import pytest

from rnnzoo.data.sources import (
    checksums,
    class_namer,
    dataset_rows,
    file_rows,
    find_files,
    fingerprint,
    format_of,
    load_hub,
    split_of,
)
from rnnzoo.errors import InputError

NONE_NAMED = {"train": None, "validation": None, "test": None}
TABLES = ("csv", "tsv", "jsonl", "parquet")


def found(path, *, format=None, allowed=TABLES, **named):
    files = find_files(path, format=format, allowed=allowed, named={**NONE_NAMED, **named})
    return {split: [each.name for each in paths] for split, paths in files.splits.items()}


def complaint(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_cache_of_the_tests_is_their_own():
    assert str(datasets.config.HF_CACHE_HOME) == os.environ["HF_HOME"]
    assert str(datasets.config.HF_DATASETS_CACHE).startswith(os.environ["HF_HOME"])


# Names


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("eng.train", "train"),
        ("datatraining.txt", "train"),
        ("TRAIN-00000-of-00001.parquet", "train"),
        ("en_ewt-ud-train.conllu.xz", "train"),
        ("dev.tsv", "validation"),
        ("sst2.dev.tsv", "validation"),
        ("valid.txt", "validation"),
        ("Validation.jsonl", "validation"),
        ("val.jsonl.gz", "validation"),
        ("eng.testa", "validation"),
        ("test.csv", "test"),
        ("eng.testb", "test"),
        ("datatest2.txt", "test"),
        ("a1_raw.csv", None),
        ("latest.csv", None),
        ("Medieval.txt", None),
        ("README.md", None),
    ],
)
def test_splits_are_recognised_by_the_usual_words(name, split):
    assert split_of(name) == split


def test_formats_are_recognised_before_a_compression():
    names = ("a.csv", "a.tsv.gz", "a.JSONL", "a.ndjson.xz", "a.parquet", "a.txt", "a.conll", "a.iob", "a.conllu.xz")
    kinds = ("csv", "tsv", "jsonl", "jsonl", "parquet", "text", "conll", "conll", "conllu")
    assert tuple(format_of(Path(name)) for name in names) == kinds
    assert format_of(Path("eng.testa")) is None


# Files


def test_split_files_are_recognised_and_other_files_left_out(folder):
    names = ["train.csv", "dev.csv", "test.csv", "notes.csv", "README.md", ".train.csv", "LICENSE.txt"]
    path = folder(dict.fromkeys(names, "a,b\n1,2\n"))
    assert found(path) == {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["test.csv"]}


def test_several_files_of_a_split_are_taken_in_the_order_of_their_names(folder):
    path = folder({f"train-{part}.jsonl": "{}\n" for part in "cab"})
    assert found(path) == {"train": ["train-a.jsonl", "train-b.jsonl", "train-c.jsonl"]}


def test_without_any_usual_word_all_files_are_training_data(folder):
    path = folder({"a.csv": "x", "b.csv": "x", "notes.md": "x"})
    assert found(path) == {"train": ["a.csv", "b.csv"]}


def test_naming_a_test_file_leaves_the_others_for_training(folder):
    path = folder({f"{video}.csv": "x" for video in "abcd"})
    assert found(path, test="c.csv", validation="a.csv") == {
        "train": ["b.csv", "d.csv"],
        "validation": ["a.csv"],
        "test": ["c.csv"],
    }


def test_a_named_file_takes_the_place_of_the_recognised_one(folder):
    path = folder({"train.csv": "x", "test.csv": "x", "datatest2.csv": "x", "other.csv": "x"})
    assert found(path, test="datatest2.csv") == {"train": ["train.csv"], "test": ["datatest2.csv"]}
    assert found(path, train="other.csv")["train"] == ["other.csv"]


def test_several_named_files_are_separated_by_commas(folder):
    path = folder({f"{name}.csv": "x" for name in "abc"})
    assert found(path, train="c.csv, a.csv", test="b.csv") == {"train": ["c.csv", "a.csv"], "test": ["b.csv"]}


def test_a_named_file_may_lie_elsewhere(folder):
    path = folder({"train.csv": "x"}, "here")
    other = folder({"gold.csv": "x"}, "there")
    assert found(path, test=f"{other}/gold.csv") == {"train": ["train.csv"], "test": ["gold.csv"]}


def test_a_single_file_is_training_data_whatever_its_name(folder):
    path = folder({"test.csv": "x", "b.csv": "x"})
    assert found(f"{path}/test.csv") == {"train": ["test.csv"]}
    assert found(f"{path}/b.csv", test="test.csv") == {"train": ["b.csv"], "test": ["test.csv"]}


def test_a_format_that_is_given_holds_for_names_that_say_another(folder):
    path = folder({"datatraining.txt": "x", "datatest.txt": "x", "SOURCE.md": "x"})
    assert found(path, format="csv") == {"train": ["datatraining.txt"], "test": ["datatest.txt"]}
    files = find_files(path, format="csv", allowed=TABLES, named=NONE_NAMED)
    assert set(files.formats.values()) == {"csv"}


def test_names_without_an_ending_get_the_first_format(folder):
    path = folder({"eng.train": "x", "eng.testa": "x", "eng.testb": "x", "SOURCE.md": "x"})
    files = find_files(path, format=None, allowed=("conll", "conllu"), named=NONE_NAMED)
    assert list(files.splits) == ["train", "validation", "test"]
    assert set(files.formats.values()) == {"conll"}


def test_files_of_other_formats_do_not_disturb(folder):
    path = folder({"train.csv": "x", "trees.train.txt": "x", "test.csv": "x"})
    assert found(path) == {"train": ["train.csv"], "test": ["test.csv"]}


def test_checksums_are_those_of_the_files(folder):
    path = folder({"train.csv": "x", "test.csv": "y"})
    files = find_files(path, format=None, allowed=TABLES, named=NONE_NAMED)
    assert files.checksums == {
        "train.csv": hashlib.sha256(b"x").hexdigest(),
        "test.csv": hashlib.sha256(b"y").hexdigest(),
    }


def test_two_files_of_one_name_keep_their_own_checksums(folder):
    first, second = folder({"data.csv": "x"}, "a"), folder({"data.csv": "y"}, "b")
    kept = checksums({Path(first, "data.csv"): "csv", Path(second, "data.csv"): "csv"})
    assert set(kept.values()) == {hashlib.sha256(each).hexdigest() for each in (b"x", b"y")}


# Files that cannot be had


def test_a_folder_that_is_not_there(tmp_path):
    text = complaint(found, str(tmp_path / "nowhere"))
    assert "nowhere" in text
    assert "a folder that can be read" in text


def test_a_folder_that_cannot_be_read(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "a folder that can be read" in complaint(found, str(tmp_path / "loop"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert "Permission denied" in complaint(found, str(tmp_path / "closed"))


def test_an_empty_folder(tmp_path):
    assert "files none" in complaint(found, str(tmp_path))


def test_a_folder_without_training_data_lists_what_is_there(folder):
    text = complaint(found, folder({"test.csv": "x", "README.md": "x"}))
    assert "README.md, test.csv" in text
    assert "--data.train" in text


def test_an_empty_file(folder):
    assert "train.csv: expected a file with samples, got an empty file" in complaint(found, folder({"train.csv": ""}))


def test_a_named_file_that_is_not_there_gets_a_hint(folder):
    text = complaint(found, folder({"train.csv": "x", "gold.csv": "x"}), test="golf.csv")
    assert text.startswith("data.test: ")
    assert "did you mean 'gold.csv'?" in text


def test_mixed_formats(folder):
    text = complaint(found, folder({"train.csv": "x", "test.tsv": "x"}))
    assert "train.csv (csv)" in text
    assert "test.tsv (tsv)" in text
    assert "--data.format" in text


def test_an_unknown_format(folder):
    assert "did you mean 'csv'?" in complaint(found, folder({"train.csv": "x"}), format="cvs")


# Parquet and class numbers


def table_with_classes():
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
        }
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1], "tags": [[0, 1], [], [0]]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_class_numbers_become_names_and_no_class_becomes_none():
    rows = [row for _, row in dataset_rows(table_with_classes(), "here")]
    assert [row["label"] for row in rows] == ["pos", "neg", None]
    assert [row["tags"] for row in rows] == [["O", "B-PER"], [], ["O"]]
    assert class_namer(datasets.Value("int64"))(3) == 3


def test_parquet_files_keep_the_names_of_classes(tmp_path):
    path = tmp_path / "train.parquet"
    table_with_classes().to_parquet(str(path))
    found_rows = list(file_rows(path, "parquet", None))
    assert [place for place, _ in found_rows] == [f"{path}, row {number}" for number in range(3)]
    assert found_rows[0][1] == {"text": "a", "label": "pos", "tags": ["O", "B-PER"]}


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"text,label\n")
    assert str(path) in complaint(lambda: list(file_rows(path, "parquet", None)))


# Hub


def test_hub_splits_get_our_names(folder, tmp_path):
    for split in ("train", "validation", "test"):
        table_with_classes().to_parquet(str(tmp_path / f"{split}.parquet"))
    loaded = load_hub(str(tmp_path), None, None)
    assert {split: len(table) for split, table in loaded.items()} == {"train": 3, "validation": 3, "test": 3}


def test_a_hub_id_that_cannot_be_had_gets_one_line_and_a_way_out():
    text = complaint(load_hub, "rnnzoo/no-such-data-set", "some_config", None)
    assert text.startswith("data.hub rnnzoo/no-such-data-set")
    assert "some_config" in text
    assert "--data.path FOLDER" in text


def test_a_hub_data_set_without_training_split(tmp_path):
    table_with_classes().to_parquet(str(tmp_path / "test.parquet"))
    assert "expected a split train, got splits test" in complaint(load_hub, str(tmp_path), None, None)


# Fingerprints


def test_fingerprints_depend_on_every_part_and_fit_the_library():
    assert fingerprint("a", {"b": 1, "c": 2}) == fingerprint("a", {"c": 2, "b": 1})
    keys = {fingerprint(*parts) for parts in (["a"], ["b"], ["a", None], ["a", {}], [["a"]], [1], ["1"])}
    assert len(keys) == 7
    assert all(len(key) <= 64 for key in keys)
