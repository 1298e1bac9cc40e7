"""Data modules: from files, a Hub data set or a synthetic task to samples."""

from __future__ import annotations

import contextlib
from itertools import chain

import datasets
import pytest
import torch
from small_files import batches, csv
from spelling import spelt

from rnnzoo.batches import IGNORED, FrameBatch, TaggingBatch, TextBatch, VectorBatch
from rnnzoo.data import DATA_MODULES, FrameData, TaggingData, TextClassificationData, VectorData
from rnnzoo.data.base import ZooData
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor

SPLITS = ("train", "validation", "test")


# Formats


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("train.csv", "text,label\na b,x\nc,y\nd,x\ne,y\n", {}),
        ("train.tsv", "a b\tx\nc\ty\nd\tx\ne\ty\n", {"file_columns": ["text", "label"]}),
        ("train.tsv.gz", "text\tlabel\na b\tx\nc\ty\nd\tx\ne\ty\n", {}),
        (
            "train.jsonl.xz",
            "".join(f'{{"text": "{t}", "label": "{n}"}}\n' for t, n in zip(["a b", *"cde"], "xyxy", strict=True)),
            {},
        ),
        ("train.txt", "text,label\na b,x\nc,y\nd,x\ne,y\n", {"format": "csv"}),
    ],
)
def test_tables_of_texts(folder, name, content, options):
    data = TextClassificationData(path=folder({name: content}), **options)
    rows = sorted((row["text"], row["label"]) for split in SPLITS for row in data.raw(split))
    assert rows == [("a b", "x"), ("c", "y"), ("d", "x"), ("e", "y")]
    assert data.describe().split_sizes == {"train": 2, "validation": 1, "test": 1}


def test_parquet_files(folder, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = {"text": [f"word{number}" for number in range(6)], "label": [0, 1] * 3}
    for split in ("train", "dev", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / f"{split}.parquet"))
    data = TextClassificationData(path=str(tmp_path))
    assert data.describe().split_sizes == {"train": 6, "validation": 6, "test": 6}
    assert data.raw("test")[1] == {"text": "word1", "label": "pos"}


def test_one_text_file_for_each_class(folder):
    files = {"Arabic.txt": "Khoury\n\nNahas\n", "Zulu.txt.gz": "Dube\nNdlovu\n", "README.md": "not a class\n"}
    data = TextClassificationData(path=folder(files), class_per_file=True)
    rows = sorted((row["text"], row["label"]) for split in SPLITS for row in data.raw(split))
    assert rows == [("Dube", "Zulu"), ("Khoury", "Arabic"), ("Nahas", "Arabic"), ("Ndlovu", "Zulu")]


def test_multi_label_texts(folder):
    content = "text,label\nplain,\none,sport\ntwo,sport|music\nthree, music | sport \n"
    data = TextClassificationData(
        path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}),
        multi_label=True,
        label_separator="|",
    )
    assert list(data.raw("train")["label"]) == [[], ["sport"], ["sport", "music"], ["music", "sport"]]
    (batch,) = batches(data, "test")
    assert batch.targets[batch.ids.argsort()].tolist() == [[0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 0]]


def test_long_texts_are_cut_only_where_asked_and_the_rest_is_counted(folder):
    path = folder({"train.csv": "text,label\na b c d e,x\nf,y\ng,x\n"})
    assert TextClassificationData(path=path).encoded("train").table["cut"][:] == [0]
    cut = TextClassificationData(path=path, max_length=2, test_fraction=0.3)
    rows = {cut.raw(split)[0]["text"]: cut.encoded(split)[0] for split in SPLITS}
    assert (rows["a b c d e"]["length"], rows["a b c d e"]["cut"]) == (2, 3)
    assert rows["f"]["cut"] == 0


SENTENCES = {
    "conll": "-DOCSTART- O\n\nEU I-ORG\nleft O\n\nPeter I-PER\nBlackburn I-PER\n\nwe O\n",
    "jsonl": '{"tokens": ["EU", "left"], "tags": ["I-ORG", "O"]}\n'
    '{"tokens": ["Peter", "Blackburn"], "tags": ["I-PER", "I-PER"]}\n{"tokens": ["we"], "tags": ["O"]}\n',
    "csv": "tokens,tags\nEU left,I-ORG O\nPeter Blackburn,I-PER I-PER\nwe,O\n",
    "tsv": "tokens\ttags\nEU left\tI-ORG O\nPeter Blackburn\tI-PER I-PER\nwe\tO\n",
}


