"""Translation data: pairs of files, tables and the Hub; what is filtered, and that only training is."""

from __future__ import annotations

import json
from collections import Counter

import datasets
import pytest

from rnnzoo.data import TranslationData
from rnnzoo.data.parallel import find_pairs
from rnnzoo.errors import InputError
from rnnzoo.processors.translation import TranslationProcessor
from rnnzoo.text.tokenizer import TokenizerOptions

LINES = {"en": [f"man {place} runs" for place in range(20)], "de": [f"Mann {place} rennt" for place in range(20)]}
WORDS = TokenizerOptions()
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def text(lines, end="\n"):
    return "".join(line + end for line in lines)


def parallel(**changes):
    """Return the files of Multi30k in small; changes are ``train_en=[lines]``."""
    files = {}
    for split, name in (("train", "train"), ("val", "val"), ("test", "test_2016_flickr")):
        for language in ("en", "de"):
            lines = LINES[language][{"train": slice(20), "val": slice(4, 8), "test": slice(4)}[split]]
            files[f"{name}.{language}"] = text(changes.get(f"{split}_{language}", lines))
    return files


def load(path, **options):
    return TranslationData(path=path, **{"source": "en", "target": "de", "tokenizer": WORDS, **options})


def sizes(data):
    return tuple(data.describe().split_sizes[split] for split in SPLITS)


