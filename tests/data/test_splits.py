"""Splits of data: recognised, named, or made by the seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_files import csv, sequence

from rnnzoo.data import FrameData, TextClassificationData
from rnnzoo.data.splits import set_aside
from rnnzoo.errors import InputError

SPLITS = ("train", "validation", "test")


def test_recognised_splits_are_left_as_they_are(folder):
    data = TextClassificationData(path=folder({"train.csv": csv(9), "valid.csv": csv(5), "test.csv": csv(3)}))
    assert data.describe().split_sizes == {"train": 9, "validation": 5, "test": 3}
    assert data.describe().notes == []
    assert list(data.raw("validation")["text"]) == [f"w{number} shared" for number in range(5)]


def test_a_missing_split_is_made_by_the_seed_and_said(folder):
    path = folder({"train.csv": csv(50), "test.csv": csv(4)})
    parts = {}
    for seed in (0, 0, 1):
        data = TextClassificationData(path=path, seed=seed, validation_fraction=0.2)
        assert data.describe().split_sizes == {"train": 40, "validation": 10, "test": 4}
        (note,) = data.describe().notes
        assert "no validation split" in note
        assert "10 of 50" in note
        assert f"seed {seed}" in note
        train, validation = (list(data.raw(split)["text"]) for split in ("train", "validation"))
        assert set(train) | set(validation) == {f"w{number} shared" for number in range(50)}
        assert not set(train) & set(validation)
        assert parts.setdefault(seed, validation) == validation
    assert parts[0] != parts[1]


def test_both_splits_are_made_where_both_are_missing(folder):
    data = TextClassificationData(path=folder({"all.csv": csv(100)}), test_fraction=0.25)
    assert data.describe().split_sizes == {"train": 65, "validation": 10, "test": 25}
    assert len(data.describe().notes) == 2
    rows = [row["text"] for split in SPLITS for row in data.raw(split)]
    assert len(set(rows)) == len(rows) == 100


def test_splits_named_one_by_one(folder):
    files = {name: sequence(4, start) for name, start in (("a.csv", 0), ("b.csv", 10), ("c.csv", 20), ("d.csv", 30))}
    data = FrameData(path=folder(files), test="c.csv", validation="a.csv")
    assert [list(data.raw(split)["name"]) for split in SPLITS] == [["b.csv", "d.csv"], ["a.csv"], ["c.csv"]]


def test_a_limit_that_limits_nothing_says_so(folder):
    data = TextClassificationData(path=folder({"train.csv": "text,label\n" + "a,x\nb,y\n" * 20}), limit=40)
    assert len(data.raw("train")) == 40 - len(data.raw("validation")) - len(data.raw("test"))
    assert any(note.startswith("limit 40 changes nothing: there are ") for note in data.describe().notes)


def test_limit_chooses_training_samples_by_the_seed_and_says_so(folder):
    files = {"train.csv": csv(90), "dev.csv": csv(9), "test.csv": csv(9, "v")}
    path = folder(files)
    data, again, other = (TextClassificationData(path=path, limit=40, seed=seed) for seed in (0, 0, 1))
    assert data.describe().split_sizes == {"train": 40, "validation": 9, "test": 9}
    assert "only 40 of 90" in data.describe().notes[0]
    texts = [each.raw("train")["text"][:] for each in (data, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len(set(texts[0])) == 40
    everything = TextClassificationData(path=path).raw("train")["text"][:]
    assert set(texts[0]) < set(everything)
    assert texts[0] != everything[:40], "a file that is sorted by class must not give one class"


def test_the_description_tells_source_and_checksums(folder):
    path = folder({"train.csv": csv(9), "README.md": "x"})
    found = TextClassificationData(path=path).describe()
    assert found.source == path
    assert list(found.revision) == ["train.csv"]
    assert len(found.revision["train.csv"]) == 64


@pytest.mark.parametrize("name", ["{0}/held.csv", "held.csv", "{1}/../{2}/held.csv"])
def test_a_file_named_in_another_way_is_in_one_split_alone(folder, tmp_path, monkeypatch, name):
    path = folder({"more.csv": csv(12), "held.csv": csv(5, "held")}, "corpus")
    monkeypatch.chdir(tmp_path)
    place = Path(path)
    for data_path in (path, "corpus"):
        named = name.format(place, place, place.name)
        data = TextClassificationData(path=data_path, test=named, validation_fraction=0.2)
        assert data.describe().split_sizes == {"train": 10, "validation": 2, "test": 5}


def test_a_file_that_is_there_plain_and_compressed_is_refused(folder):
    path = folder({"train.csv": csv(12), "train.csv.gz": csv(12)})
    with pytest.raises(InputError, match=r"expected each file once, got train.csv and train.csv.gz; remove one"):
        TextClassificationData(path=path).describe()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [list(range(20)), [n // 3 for n in range(20)], [n % 4 for n in range(20)]], ids=str)
def test_what_is_set_aside_is_whole_groups_and_each_sample_once(groups, seed):
    found = set_aside(groups, {"test": 0.2, "validation": 0.1}, seed)
    assert list(found) == ["test", "validation", "train"]
    assert sorted(place for places in found.values() for place in places) == list(range(20))
    inside = [{groups[place] for place in places} for places in found.values()]
    assert sum(map(len, inside)) == len(set(groups))
    assert len(found["test"]) >= 4
    assert len(found["validation"]) >= 2
    assert all(places == sorted(places) for places in found.values())


@pytest.mark.parametrize(
    ("groups", "fractions"),
    [
        ([], {"validation": 0.1}),
        ([0], {"validation": 0.1}),
        ([0] * 30, {"validation": 0.1}),
        ([0, 1], {"test": 0.1, "validation": 0.1}),
        ([0, 1, 1], {"test": 0.1, "validation": 0.4}),
    ],
    ids=str,
)
def test_something_is_left_to_train_on(groups, fractions):
    with pytest.raises(InputError, match=f"enough training samples to make a validation split, got {len(groups)}"):
        set_aside(groups, fractions, 0)
