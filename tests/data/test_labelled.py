"""Splits, samples, words and frames without a label: never a class, never in a loss or a metric, never in the way."""

from __future__ import annotations

import json
import math

import datasets
import pytest
import torch

from rnnzoo.batches import IGNORED
from rnnzoo.data import FrameData, TaggingData, TextClassificationData, TranslationData, VectorData
from rnnzoo.errors import InputError
from rnnzoo.models import MODELS

NONE = object()  # the column is not there
DROPPED = object()  # the row is not there
SHAPES = {  # data module → its input and the name of its label
    TextClassificationData: lambda number: {"text": f"w{number} x"},
    VectorData: lambda number: {"x": math.sin(number), "y": number % 3},
    FrameData: lambda number: {"x": math.sin(number), "y": number % 3},
    TaggingData: lambda number: {"tokens": [f"w{number}", "x"]},
}
MODEL = {
    TextClassificationData: "SequenceClassifier",
    VectorData: "VectorClassifier",
    FrameData: "FrameLabeller",
    TaggingData: "SequenceTagger",
}
kinds = pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.__name__)


def jsonl(kind, labels):
    """Return rows with these labels as JSON lines; the tags of a sentence are twice the label."""
    rows = []
    for number, label in enumerate(labels):
        if label is DROPPED:
            continue
        row = SHAPES[kind](number)
        if label is not NONE:
            row[kind.canonical[1]] = [label, label] if kind is TaggingData else label
        rows.append(json.dumps(row) + "\n")
    return "".join(rows)


def build(folder, kind, train, validation, test, inside=".", **options):
    parts = {"train": train, "validation": validation, "test": test}
    path = folder({f"{split}.jsonl": jsonl(kind, labels) for split, labels in parts.items()}, inside)
    if kind is TaggingData:
        options.setdefault("characters", None)
    return kind(path=path, **options)


def classes(data):
    processor = data.processor
    return list(processor.tags if isinstance(data, TaggingData) else processor.labels)


GAPS = [None, "", " ", "NaN", "nan", "null", "None", float("nan"), -1, "-1", -100, "-100", "-1.0", NONE]


# Splits


@kinds
@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: "no column" if gap is NONE else repr(gap))
def test_a_split_without_labels_is_left_out_and_the_others_are_used(folder, kind, gap):
    if kind is TaggingData and gap in WORDS:
        pytest.skip("a word is a tag")
    data = build(folder, kind, ["a", "b"] * 6, ["a", "b"], [gap] * 3)
    assert set(data.describe().split_sizes) == {"train", "validation"}
    assert any(note.startswith("test: none of") and "rnnzoo predict" in note for note in data.describe().notes)
    assert classes(data) == ["a", "b"]
    assert data.unlabelled == {"test"}
    with pytest.raises(InputError, match="split test: expected samples with a label, got none"):
        data.test_dataloader()


WORDS = ("NaN", "nan", "null", "None")


@pytest.mark.parametrize("kind", [TextClassificationData, VectorData], ids=lambda kind: kind.__name__)
def test_a_validation_split_without_labels_is_cut_from_the_training_data(folder, kind):
    data = build(folder, kind, ["a", "b"] * 10, [None] * 3, ["a"])
    assert data.describe().split_sizes == {"train": 18, "validation": 2, "test": 1}
    notes = data.describe().notes
    assert notes[0].startswith("validation: none of 3 samples has a label")
    assert "the data have no labelled validation split: 2 of 20 training samples" in notes[1]


@kinds
@pytest.mark.parametrize("gap", [None, -100, NONE], ids=["null", "-100", "no column"])
def test_training_data_without_labels_are_refused_in_one_line(folder, kind, gap):
    with pytest.raises(InputError) as caught:
        build(folder, kind, [gap] * 4, ["a"], ["b"]).raw("train")
    text = str(caught.value)
    assert "\n" not in text
    assert f"data.columns.{kind.canonical[1]}: expected " in text


@kinds
def test_a_column_in_other_letters_is_no_missing_column(folder, kind):
    files = {f"{split}.jsonl": jsonl(kind, ["a", "b"] * 4) for split in ("train", "dev", "test")}
    name = kind.canonical[1]
    files["test.jsonl"] = files["test.jsonl"].replace(f'"{name}"', f'"{name.title()}"')
    with pytest.raises(InputError, match=rf"test\.jsonl, line 1: data\.columns\.{name}: .*did you mean"):
        kind(path=folder(files)).raw("test")