@pytest.mark.parametrize("format", SENTENCES)
def test_tagged_sentences_of_every_format(folder, format):
    content = SENTENCES[format]
    data = TaggingData(
        path=folder({f"train.{format}": content, f"testa.{format}": content, f"testb.{format}": content})
    )
    assert list(data.raw("test")) == [
        {"tokens": ["EU", "left"], "tags": ["I-ORG", "O"]},
        {"tokens": ["Peter", "Blackburn"], "tags": ["I-PER", "I-PER"]},
        {"tokens": ["we"], "tags": ["O"]},
    ]
    (batch,) = batches(data, "validation")
    assert isinstance(batch, TaggingBatch)
    assert batch.words.shape == (3, 2)
    spelling = dict(zip(batch.ids.tolist(), spelt(batch.characters), strict=True))
    assert [[len(word) for word in spelling[row]] for row in range(3)] == [[2, 4], [5, 9], [2, 0]]
    assert sorted(batch.targets.flatten().tolist()).count(IGNORED) == 1


def test_conllu_sentences(folder):
    lines = ["1-2\tdon't\t" + "\t".join("_" * 8), "1\tdo\tdo\tAUX\t" + "\t".join("_" * 6)]
    lines += ["2\tn't\tnot\tPART\t" + "\t".join("_" * 6), "2.1\tx\t" + "\t".join("_" * 8), "", ""]
    content = "# text = don't\n" + "\n".join(lines)
    data = TaggingData(
        path=folder({"x-train.conllu": content, "x-dev.conllu": content, "x-test.conllu": content}),
        columns={"tags": "upos"},
    )
    assert list(data.raw("train")) == [{"tokens": ["do", "n't"], "tags": ["AUX", "PART"]}]


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (None, {"I-ORG", "I-PER", "O"}),
        ("bio", {"O", "B-ORG", "I-ORG", "B-PER", "I-PER"}),
        ("bioes", {"O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("ORG", "PER"))}),
    ],
)
def test_tags_are_converted_to_the_scheme_of_the_model(folder, scheme, expected):
    content = SENTENCES["conll"]
    files = {"eng.train": content, "eng.testa": content, "eng.testb": content}
    data = TaggingData(path=folder(files), scheme=scheme, characters=None)
    assert set(data.processor.tags) == expected
    tags = {None: ["I-PER", "I-PER"], "bio": ["B-PER", "I-PER"], "bioes": ["B-PER", "E-PER"]}[scheme]
    row = data.encoded("train")[1]
    assert [data.processor.tags.labels[number] for number in row["targets"]] == tags
    assert row["tags"] == ["I-PER", "I-PER"]
    assert batches(data, "test")[0].characters is None


# Columns


def test_columns_are_mapped_by_name(folder):
    content = "id,review,stars\n7,fine film,5\n8,dull film,1\n9,odd film,3\n"
    data = TextClassificationData(path=folder({"train.csv": content}), columns={"text": "review", "label": "stars"})
    assert {row["text"]: row["label"] for split in SPLITS for row in data.raw(split)} == {
        "fine film": "5",
        "dull film": "1",
        "odd film": "3",
    }


def test_one_column_may_be_mapped_and_the_other_not(folder):
    data = TextClassificationData(
        path=folder({"train.csv": "review,label\na,x\nb,y\nc,x\n"}), columns={"text": "review"}
    )
    assert set(data.raw("train").column_names) == {"text", "label"}


def test_vectors_take_all_columns_of_numbers_but_the_label(folder):
    content = '"date","b","a","label"\n' + "".join(
        f'"{n}","2015-02-0{n}",{2 * n},{n * n},{n % 2}\n' for n in range(1, 9)
    )
    data = VectorData(path=folder({"train.csv": content}))
    assert data.processor.features == ["b", "a"]
    assert list(data.processor.labels) == ["0", "1"]
    assert sorted(map(tuple, chain.from_iterable(data.raw(split)["vector"] for split in SPLITS)))[2] == (6.0, 9.0)


def test_vectors_and_frames_may_have_numbers_as_answers(folder):
    content = "a,b,c\n" + "".join(f"{n},{n * 2},{n * 3}\n" for n in range(9))
    files = {"train.csv": content, "dev.csv": content, "test.csv": content}
    vectors = VectorData(path=folder(files), targets=["c", "b"])
    assert vectors.processor.features == ["a"]
    assert vectors.processor.targets == ["c", "b"]
    assert vectors.raw("train")[2] == {"vector": [2.0], "label": [6.0, 4.0]}
    (batch,) = batches(vectors, "test")
    assert torch.allclose(
        vectors.processor.restore_targets(batch.targets)[batch.ids.argsort()][2], torch.tensor([6.0, 4.0])
    )
    frames = FrameData(path=folder(files), targets=["c"], features=["b"])
    (batch,) = batches(frames, "test")
    assert batch.frames.shape == batch.targets.shape == (1, 9, 1)