def complaint(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Where pairs come from


def test_parallel_files_become_splits(folder):
    data = load(folder({**parallel(), "train.fr": "x\n", "README.md": "train\n", "images.train.txt": "1.jpg\n"}))
    assert sizes(data) == (20, 4, 4)
    assert data.raw("test")[1] == {"source": "man 1 runs", "target": "Mann 1 rennt"}
    assert data.describe().notes == []
    assert sorted(data.describe().revision) == sorted(parallel())


def test_the_direction_can_be_turned(folder):
    path = folder(parallel())
    assert load(path, source="de", target="en").raw("train")[0] == {"source": "Mann 0 rennt", "target": "man 0 runs"}
    assert load(path).raw("train")[0] == {"source": "man 0 runs", "target": "Mann 0 rennt"}


@pytest.mark.parametrize("ending", [".gz", ".xz", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_may_be_compressed_and_from_windows(folder, ending, end):
    files = {f"corpus.de-en.{name}{ending}": "\ufeff" + text(lines, end) for name, lines in LINES.items()}
    data = load(folder(files))
    assert sum(sizes(data)) == 20
    pairs = {(row["source"], row["target"]) for split in SPLITS for row in data.raw(split)}
    assert pairs == set(zip(LINES["en"], LINES["de"], strict=True))


@pytest.mark.parametrize("name", ["flickr", "flickr.en", "other/flickr", "/flickr.de"])
def test_files_are_named_for_a_split_without_or_with_their_language(folder, tmp_path, name):
    path = folder(parallel())
    for inside in (".", "other"):
        folder({f"flickr.{language}": text(lines[:3]) for language, lines in LINES.items()}, inside=inside)
    named = f"{tmp_path}{name}" if name.startswith("/") else name
    data = load(path, test=f"{named},test_2016_flickr")
    assert sizes(data) == (20, 4, 7)


def test_one_file_of_a_pair_stands_for_both(folder):
    path = folder(parallel())
    assert sum(sizes(load(f"{path}/train.en"))) == 20


def test_data_for_a_trained_model_are_test_data(folder):
    data = load(folder({f"news.{language}": text(lines) for language, lines in LINES.items()}))
    data.for_testing = True
    assert data.describe().split_sizes == {"test": 20}


HEADED = "id\ten\tde\n" + text(f'{place}\tA "dog" {place}\tEin Hund {place}' for place in range(20))
BARE = text(f"A dog {place}\tEin Hund {place}\tCC-BY {place}" for place in range(20))
NESTED = text(json.dumps({"translation": {"en": f"A dog {place}", "de": f"Ein Hund {place}"}}) for place in range(20))
FLAT = text(json.dumps({"source": f"A dog {place}", "target": f"Ein Hund {place}"}) for place in range(20))
OWN = text(json.dumps({"english": f"A dog {place}", "german": f"Ein Hund {place}"}) for place in range(20))
TABLES = {
    "tsv with a header": ("train.tsv", HEADED, {}),
    "tsv without": ("train.tsv", BARE, {"file_columns": ["en", "de", "by"]}),
    "tsv called text": (
        "deu.txt.xz",
        BARE,
        {"file_columns": ["en", "de", "by"], "format": "tsv", "train": "deu.txt.xz"},
    ),
    "the Hub's column": ("train.jsonl", NESTED, {}),
    "our own names": ("train.jsonl", FLAT, {"source": None, "target": None}),
    "our own names beside languages": ("train.jsonl", FLAT, {}),
    "named columns": ("train.jsonl", OWN, {"columns": {"source": "english", "target": "german"}}),
    "csv": ("train.csv", "en,de\n" + text(f'"A dog, {place}",Ein Hund {place}' for place in range(20)), {}),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_have_a_column_for_each_side(folder, kind):
    name, content, options = TABLES[kind]
    data = load(folder({name: content}), **options)
    assert sizes(data) == (16, 2, 2)
    assert data.raw("train").column_names == ["source", "target"]
    rows = sorted(row["target"] for split in SPLITS for row in data.raw(split))
    assert rows == sorted(f"Ein Hund {place}" for place in range(20))


def test_a_parquet_file_and_the_hub_are_read_alike(folder, tmp_path, monkeypatch):
    rows = [{"translation": {"en": f"dog {place}", "de": f"Hund {place}"}} for place in range(10)]
    table = datasets.Dataset.from_list(rows)
    (tmp_path / "files").mkdir()
    table.to_parquet(tmp_path / "files" / "train.parquet")
    loaded = datasets.DatasetDict(dict.fromkeys(SPLITS, table))
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **options: loaded)
    local = load(str(tmp_path / "files"))
    hub = TranslationData(hub="some/pairs", source="de", target="en", tokenizer=WORDS)
    assert sum(sizes(local)) == 10
    assert sizes(hub) == (10, 10, 10)
    assert hub.raw("test")[3] == {"source": "Hund 3", "target": "dog 3"}


def test_several_references(folder):
    rows = [{"en": f"dog {place}", "de": [f"Hund {place}", f"der Hund {place}"]} for place in range(12)]
    rows[3]["de"] = "Hund 3"
    data = load(folder({"train.jsonl": text(map(json.dumps, rows))}))
    batch = next(iter(data.train_dataloader()))
    assert {len(references) for references in batch.references} == {1, 2}
    assert "der" in data.processor.target.vocabulary


# What is filtered


LONG = {"train_en": [*LINES["en"], "a " * 9, "a", "a b c d"], "train_de": [*LINES["de"], "b " * 9, "b", "b"]}


@pytest.mark.parametrize(
    ("options", "left", "said"),
    [
        ({}, 23, None),
        ({"max_length": 8}, 22, "1 of 23"),
        ({"max_length": 9}, 23, None),
        ({"min_length": 2}, 21, "2 of 23"),
        ({"max_ratio": 3}, 22, "1 of 23"),
        ({"max_ratio": 4}, 23, None),
        ({"min_length": 2, "max_length": 8}, 20, "3 of 23"),
        ({"max_length": 12, "length_unit": "characters"}, 12, "11 of 23"),
    ],
)
def test_filters_drop_training_samples_and_are_counted(folder, options, left, said):
    data = load(folder(parallel(**LONG)), **options)
    assert sizes(data) == (left, 4, 4)
    assert [said in note for note in data.describe().notes] == ([True] if said else [])


def test_filters_leave_validation_and_test_alone_and_vocabularies_see_what_is_left(folder):
    odd = {f"{split}_{language}": ["strange " * 30] for split in ("val", "test") for language in ("en", "de")}
    data = load(folder(parallel(**LONG, **odd)), max_length=8, max_ratio=1.5, max_source_length=8)
    assert sizes(data) == (20 + 1, 1, 1)
    assert len(data.encoded("test")[0]["pieces"]) == 30
    assert data.processor.source.vocabulary[2:4] == ["man", "runs"]
    assert "strange" not in data.processor.source.vocabulary
    assert "c" not in data.processor.source.vocabulary


def test_filters_leave_splits_alone_that_are_made(folder):
    files = {f"all.{language}": text([*lines, *["x " * 30] * 20]) for language, lines in LINES.items()}
    data = load(folder(files), max_length=8, split_by="sample", test_fraction=0.4)
    tests = [len(row["source"].split()) for row in data.raw("test")]
    assert len(tests) == 16
    assert max(tests) == 30
    assert max(len(row["source"].split()) for row in data.raw("train")) == 3


def test_sources_of_too_many_tokens_are_no_training_samples(folder):
    data = load(folder(parallel(**LONG)), tokenizer=TokenizerOptions(kind="characters"), max_source_length=12)
    kept = [source for source in data.raw("train")["source"] if len(source) <= 12]
    assert 0 < len(kept) < 23
    for _ in range(2):
        assert len(data.encoded("train")) == len(kept)
        data.processor = data.processor
    assert [f"{23 - len(kept)} training samples" in note for note in data.describe().notes] == [True]
    assert complaint(data.processor.encode, {"source": "x" * 13, "name": "line 3"}).startswith("line 3: expected")


def test_empty_lines_are_dropped_from_training_alone(folder):
    files = parallel(train_en=[*LINES["en"], "", "x"], train_de=[*LINES["de"], "y", "  "])
    data = load(folder(files))
    assert sizes(data) == (20, 4, 4)
    assert data.describe().notes == ["2 training samples with an empty source or target were left out"]


@pytest.mark.parametrize(("split", "name"), [("val", "val"), ("test", "test_2016_flickr")])
@pytest.mark.parametrize("language", ["en", "de"])
def test_empty_lines_elsewhere_are_refused_with_their_place(folder, split, name, language):
    files = parallel(**{f"{split}_{language}": ["a", "b", " ", "d"]})
    message = complaint(load(folder(files)).describe)
    for part in (f"{name}.en and {name}.de, line 3", language, "expected a text, got an empty one"):
        assert part in message


def test_limit_counts_what_the_filters_left(folder):
    data = load(folder(parallel(**LONG)), max_length=8, limit=10)
    assert sizes(data) == (10, 4, 4)
    assert "10 of 22" in data.describe().notes[-1]


# Splits that are made


@pytest.mark.parametrize("side", ["source", "target"])
def test_samples_of_the_same_text_stay_together(folder, side):
    rows = [f"same {place // 3}\tother {place}" for place in range(90)]
    if side == "target":
        rows = ["\t".join(reversed(row.split("\t"))) for row in rows]
    data = load(folder({"train.tsv": "en\tde\n" + text(rows)}), split_by=side)
    found = {split: set(data.raw(split)[side]) for split in SPLITS}
    assert sum(map(len, found.values())) == 30
    assert sizes(data) == (72, 9, 9)
    apart = load(folder({"train.tsv": "en\tde\n" + text(rows)}), split_by="sample")
    assert sum(len(set(apart.raw(split)[side])) for split in SPLITS) > 30


def test_a_split_may_be_a_little_larger_than_asked_but_never_all(folder):
    rows = text([f"{place // 8}\t{place}" for place in range(40)])
    assert sizes(load(folder({"train.tsv": "en\tde\n" + rows}))) == (24, 8, 8)
    rows = text([f"same\t{place}" for place in range(40)])
    assert "enough training samples" in complaint(load(folder({"train.tsv": "en\tde\n" + rows})).describe)


# Vocabularies and batches


def test_a_joint_vocabulary_is_learnt_from_both_sides_of_training(folder):
    path = folder(parallel(val_en=["zebra"] * 4))
    joint, apart = load(path, joint=True).processor, load(path).processor
    assert joint.shared
    assert not apart.shared
    assert set(joint.source.vocabulary) == set(apart.source.vocabulary) | set(apart.target.vocabulary)
    assert "zebra" not in joint.source.vocabulary
    assert joint.source.encode("Mann") == joint.target.encode("Mann") != [1]
    assert apart.source.encode("Mann") == [1]


def test_each_side_may_have_tokens_of_its_own(folder):
    data = load(folder(parallel()), target_tokenizer=TokenizerOptions(kind="characters"))
    assert (data.processor.source.split, data.processor.target.split) == ("whitespace", None)
    assert data.encoded("train")[0]["length"] == len("Mann 0 rennt") + 1
    assert isinstance(data.processor, TranslationProcessor)


def test_batches_hold_every_sample_once_in_order_of_the_longer_side(folder):
    lengths = [1 + (7 * place) % 13 for place in range(20)]
    lines = {"test_en": ["x " * length for length in lengths], "test_de": ["y " * length for length in lengths[::-1]]}
    data = load(folder(parallel(**lines)), max_tokens=40)
    longest, ids = [], Counter()
    for batch in data.test_dataloader():
        size = max(batch.source.shape[1], batch.targets.shape[1])
        assert size * len(batch.ids) <= 40
        longest.append(size)
        ids.update(batch.ids.tolist())
    assert longest == sorted(longest)
    assert ids == Counter(range(20))


# Bad input


def test_unequal_files_are_refused_with_both_counts(folder):
    path = folder(parallel(train_de=LINES["de"][:-3]))
    message = complaint(load(path).describe)
    for part in ("train.en", "train.de", "20 lines in train.en and 17 in train.de"):
        assert part in message
    path = folder(parallel(test_en=LINES["en"][:2]))
    assert "2 lines in test_2016_flickr.en and 4 in test_2016_flickr.de" in complaint(load(path).describe)


BROKEN = {
    "a missing side": ({"train.en": "a\n"}, {}, "train.de beside it, got none"),
    "no training data": (
        {"test.en": "a\n", "test.de": "b\n"},
        {},
        "data in en and de, got files test.de, test.en",
    ),
    "a name that is not there": (parallel(), {"test": "test_2017"}, "did you mean 'test_2016_flickr'"),
    "an empty file": ({"train.en": "", "train.de": ""}, {}, "an empty file"),
    "no such languages": ({"train.tsv": HEADED}, {"target": "fr"}, "a column among 'id', 'en', 'de', got 'fr'"),
    "no header": ({"train.tsv": "Go.\tGeh.\n"}, {}, "--data.file_columns"),
    "bytes that are no text": ({"train.en": "a\n", "train.de": b"\xff\n"}, {}, "train.de, line 1"),
    "a number": ({"train.jsonl": '{"en": 3, "de": "x"}\n'}, {}, "line 1, 'en': expected a text, got 3"),
    "a list of sources": ({"train.jsonl": '{"en": ["a"], "de": "x"}\n'}, {}, "line 1: expected a text"),
    "a list after a text": ({"train.jsonl": '{"en": "a", "de": "x"}\n{"en": "a", "de": ["x"]}\n'}, {}, "line 2"),
    "all filtered": (parallel(), {"min_length": 9}, "at least one sample, got none"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_bad_files_are_refused(folder, kind):
    files, options, part = BROKEN[kind]
    if kind == "no header":
        files = {"train.tsv": text(["Go.\tGeh."] * 3)}
    assert part in complaint(load(folder(files), **options).describe)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"source": None}, "two languages"),
        ({"source": "de"}, "two languages"),
        ({"joint": True, "target_tokenizer": WORDS}, "one tokenizer"),
        ({"length_unit": "word"}, "did you mean 'words'"),
        ({"split_by": "sources"}, "did you mean 'source'"),
        ({"min_length": 0}, "at least 1"),
        ({"max_ratio": 0.5}, "at least 1"),
        ({"max_source_length": 0}, "at least 1"),
        ({"min_length": 5, "max_length": 4}, "at least min_length, 5"),
    ],
)
def test_bad_options_are_refused(options, part):
    assert part in complaint(load, "nowhere", **options)


def test_a_folder_that_is_not_there_is_none_of_pairs(tmp_path):
    assert find_pairs(str(tmp_path / "none"), ("en", "de"), named={}) is None
    assert "a folder that can be read" in complaint(load(str(tmp_path / "none")).describe)
