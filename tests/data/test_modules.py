"""Data modules: from files, a Hub data set or a synthetic task to splits, encoded samples and batches."""

from __future__ import annotations

import contextlib
from itertools import chain
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch

from rnnzoo.batches import IGNORED, UNSEEN, FrameBatch, TaggingBatch, TextBatch, VectorBatch
from rnnzoo.data import DATA_MODULES, FrameData, TaggingData, TextClassificationData, VectorData
from rnnzoo.data.base import ZooData
from rnnzoo.data.frames import cut_windows
from rnnzoo.errors import InputError
from rnnzoo.processors.base import Processor
from rnnzoo.processors.text_classification import TextClassificationProcessor
from rnnzoo.text.tokenizer import PAD_ID, UNKNOWN_ID, TokenizerOptions

SPLITS = ("train", "validation", "test")


def texts(count, word="w", mark=","):
    return "".join(f"{word}{number} shared{mark}{'pos' if number % 3 else 'neg'}\n" for number in range(count))


def csv(count, word="w"):
    return "text,label\n" + texts(count, word)


def sequence(count, start=0.0, slope=1.0):
    """Return a CSV of frames whose first column counts on and whose second is constant."""
    rows = (f"{start + slope * frame},5,{'ab'[frame % 2]}\n" for frame in range(count))
    return "x,y,labels\n" + "".join(rows)


def batches(data, split):
    return list(
        {"train": data.train_dataloader, "validation": data.val_dataloader, "test": data.test_dataloader}[split]()
    )


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
    assert batch.characters.shape == (3, 2, 9)
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
    assert data.encoded("train")[1]["tags"] == tags
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
    content = '"date","b","a","label"\n' + "".join(f'"{n}","2015-02-0{n}",{n},{n * n},{n % 2}\n' for n in range(1, 9))
    data = VectorData(path=folder({"train.csv": content}))
    assert data.processor.features == ["b", "a"]
    assert list(data.processor.labels) == ["0", "1"]
    assert sorted(map(tuple, chain.from_iterable(data.raw(split)["vector"] for split in SPLITS)))[2] == (3.0, 9.0)


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


# Splits


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


def test_limit_chooses_training_samples_by_the_seed_and_says_so(folder):
    files = {"train.csv": csv(90), "dev.csv": csv(9), "test.csv": csv(9)}
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
    assert data.encoded("train")[0]["tags"] == ["B-PER", "E-PER", "O"]


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


# Caching


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


# What is learnt from the training split alone


def test_vocabulary_and_labels_come_from_the_training_split_alone(folder):
    files = {
        "train.csv": "text,label\ncat sat,x\ncat ran,y\n",
        "dev.csv": "text,label\nzebra sat,z\n",
        "test.csv": "text,label\nquokka,x\n",
    }
    data = TextClassificationData(path=folder(files))
    assert set(data.processor.tokenizer.vocabulary) == {"<pad>", "<unk>", "cat", "sat", "ran"}
    assert list(data.processor.labels) == ["x", "y"]
    (batch,) = batches(data, "validation")
    assert batch.tokens[0, 0] == UNKNOWN_ID
    assert batch.targets.tolist() == [UNSEEN]
    assert batches(data, "test")[0].tokens.tolist() == [[UNKNOWN_ID]]


def test_vocabulary_knows_nothing_of_splits_that_were_made(folder):
    data = TextClassificationData(path=folder({"all.csv": csv(60)}))
    words = set(chain.from_iterable(text.split() for text in data.raw("train")["text"]))
    assert set(data.processor.tokenizer.vocabulary) == {"<pad>", "<unk>"} | words


def test_words_characters_and_tags_come_from_the_training_split_alone(folder):
    files = {"train.conll": "ab X\n", "dev.conll": "abz Y\nab X\n", "test.conll": "ab X\n"}
    data = TaggingData(path=folder(files))
    assert data.processor.words.vocabulary == ["<pad>", "<unk>", "ab"]
    assert set(data.processor.characters.vocabulary) == {"<pad>", "<unk>", "a", "b"}
    (batch,) = batches(data, "validation")
    assert batch.words.tolist() == [[UNKNOWN_ID, 2]]
    assert batch.characters[0, 0, 2] == UNKNOWN_ID
    assert batch.targets.tolist() == [[UNSEEN, 0]]
    assert batch.tags == (("Y", "X"),)


def test_normalisation_comes_from_the_training_part_alone(folder):
    files = {"a.csv": sequence(11), "b.csv": sequence(6, 50), "c.csv": sequence(7, 1000), "d.csv": sequence(5, -9999)}
    data = FrameData(path=folder(files), test="c.csv", validation="d.csv", window_size=4)
    training = np.concatenate([np.arange(11.0), np.arange(50.0, 56.0)])
    scale = data.processor.inputs_scale
    assert np.allclose(scale.mean, [training.mean(), 5])
    assert np.allclose(scale.deviation, [training.std(), 1])
    (batch,) = batches(data, "test")
    assert np.allclose(batch.frames[0, :, 0], (np.arange(1000.0, 1007.0) - training.mean()) / training.std(), atol=1e-4)
    assert (batch.frames[..., 1] == 0).all()


def test_vectors_are_normalised_by_the_training_split(folder):
    rows = "x,label\n" + "".join(f"{n},{n % 2}\n" for n in range(10))
    data = VectorData(path=folder({"train.csv": rows, "dev.csv": "x,label\n77,0\n", "test.csv": "x,label\n-5,1\n"}))
    (batch,) = batches(data, "validation")
    assert batch.inputs.item() == pytest.approx((77 - 4.5) / np.arange(10).std(), rel=1e-6)