@pytest.mark.parametrize("kind", [VectorData, FrameData])
def test_labels_are_renamed(folder, kind):
    name = kind.canonical[1]
    content = f"x,{name}\n1,Rest\n2,Hodl\n3,Hold\n"
    files = {"train.csv": content, "dev.csv": content, "test.csv": content}
    data = kind(path=folder(files), rename_labels={"Hodl": "Hold"})
    assert list(data.processor.labels) == ["Hold", "Rest"]


@pytest.mark.parametrize("kind", [VectorData, FrameData])
def test_an_empty_label_is_no_class(folder, kind):
    content = f"x,{kind.canonical[1]}\n1,a\n2,\n3,b\n"
    data = kind(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}))
    labels = []
    with contextlib.suppress(InputError):  # refusing the row is right, and so is leaving it without a class
        labels = list(data.processor.labels)
    assert "" not in labels


# Hub


@pytest.fixture
def hub(tmp_path):
    """Return a function that writes splits as Parquet into a folder that works as a Hub id."""

    def write(splits, features):
        for split, rows in splits.items():
            table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
            table.to_parquet(str(tmp_path / f"{split}.parquet"))
        return str(tmp_path)

    return write


def test_texts_of_a_hub_data_set(hub):
    features = {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    rows = {"sentence": [f"word{number}" for number in range(20)], "label": [0, 1] * 10}
    path = hub({"train": rows, "test": rows}, features)
    data = TextClassificationData(hub=path, columns={"text": "sentence"})
    assert data.raw("test")[1] == {"text": "word1", "label": "good"}
    found = data.describe()
    assert found.source == path
    assert found.split_sizes == {"train": 18, "validation": 2, "test": 20}
    assert "no validation split" in found.notes[0]
    assert list(data.processor.labels) == ["bad", "good"]
    again = TextClassificationData(hub=path, columns={"text": "sentence"})
    assert again.raw("train")._fingerprint == data.raw("train")._fingerprint


def test_tags_of_a_hub_data_set(hub):
    names = ["O", "B-PER", "I-PER"]
    features = {
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=names)),
    }
    rows = {"tokens": [["Ann", "Lee", "left"], ["so"]], "ner_tags": [[1, 2, 0], [0]]}
    path = hub({"train": rows, "validation": rows, "test": rows}, features)
    data = TaggingData(hub=path, columns={"tags": "ner_tags"}, scheme="bioes")
    assert data.raw("train")[0] == {"tokens": ["Ann", "Lee", "left"], "tags": ["B-PER", "I-PER", "O"]}
    row = data.encoded("train")[0]
    assert [data.processor.tags.labels[number] for number in row["targets"]] == ["B-PER", "E-PER", "O"]
    assert row["tags"] == ["B-PER", "I-PER", "O"]


def test_vectors_of_a_hub_data_set(hub):
    features = {"a": datasets.Value("float64"), "when": datasets.Value("string"), "label": datasets.Value("int64")}
    rows = {"a": [0.5, 1.5, 2.5], "when": ["x", "y", "z"], "label": [0, 1, 1]}
    data = VectorData(hub=hub({"train": rows, "validation": rows, "test": rows}, features))
    assert data.processor.features == ["a"]
    assert data.raw("train")[1] == {"vector": [1.5], "label": "1"}


def test_files_take_the_place_of_the_hub(folder):
    data = TextClassificationData(hub="rnnzoo/none", path=folder({"train.csv": csv(9)}))
    assert data.describe().split_sizes["train"] == 7


# Synthetic


@pytest.mark.parametrize(
    ("kind", "task", "batch"),
    [
        (VectorData, "gaussians", VectorBatch),
        (TextClassificationData, "topic_chains", TextBatch),
        (TaggingData, "hidden_markov", TaggingBatch),
        (FrameData, "adding", FrameBatch),
    ],
)
def test_synthetic_tasks_go_through_like_files(kind, task, batch):
    data = kind(synthetic=task, batch_size=16, limit=40)
    found = data.describe()
    assert task in found.source
    assert found.split_sizes["train"] == 40
    assert isinstance(next(iter(data.train_dataloader())), batch)
    assert batch.__name__.startswith(kind.__name__[:4])


def test_the_registry_knows_all_modules_and_their_processors(folder):
    assert sorted(DATA_MODULES) == [
        "CaptionData",
        "FrameData",
        "LanguageData",
        "TaggingData",
        "TextClassificationData",
        "TranslationData",
        "VectorData",
    ]
    assert all(issubclass(DATA_MODULES[name], ZooData) for name in DATA_MODULES)
    data = TextClassificationData(path=folder({"train.csv": csv(9)}))
    assert isinstance(data.processor, Processor)
