"""Rows of one sequence belong together, wherever they stand in the files of a split."""

from __future__ import annotations

import json

import datasets
import pytest

from rnnzoo.bundle import save
from rnnzoo.cli.main import main
from rnnzoo.data import FrameData
from rnnzoo.errors import InputError
from rnnzoo.models import FrameLabeller

# A log sorted by time: device, measured value, label.
LOG = [("A", 0.5, "on"), ("B", 7.5, "off"), ("A", 1.5, "off"), ("C", 9.5, "on"), ("B", 8.5, "on"), ("A", 2.5, "on")]
GROUPED = [("A", [0.5, 1.5, 2.5], ["on", "off", "on"]), ("B", [7.5, 8.5], ["off", "on"]), ("C", [9.5], ["on"])]
SPLITS = ("train", "validation", "test")


def csv(rows):
    return "device,x,labels\n" + "".join(f"{device},{x},{label}\n" for device, x, label in rows)


def read(data, split="train"):
    table = data.raw(split)
    return [(row["name"], [x for (x,) in row["frames"]], row["labels"]) for row in table]


@pytest.mark.parametrize("format", ["csv", "tsv", "jsonl", "parquet", "hub"])
def test_interleaved_rows_are_grouped_in_their_order_with_a_note(tmp_path, format):
    rows = [dict(zip(("device", "x", "labels"), row, strict=True)) for row in LOG]
    for split in SPLITS:
        if format in ("parquet", "hub"):
            datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / f"{split}.parquet"))
        elif format == "jsonl":
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            (tmp_path / f"{split}.{format}").write_text(csv(LOG).replace(",", "," if format == "csv" else "\t"))
    data = FrameData(**{"hub" if format == "hub" else "path": str(tmp_path)}, sequence="device")
    assert [(name.split()[-1], *rest) for name, *rest in read(data)] == GROUPED
    assert data.raw("train").column_names == ["name", "frames", "labels"]
    notes = data.describe().notes
    (note,) = [note for note in notes if note.startswith("train: ")]
    assert "rows of 2 sequences of column 'device' were interleaved in " in note
    assert note.endswith(" and were grouped: A, B")
    again = FrameData(**{"hub" if format == "hub" else "path": str(tmp_path)}, sequence="device")
    assert again.describe().notes == notes  # also where the rows are read from the cache


def test_rows_that_stand_together_need_no_note(folder):
    parts = {split: csv([(f"{device}-{split}", *rest) for device, *rest in sorted(LOG)]) for split in SPLITS}
    data = FrameData(path=folder({f"{split}.csv": text for split, text in parts.items()}), sequence="device")
    assert [(name, *rest) for name, *rest in read(data)] == [
        (f"train.csv {device}-train", *rest) for device, *rest in GROUPED
    ]
    assert data.describe().notes == []


def test_a_sequence_goes_on_in_a_further_file_of_its_split(folder):
    files = {"train-1.csv": csv(LOG[:3]), "train-2.csv": csv(LOG[3:]), "dev.csv": csv([("D", 0.5, "on")] * 2)}
    data = FrameData(path=folder({**files, "test.csv": csv([("A", 1.5, "on")] * 2)}), sequence="device")
    assert read(data) == [
        ("train-1.csv A", *GROUPED[0][1:]),
        ("train-1.csv B", *GROUPED[1][1:]),
        ("train-2.csv C", *GROUPED[2][1:]),
    ]
    joined, interleaved, shared = sorted(data.describe().notes, key=len, reverse=True)
    assert joined.startswith("train: 2 ids of column 'device' come back in further files and were joined")
    assert interleaved.startswith("train: rows of 1 sequences of column 'device' were interleaved in train-1.csv")
    assert shared == "1 ids of column 'device' are in both train and test: A"


@pytest.mark.parametrize("gap", ["", " "])
def test_a_row_without_an_id_is_refused(folder, gap):
    path = folder({"train.csv": csv([*LOG[:2], (gap, 1.5, "on")])})
    with pytest.raises(InputError, match=r"train\.csv, line 4, column 'device': expected the id of a sequence"):
        FrameData(path=path, sequence="device").raw("train")


def test_prediction_groups_rows_as_training_does(folder, tmp_path, capsys):
    path = folder({f"{split}.csv": csv(LOG) for split in SPLITS})
    save(FrameLabeller(processor=FrameData(path=path, sequence="device").processor, hidden_size=4), tmp_path / "model")
    answers = {}
    for name, rows in (("interleaved", LOG), ("sorted", sorted(LOG))):
        file = tmp_path / f"{name}.csv"
        file.write_text(csv(rows))
        assert main(["predict", str(tmp_path / "model"), "--input", str(file), "--column", "device"]) == 0
        answers[name] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers["interleaved"] == answers["sorted"]
    assert [answer["sequence"] for answer in answers["sorted"]] == ["A", "B", "C"]
    assert [len(answer["frames"]) for answer in answers["sorted"]] == [3, 2, 1]
