"""Real data sets as users have them; each test skips where its folder is absent."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from rnnzoo.data import FrameData, TaggingData, TextClassificationData, TranslationData, VectorData
from rnnzoo.text.tokenizer import TokenizerOptions

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.slow  # real data, where they are at hand


def place(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent")
    return str(DATA / name)


def sizes(data):
    found = data.describe().split_sizes
    return found["train"], found["validation"], found["test"]


def test_ud_english_ewt():
    data = TaggingData(path=place("ud_english_ewt"), columns={"tags": "upos"})
    assert sizes(data) == (12544, 2001, 2077)
    assert len(data.describe().revision) == 3
    assert data.describe().notes == []
    assert data.raw("train")[0]["tokens"][:4] == ["Al", "-", "Zaman", ":"]
    assert data.raw("test")[0] == {
        "tokens": ["What", "if", "Google", "Morphed", "Into", "GoogleOS", "?"],
        "tags": ["PRON", "SCONJ", "PROPN", "VERB", "ADP", "PROPN", "PUNCT"],
    }
    assert len(set(chain.from_iterable(data.raw("test")["tags"]))) == 17
    assert sum(len(tags) for tags in data.raw("validation")["tags"]) == 25147


def test_conll2003_ner():
    options = {
        "path": place("conll2003_ner"),
        "columns": {"tags": "ner_tags"},
        "file_columns": ["tokens", "pos_tags", "chunk_tags", "ner_tags"],
    }
    data = TaggingData(**options)
    assert sizes(data) == (14041, 3250, 3453)
    assert data.raw("train")[0] == {
        "tokens": ["EU", "rejects", "German", "call", "to", "boycott", "British", "lamb", "."],
        "tags": ["I-ORG", "O", "I-MISC", "O", "O", "O", "I-MISC", "O", "O"],
    }
    assert sum(len(tags) for tags in data.raw("test")["tags"]) == 46435
    small = TaggingData(**options, scheme="bioes", limit=300)
    assert sizes(small) == (300, 3250, 3453)
    kinds = ("LOC", "MISC", "ORG", "PER")
    assert set(small.processor.tags) == {"O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in kinds)}
    processor = TaggingData(**options, scheme="bioes").processor
    row = processor.encode(data.raw("train")[0])
    assert [list(processor.tags)[index] for index in row["targets"][:3]] == ["S-ORG", "O", "S-MISC"]
    assert row["tags"][:3] == ["I-ORG", "O", "I-MISC"]  # the scheme of the data


def test_sst2():
    data = TextClassificationData(path=place("sst"), file_columns=["text", "label"])
    assert sizes(data) == (6920, 872, 1821)
    first = data.raw("train")[0]
    assert first["text"].startswith("a stirring , funny and finally transporting re imagining of beauty and the beast")
    assert first["label"] == "1"
    assert data.raw("validation")[0] == {"text": "one long string of cliches", "label": "0"}
    assert list(data.processor.labels) == ["0", "1"]
    assert data.encoded("train")[0]["length"] == 18
    checksum = hashlib.sha256((DATA / "sst" / "sst2.dev.tsv").read_bytes()).hexdigest()
    assert data.describe().revision["sst2.dev.tsv"] == checksum
    assert len(data.describe().revision) == 3


def test_names_of_18_languages():
    data = TextClassificationData(
        path=place("names_18_languages"), class_per_file=True, tokenizer=TokenizerOptions(kind="characters")
    )
    assert sizes(data) == (16040, 2005, 2005)
    assert len(data.describe().notes) == 2
    assert data.raw("train")[0]["label"] == "Arabic"
    labels = Counter(chain.from_iterable(data.raw(split)["label"] for split in ("train", "validation", "test")))
    assert len(labels) == len(data.processor.labels) == 18
    lines = (DATA / "names_18_languages" / "Korean.txt").read_text(encoding="utf-8").split("\n")
    assert labels["Korean"] == sum(1 for line in lines if line.strip())


def test_gesture_phase():
    joints = ("lh", "rh", "h", "s", "lw", "rw")
    features = [joint + axis for joint in joints for axis in "xyz"]
    data = FrameData(
        path=place("gesture_phase"),
        columns={"labels": "phase"},
        features=features,
        rename_labels={"Preparação": "Preparation"},
        test="a3_raw.csv",
        validation="c3_raw.csv",
        window_size=128,
        window_stride=32,
    )
    assert sizes(data) == (5, 1, 1)
    assert data.raw("test")[0]["name"] == "a3_raw.csv"
    assert len(data.raw("test")[0]["frames"]) == 1834
    assert [len(each) for each in data.raw("train")["frames"]] == [1747, 1264, 1073, 1424, 1111]
    assert data.raw("train")[0]["frames"][0][:3] == [5.347435, 4.363681, 1.501913]
    assert data.processor.features == features
    assert list(data.processor.labels) == ["Hold", "Preparation", "Rest", "Retraction", "Stroke"]
    assert set(data.encoded("train").lengths.tolist()) == {128}
    assert data.encoded("test").lengths.tolist() == [1834]


OCCUPANCY = {
    "format": "csv",
    "train": "datatraining.txt",
    "validation": "datatest.txt",
    "test": "datatest2.txt",
}


def test_occupancy_as_vectors():
    data = VectorData(path=place("occupancy"), columns={"label": "Occupancy"}, **OCCUPANCY)
    assert sizes(data) == (8143, 2665, 9752)
    assert data.raw("train")[0] == {"vector": [23.18, 27.272, 426.0, 721.25, 0.00479298817650529], "label": "1"}
    assert data.processor.features == ["Temperature", "Humidity", "Light", "CO2", "HumidityRatio"]
    positives = [Counter(data.raw(split)["label"])["1"] for split in ("train", "validation", "test")]
    assert positives == [1729, 972, 2049]


def test_occupancy_as_frames():
    data = FrameData(path=place("occupancy"), columns={"labels": "Occupancy"}, window_size=128, **OCCUPANCY)
    assert sizes(data) == (1, 1, 1)
    assert [len(data.raw(split)[0]["frames"]) for split in ("train", "validation", "test")] == [8143, 2665, 9752]
    assert list(data.processor.labels) == ["0", "1"]
    assert len(data.encoded("train")) == -(-8143 // 128)


def test_multi30k():
    data = TranslationData(path=place("multi30k_en_de"), source="en", target="de")
    assert sizes(data) == (29000, 1014, 1000)
    assert data.describe().notes == []
    assert len(data.describe().revision) == 6
    assert data.raw("train")[0] == {
        "source": "Two young, White males are outside near many bushes.",
        "target": "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    }
    assert data.raw("test")[0] == {
        "source": "A man in an orange hat starring at something.",
        "target": "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    }
    options = {"path": place("multi30k_en_de"), "source": "de", "target": "en", "limit": 500}
    other = TranslationData(**options, joint=True, tokenizer=TokenizerOptions(kind="bpe", max_size=1000))
    assert other.raw("test")[0]["source"] == data.raw("test")[0]["target"]
    for sample in other.raw("test"):
        row = other.processor.encode(sample)
        assert other.processor.detokenize(row["target"]) == sample["target"]
        assert "".join(row["pieces"]) == sample["source"] or not sample["source"].isascii()


@pytest.mark.slow
def test_tatoeba():
    file = Path(place("tatoeba_deu_eng")) / "deu.txt.xz"
    options = {"path": str(file), "format": "tsv", "file_columns": ["en", "de"]}
    data = TranslationData(**options, source="de", target="en", split_by="target", max_length=30)
    train, validation, test = (set(data.raw(split)["target"]) for split in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert {len(data.raw(split)) for split in ("validation", "test")} <= set(range(16920, 16930))
    assert len(train | validation | test) > 134_000  # of the 134,922 in the file