def test_a_trained_model_says_that_data_have_no_labels(folder):
    data = build(folder, TextClassificationData, ["a", "b"] * 6, ["a"], ["b"])
    other = TextClassificationData(path=folder({"new.jsonl": jsonl(TextClassificationData, [None] * 3)}, "other"))
    other.processor, other.for_testing = data.processor, True
    with pytest.raises(InputError, match="expected samples with a label, got none; answer them with `rnnzoo predict`"):
        other.describe()


def test_a_translation_test_split_without_targets_is_left_out(folder):
    rows = "".join(f'{{"en": "a{number}", "de": "b"}}\n' for number in range(9))
    for test in (rows.replace('"b"', "null"), rows.replace(', "de": "b"', ""), rows.replace('"b"', '" "')):
        files = {"train.jsonl": rows, "dev.jsonl": rows, "test.jsonl": test}
        data = TranslationData(source="en", target="de", path=folder(files))
        assert set(data.describe().split_sizes) == {"train", "validation"}
        assert any("test: none of 9 samples has a target" in note for note in data.describe().notes)
    files["test.jsonl"] = rows.replace('"b"', "null", 1)
    with pytest.raises(InputError, match=r"test\.jsonl, line 1, target de: expected a text"):
        TranslationData(source="en", target="de", path=folder(files)).raw("test")


# Single samples, words and frames


@kinds
@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: "no column" if gap is NONE else repr(gap))
def test_single_gaps_are_no_class_and_are_counted(folder, kind, gap):
    if kind is TaggingData and gap in WORDS:
        pytest.skip("a word is a tag")
    labels = ["a", "b", "a", gap, "b", "a", gap, "b"]
    data = build(folder, kind, labels, labels, labels)
    assert classes(data) == ["a", "b"]
    for split in ("train", "validation", "test"):
        notes = [note for note in data.describe().notes if note.startswith(f"{split}: ")]
        if kind is FrameData:
            assert data.raw(split)[0]["labels"] == ["a", "b", "a", "", "b", "a", "", "b"]
            assert notes[-1] == f"{split}: 2 of 8 frames have no label and are left out of loss and metrics"
        else:
            assert len(data.raw(split)) == 6
            assert notes[-1] == f"{split}: 2 of 8 samples have no label and are left out"
        if isinstance(gap, str) and gap in WORDS:
            assert notes[0].startswith(f"{split}: 2 '{gap}' among the labels read as no label (if it is a class: ")


@pytest.mark.parametrize("kind", [TextClassificationData, VectorData, FrameData], ids=lambda kind: kind.__name__)
def test_words_are_classes_where_they_are_said_to_be_or_must_be(folder, kind):
    labels = ["a", "b", "None"] * 4
    assert classes(build(folder, kind, labels, labels, labels, missing_labels=[])) == ["None", "a", "b"]
    assert classes(build(folder, kind, labels, labels, labels, missing_labels=["a"])) == ["None", "b"]
    two = ["Some", "None"] * 4  # one class alone would be left
    assert classes(build(folder, kind, two, two, two)) == ["None", "Some"]


@kinds
@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ([-1, 1] * 4, [-1, 1], ["-1", "1"]),
        ([-1, 0, 1] * 4, [-1], ["-1", "0", "1"]),
        ([0, 1] * 4, [-1, 1], ["0", "1"]),
        (["a", "b", -1] * 4, [-1, "a"], ["a", "b"]),
        ([-100, -1, 1] * 4, [-1, -100], ["-1", "1"]),
    ],
)
def test_minus_one_is_a_class_among_numbers_in_training_alone(folder, kind, train, test, expected):
    data = build(folder, kind, train, train, test)
    assert classes(data) == expected
    rows = data.raw("test")[kind.canonical[1]][:]
    flat = [label for row in rows for label in ([row] if isinstance(row, str) else row) if label]
    assert set(flat) == {str(label) for label in test} & set(expected)