def test_a_processor_that_is_set_takes_the_place_of_the_learnt_one(folder):
    first = TextClassificationData(path=folder({"train.csv": csv(20, "one")}, "one"))
    second = TextClassificationData(path=folder({"train.csv": csv(20, "two")}, "two"))
    second.encoded("test")
    second.processor = first.processor
    assert second.processor is first.processor
    assert second.encoded("test")[0]["tokens"][0] == UNKNOWN_ID


# Windows


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 30])
def test_windows_cover_every_frame_with_its_label(size):
    for stride in range(1, size + 1):
        for count in (1, 2, 3, 7, 8, 9, 20):
            frames = [[float(frame)] for frame in range(count)]
            found = cut_windows({"frames": [frames], "targets": [list(range(count))], "length": [count]}, size, stride)
            covered = {frame[0] for window in found["frames"] for frame in window}
            assert covered == set(range(count))
            for window, targets, length in zip(found["frames"], found["targets"], found["length"], strict=True):
                assert [frame[0] for frame in window] == targets
                assert targets == list(range(targets[0], targets[0] + length))
                assert length == min(size, count)
            starts = [targets[0] for targets in found["targets"]]
            assert starts == sorted(set(starts)), "a window is there twice"


def test_windows_of_training_cover_all_sequences_and_evaluation_reads_them_whole(folder):
    files = {"a.csv": sequence(11), "b.csv": sequence(3, 50), "c.csv": sequence(9, 80), "d.csv": sequence(9, 90)}
    data = FrameData(path=folder(files), test="c.csv", validation="d.csv", window_size=4, window_stride=2, batch_size=3)
    mean, deviation = data.processor.inputs_scale.mean[0], data.processor.inputs_scale.deviation[0]
    covered = {}
    for batch in batches(data, "train"):
        assert batch.frames.shape[1] <= 4
        for row, length in enumerate(batch.lengths.tolist()):
            for frame in range(length):
                value = round(batch.frames[row, frame, 0].item() * deviation + mean)
                covered[value] = batch.targets[row, frame].item()
    expected = {**{n: n % 2 for n in range(11)}, **{50 + n: n % 2 for n in range(3)}}
    assert covered == expected
    assert batches(data, "test")[0].lengths.tolist() == [9]


def test_sequences_are_told_apart_by_a_column(folder):
    content = "x,video,labels\n1,A,a\n2,A,b\n3,B,a\n"
    data = FrameData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}), sequence="video")
    assert [(row["name"], row["frames"]) for row in data.raw("test")] == [
        ("test.csv A", [[1.0], [2.0]]),
        ("test.csv B", [[3.0]]),
    ]


def test_the_number_of_a_sequence_is_no_input(folder):
    content = "x,video,labels\n1,1,a\n2,1,b\n3,2,a\n"
    data = FrameData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}), sequence="video")
    assert data.processor.features == ["x"]


# Batches


def as_process(data, rank, world):
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world)
    return data


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("size", [{"batch_size": 4}, {"max_tokens": 12}], ids=str)
def test_evaluation_hands_every_sample_to_one_process(folder, world, size):
    path = folder({"train.csv": csv(21), "dev.csv": csv(13), "test.csv": csv(17)})
    for split, count in (("validation", 13), ("test", 17)):
        ids = []
        for rank in range(world):
            data = as_process(TextClassificationData(path=path, **size), rank, world)
            for batch in batches(data, split):
                ids += batch.ids.tolist()
                assert all(data.raw(split)[sample]["text"].split()[0][0] == "w" for sample in batch.ids.tolist())
        assert sorted(ids) == list(range(count))


@pytest.mark.parametrize("world", [2, 3])
def test_training_hands_equally_many_batches_to_every_process(folder, world):
    path = folder({"train.csv": csv(21), "dev.csv": csv(3), "test.csv": csv(3)})
    found = [
        batches(as_process(TextClassificationData(path=path, batch_size=4), rank, world), "train")
        for rank in range(world)
    ]
    assert len({len(each) for each in found}) == 1
    assert {sample for each in found for batch in each for sample in batch.ids.tolist()} == set(range(21))


def test_batches_carry_ids_padding_and_targets(folder):
    content = "text,label\na b c,x\nd,y\ne f,x\n"
    data = TextClassificationData(path=folder({"train.csv": content, "dev.csv": content, "test.csv": content}))
    (batch,) = batches(data, "test")
    assert isinstance(batch, TextBatch)
    assert batch.ids.tolist() == [1, 2, 0]
    assert batch.lengths.tolist() == [1, 2, 3]
    assert batch.targets.tolist() == [1, 0, 0]
    assert (batch.tokens[0, 1:] == PAD_ID).all()
    assert data.encoded("test")[1]["id"] == 1


def test_training_batches_change_with_the_epoch_alone(folder):
    path = folder({"train.csv": csv(50)})
    loaders = [TextClassificationData(path=path, batch_size=4).train_dataloader() for _ in range(2)]
    orders = []
    for epoch in (0, 1):
        for loader in loaders:
            loader.batch_sampler.set_epoch(epoch)
        one, other = ([batch.ids.tolist() for batch in loader] for loader in loaders)
        assert one == other
        orders.append(one)
    assert orders[0] != orders[1]


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
