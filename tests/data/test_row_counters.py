"""Columns that only count rows are never inputs, whatever they are called and wherever the rows come from."""

from __future__ import annotations

import json
import random

import datasets
import pytest

from rnnzoo.cli.main import main
from rnnzoo.data import FrameData, VectorData

ROWS = 12
KINDS = {VectorData: "label", FrameData: "labels"}
FORMATS = ("csv", "tsv", "jsonl", "parquet", "hub")
NAMES = ("", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "id", "index", "row", "anything")


def table(name, answer, numbers, seed=0):
    """Return rows with a column of row numbers, one of noise, one that is an integer feature, and an answer."""
    draw = random.Random(seed)
    return [
        {name: number, "x": round(draw.random(), 3), "age": draw.randrange(5), answer: "ab"[draw.randrange(2)]}
        for number in numbers
    ]


def write(folder, format, split, rows):
    """Write rows in a format; of the Hub, as Parquet in a folder that stands for a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    if format in ("parquet", "hub"):
        datasets.Dataset.from_list(rows).to_parquet(str(folder / f"{split}.parquet"))
    elif format == "jsonl":
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        comma = "," if format == "csv" else "\t"
        lines = [rows[0].keys(), *(row.values() for row in rows)]
        (folder / f"{split}.{format}").write_text("".join(comma.join(map(str, line)) + "\n" for line in lines))


def read(kind, format, folder, **options):
    return kind(**{"hub" if format == "hub" else "path": str(folder)}, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_row_numbers_are_no_inputs(tmp_path, kind, format, name):
    for split, start in (("train", 0), ("validation", 100), ("test", 7)):
        numbers = list(range(start, start + ROWS))
        random.Random(1).shuffle(numbers)
        write(tmp_path, format, split, table(name, KINDS[kind], numbers, start))
    data = read(kind, format, tmp_path)
    description = data.describe()
    assert data.processor.features == description.inputs == ["x", "age"]
    assert list(description.left_out) == [name]
    (note,) = description.notes
    assert note.startswith(f"left out, since it only counts the rows: {name!r}")
    kept = read(kind, format, tmp_path, features=["x", "age", name])
    assert (kept.describe().inputs, kept.describe().notes) == (["x", "age", name], [])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_row_numbers_that_became_floats(tmp_path, kind, format):
    numbers = [float(number) for number in random.Random(2).sample(range(ROWS), ROWS)]
    for split in ("train", "validation", "test"):
        write(tmp_path, format, split, table("anything", KINDS[kind], numbers))
    assert read(kind, format, tmp_path).describe().inputs == ["x", "age"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_was_numbered_before_it_was_split(tmp_path, kind):
    numbers = random.Random(3).sample(range(1000, 1000 + 3 * ROWS), 3 * ROWS)
    for index, split in enumerate(("train", "validation", "test")):
        write(tmp_path, "csv", split, table("case", KINDS[kind], numbers[index * ROWS : (index + 1) * ROWS]))
    assert kind(path=str(tmp_path)).describe().inputs == ["x", "age"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, []) for name in ("ID", "row_id", "Index", "PassengerId", "sampleID", "patient_id", "Trial ID")),
        *((name, [name]) for name in ("dose", "acid", "GRID", "idle")),
    ],
)
def test_identifiers_with_gaps_are_known_by_their_names(tmp_path, name, expected):
    write(tmp_path, "csv", "train", table(name, "label", [3 * number for number in range(40)]))
    assert VectorData(path=str(tmp_path)).describe().inputs == [*expected, "x", "age"]


@pytest.mark.parametrize("numbers", [range(10), [*range(5), *range(5)], [*range(1, 6), *range(100, 105)]])
def test_frames_are_counted_over_the_file_or_in_each_sequence(folder, numbers):
    rows = "".join(f"{'AB'[row // 5]},{number},{row % 3},a\n" for row, number in enumerate(numbers))
    names = ("train.csv", "dev.csv", "test.csv")
    path = folder(dict.fromkeys(names, "video,frame,x,labels\n" + rows))
    description = FrameData(path=path, sequence="video").describe()
    assert (description.inputs, list(description.left_out)) == (["x"], ["frame"])


def test_numbers_that_are_no_counters_stay(folder):
    """Fractions, repeated integers, gaps, and a sequence that counts in one file only."""
    first = "".join(f"{n}.5,{n // 2},{2 * n},{n},a\n" for n in range(9))
    second = "".join(f"{n}.5,{n // 2},{2 * n},5,b\n" for n in range(9))
    header = "real,half,even,partly,labels\n"
    path = folder({"one.csv": header + first, "two.csv": header + second, "three.csv": header + second})
    data = FrameData(path=path)
    assert data.describe().inputs == ["real", "half", "even", "partly"]
    assert data.describe().left_out == {}


def test_a_column_that_repeats_late_is_an_input(folder):
    rows = [*range(3000), 0]
    path = folder({"train.csv": "n,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in rows)})
    assert VectorData(path=path).describe().inputs == ["n"]
    path = folder({"train.csv": "id,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in rows)}, "named")
    assert VectorData(path=path).describe().inputs == ["id"]


def test_the_only_input_is_kept_with_a_note_unless_its_name_says_that_it_counts(folder):
    rows = "".join(f"{n},{'ab'[n % 2]}\n" for n in range(30))
    data = VectorData(path=folder({"train.csv": "n,label\n" + rows}))
    assert data.describe().inputs == ["n"]
    assert any("'n', the only input, counts the rows" in note for note in data.describe().notes)
    with pytest.raises(ValueError, match=r"expected columns of numbers, got none .* but row numbers"):
        VectorData(path=folder({"train.csv": ",label\n" + rows}, "unnamed")).describe()


@pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
def test_training_prints_the_inputs_and_prediction_ignores_row_numbers(folder, tmp_path, capsys):
    """As pandas writes it: what is printed, what the report says, and the answers to the same file."""
    draw = random.Random(0)
    lines = [f"{n},2020-01-01,{draw.random():.3f},{'ab'[n % 2]}" for n in range(40)]
    path = folder({f"{split}.csv": ",day,x,label\n" + "\n".join(lines) for split in ("train", "validation", "test")})
    run = tmp_path / "run"
    options = ["--data.path", path, "--data.columns", '{"label": "label"}', "--trainer.max_epochs", "1"]
    assert main(["fit", "one_to_one/gaussians", *options, "--run_dir", str(run), "--trainer.accelerator=cpu"]) == 0
    assert "inputs: x (left out: '', day)\n" in capsys.readouterr().out
    report = json.loads((run / "report.json").read_text())
    assert report["data"]["inputs"] == ["x"]
    assert report["data"]["left_out"] == {"": "row numbers", "day": "no number"}
    assert any(note.startswith("left out, since it only counts") for note in report["data"]["notes"])
    for name, text in (("with", ",day,x\n7,2020-01-01,0.5\n8,2020-01-01,0.25\n"), ("without", "x\n0.5\n0.25\n")):
        (tmp_path / f"{name}.csv").write_text(text)
        out = str(tmp_path / f"{name}.jsonl")
        assert main(["predict", str(run), "--input", str(tmp_path / f"{name}.csv"), "--output", out]) == 0
    assert (tmp_path / "with.jsonl").read_text() == (tmp_path / "without.jsonl").read_text()


def test_a_trained_model_keeps_the_inputs_that_it_learnt(folder):
    rows = "".join(f"{n},{n % 4},{'ab'[n % 2]}\n" for n in range(20))
    path = folder({"train.csv": "id,x,label\n" + rows})
    data = VectorData(path=path)
    data.processor = VectorData(path=path, features=["id", "x"]).processor
    assert data.describe().inputs == ["id", "x"]