def test_a_set_of_labels_may_be_empty_and_may_be_missing(folder):
    labels = [["a"], [], ["a", "b"], None, [-100], ["b", -100]]
    data = build(folder, TextClassificationData, labels, labels, [None, None], multi_label=True)
    assert list(data.raw("train")["label"]) == [["a"], [], ["a", "b"], ["b"]]
    assert classes(data) == ["a", "b"]
    assert "test" in data.unlabelled


def test_class_numbers_below_zero_and_null_in_lists_are_no_class(tmp_path):
    names = datasets.ClassLabel(names=["O", "B-X"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(names)})
    rows = {"tokens": [["a", "b"], ["c"], ["d"]], "tags": [[1, -100], [None], [0]]}
    table = datasets.Dataset.from_list(
        [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)], features=features
    )
    for split in ("train", "validation", "test"):
        table.to_parquet(str(tmp_path / f"{split}.parquet"))
    for data in (TaggingData(path=str(tmp_path)), TaggingData(hub=str(tmp_path))):
        assert list(data.raw("train")["tags"]) == [["B-X", ""], ["O"]]
        assert data.encoded("train")[0]["targets"][1] == IGNORED


def test_parts_of_speech_that_are_not_specified_are_no_tags(folder):
    line = "{}\tw\tw\t{}\tX\t_\t0\troot\t_\t_\n"
    content = line.format(1, "NOUN") + line.format(2, "_") + "\n" + line.format(1, "VERB")
    blind = content.replace("NOUN", "_").replace("VERB", "_")
    files = {"x-train.conllu": content, "x-dev.conllu": content, "x-test.conllu": blind}
    data = TaggingData(path=folder(files), columns={"tags": "upos"})
    assert list(data.raw("train")["tags"]) == [["NOUN", ""], ["VERB"]]
    assert data.unlabelled == {"test"}


@pytest.mark.parametrize("kind", [VectorData, FrameData], ids=lambda kind: kind.__name__)
def test_numbers_to_predict_may_be_missing(folder, kind):
    rows = "".join(f"{number},{number * number if number % 3 else gap}\n" for number, gap in enumerate(["", "NaN"] * 5))
    files = {"train.csv": "x,y\n" + rows, "dev.csv": "x,y\n" + rows, "test.csv": "x,z\n1,2\n"}
    data = kind(path=folder(files), targets=["y"], features=["x"])
    assert set(data.describe().split_sizes) == {"train", "validation"}
    batch = data.processor.collate([data.encoded("validation")[0]])
    assert data.processor.targets_scale.mean == pytest.approx([sum(n * n for n in (1, 2, 4, 5, 7, 8)) / 6])
    if kind is FrameData:
        assert batch.targets.isnan().flatten().tolist() == [number % 3 == 0 for number in range(10)]
    else:
        assert data.describe().split_sizes == {"train": 6, "validation": 6}


# Losses and metrics


@pytest.mark.parametrize("crf", [False, True], ids=["softmax", "crf"])
@kinds
def test_gaps_change_neither_loss_nor_metrics(folder, kind, crf):
    """The same inputs with and without gaps: what is measured is what is measured over the others alone."""
    if crf and kind is not TaggingData:
        pytest.skip("taggers alone have a CRF")
    data, full = (
        build(folder, kind, *[["a", "b", "a", gap, "b", "a", gap, "b"]] * 3, inside=str(number))
        for number, gap in enumerate((None, "a" if kind is FrameData else DROPPED))
    )
    full.processor = data.processor
    torch.manual_seed(0)
    model = MODELS[MODEL[kind]](processor=data.processor, **({"crf": True} if crf else {})).eval()
    measured = []
    for samples in (data, full):
        (batch,) = samples.test_dataloader()
        if samples is full and kind is FrameData:  # its frames stay, so their labels are taken away by hand
            batch.targets[0, [3, 6]] = IGNORED
        metrics = torch.nn.ModuleDict(model.build_metrics())
        with torch.no_grad():
            outputs = model(batch)
            total, items = model.objective(outputs, batch)
            model.update_metrics(metrics, outputs, batch)
        values = {name: float(value) for metric in metrics.values() for name, value in metric.compute().items()}
        measured.append({"total": float(total), "items": float(items), **values})
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)
    assert measured[0]["items"] == (12 if kind is TaggingData else 6)
    assert measured[0]["unseen_labels"] == 0
