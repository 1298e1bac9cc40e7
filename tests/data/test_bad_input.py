"""Bad data: each gives one `InputError` of one line that names the file, the line and the column as fits."""

from __future__ import annotations

import gzip
import lzma

import datasets
import pytest

from rnnzoo.data import FrameData, TaggingData, TextClassificationData, VectorData
from rnnzoo.errors import InputError
from rnnzoo.text.tokenizer import TokenizerOptions

GOOD = "text,label\ngood,1\nbad,0\nfine,1\n"
FRAMES = "x,y,labels\n"


def whole(kind, path, **options):
    """Read and encode all splits."""
    data = kind(path=path, **options)
    for split in ("train", "validation", "test"):
        data.encoded(split)
    return data


def complaint(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "expected" in text
    assert ", got " in text
    return text


FILES = {  # what is wrong → data module, options, file, content, what the message says
    "an empty file": (TextClassificationData, {}, "train.csv", b"", ["an empty file"]),
    "a table without rows": (TextClassificationData, {}, "train.csv", "text,label\n", ["samples in the format csv"]),
    "lines without text": (TextClassificationData, {"class_per_file": True}, "a.txt", " \n\n", ["samples", "text"]),
    "no sentences": (TaggingData, {}, "train.conll", "-DOCSTART- O\n\n", ["samples in the format conll"]),
    "a header of other names than it should not have": (
        TextClassificationData,
        {"file_columns": ["text", "label"]},
        "train.csv",
        "Label,sentence\n1,good\n",
        ["line 1", "the header Label, sentence", "null --data.columns.text sentence --data.columns.label Label"],
    ),
    "a column of a table that should have no header": (
        TextClassificationData,
        {"file_columns": ["text", "label"], "columns": {"text": "sentence"}},
        "train.csv",
        "sentence,polarity\ngood,1\n",
        ["data.columns.text", "one of text, label", "--data.file_columns null"],
    ),
    "an empty text": (TextClassificationData, {}, "train.csv", GOOD + " ,1\n", ["line 5", "a text", "empty"]),
    "a null text": (
        TextClassificationData,
        {},
        "train.jsonl",
        '{"text": "a", "label": "x"}\n{"text": null, "label": "x"}\n',
        ["line 2", "a text"],
    ),
    "words without tags": (TaggingData, {}, "train.conll", "a\nb\n", ["line 1", "data.columns.tags", "tokens"]),
    "a null among labels": (
        TextClassificationData,
        {"multi_label": True},
        "train.jsonl",
        '{"text": "a", "label": ["x", null]}\n',
        ["line 1", "a list of labels"],
    ),
    "a null among words": (
        TaggingData,
        {},
        "train.jsonl",
        '{"tokens": ["a", null], "tags": ["X", "X"]}\n',
        ["line 1", "null among"],
    ),
    "another column": (
        TextClassificationData,
        {},
        "train.csv",
        "text,labl\na,1\n",
        ["data.columns.label", "line 2", "text, labl", "did you mean 'labl'?"],
    ),
    "a column that the data lack": (
        TextClassificationData,
        {"columns": {"text": "review"}},
        "train.csv",
        GOOD,
        ["data.columns.text", "'review'"],
    ),
    "a column that one row lacks": (
        TextClassificationData,
        {},
        "train.jsonl",
        '{"text": "a", "label": "x"}\n{"label": "x"}\n',
        ["line 2", "data.columns.text"],
    ),
    "more tags than tokens": (
        TaggingData,
        {},
        "train.jsonl",
        '{"tokens": ["a"], "tags": ["X"]}\n{"tokens": ["a", "b"], "tags": ["X", "X", "X"]}\n',
        ["line 2", "as many tags as tokens, 2", "3 tags"],
    ),
    "fewer tags than tokens in a table": (
        TaggingData,
        {},
        "train.csv",
        "tokens,tags\na b,X\n",
        ["line 2", "as many tags as tokens, 2", "1 tags"],
    ),
    "an empty sentence": (TaggingData, {}, "train.jsonl", '{"tokens": [], "tags": []}\n', ["line 1", "a sentence"]),
    "words that are a number": (TaggingData, {}, "train.jsonl", '{"tokens": 5, "tags": ["X"]}\n', ["line 1", "words"]),
    "words without tags in columns": (TaggingData, {}, "train.conll", "a\nb\n", ["line 1", "data.columns.tags"]),
    "a column short in CoNLL": (TaggingData, {}, "train.conll", "a X\nb X\nc\n", ["line 3", "2 columns", "got 1"]),
    "columns short in CoNLL-U": (
        TaggingData,
        {"columns": {"tags": "upos"}},
        "train.conllu",
        "# x\n1\ta\tb\n",
        ["line 2", "10 columns", "got 3"],
    ),
    "an unknown column of CoNLL-U": (
        TaggingData,
        {"columns": {"tags": "upso"}},
        "train.conllu",
        "1\t" + "\t".join("_" * 9) + "\n",
        ["line 1", "data.columns.tags", "did you mean 'upos'?"],
    ),
    "NaN in frames": (FrameData, {}, "train.csv", FRAMES + "1,2,a\n1,nan,a\n", ["line 3", "column 'y'", "finite"]),
    "NaN in the first frame": (FrameData, {}, "train.csv", FRAMES + "1,nan,a\n1,2,a\n", ["line 2", "'y'"]),
    "infinity in frames": (FrameData, {}, "train.csv", FRAMES + "1,2,a\ninf,2,a\n", ["line 3", "column 'x'", "finite"]),
    "a gap in frames": (FrameData, {}, "train.csv", FRAMES + "1,2,a\n,2,a\n", ["line 3", "column 'x'", "finite"]),
    "NaN in JSON frames": (
        FrameData,
        {},
        "train.jsonl",
        '{"x": 1, "labels": "a"}\n{"x": NaN, "labels": "a"}\n',
        ["line 2", "column 'x'", "finite"],
    ),
    "null in JSON frames": (
        FrameData,
        {},
        "train.jsonl",
        '{"x": 1, "labels": "a"}\n{"x": null, "labels": "a"}\n',
        ["line 2", "column 'x'", "finite"],
    ),
    "infinity among targets": (
        FrameData,
        {"targets": ["y"]},
        "train.csv",
        "x,y\n1,2\n1,inf\n",
        ["line 3", "column 'y'", "finite"],
    ),
    "NaN in vectors": (VectorData, {}, "train.csv", "x,label\n1,a\nnan,a\n", ["line 3", "column 'x'", "finite"]),
    "a word among numbers": (VectorData, {}, "train.csv", "x,label\n1,a\nfive,a\n", ["line 3", "column 'x'", "'five'"]),
    "no column of numbers": (VectorData, {}, "train.csv", "x,label\nred,a\nblue,b\n", ["train.csv"]),
    "no column of numbers in frames": (FrameData, {}, "train.csv", "x,labels\nred,a\nblue,b\n", ["train.csv"]),
    "an unknown feature": (
        VectorData,
        {"features": ["widht"]},
        "train.csv",
        "width,label\n1,a\n",
        ["line 2", "'widht'", "did you mean 'width'?"],
    ),
    "an unknown target": (FrameData, {"targets": ["z"]}, "train.csv", FRAMES + "1,2,a\n", ["line 2", "'z'"]),
    "an unknown label column": (
        FrameData,
        {},
        "train.csv",
        "x,label\n1,a\n",
        ["header", "--data.columns.labels label"],
    ),
    "an unknown sequence column": (
        FrameData,
        {"sequence": "who"},
        "train.csv",
        FRAMES + "1,2,a\n",
        ["line 2", "'who'"],
    ),
    "broken UTF-8": (
        TextClassificationData,
        {},
        "train.csv",
        GOOD.encode() + b"b\xe4d,0\n",
        ["line 5", "utf-8", "0xe4 at position 2"],
    ),
    "UTF-16": (
        TextClassificationData,
        {},
        "train.csv",
        GOOD.encode("utf-16"),
        ["line 1", "utf-8", "0xff at position 1"],
    ),
    "a ragged row": (TextClassificationData, {}, "train.csv", GOOD + "odd\n", ["line 5", "2 fields: text, label"]),
    "an open quotation mark": (TextClassificationData, {}, "train.csv", GOOD + '"odd,1\nbad,0\n', ["line"]),
    "broken JSON": (
        TextClassificationData,
        {},
        "train.jsonl",
        '{"text": "a", "label": "x"}\n{"text": "a"\n',
        ["line 2", "JSON"],
    ),
    "JSON that is a list": (TextClassificationData, {}, "train.jsonl", '["a", "x"]\n', ["line 1", "a JSON object"]),
    "no Parquet": (TextClassificationData, {}, "train.parquet", GOOD, ["a Parquet file"]),
    "half a gz": (
        TextClassificationData,
        {},
        "train.csv.gz",
        gzip.compress(("text,label\n" + "".join(f"w{n * n},1\n" for n in range(900))).encode(), mtime=0)[:900],
        ["a file that can be read"],
    ),
    "half an xz": (
        TextClassificationData,
        {},
        "train.csv.xz",
        lzma.compress(("text,label\n" + "".join(f"w{n * n},1\n" for n in range(900))).encode())[:900],
        ["a file that can be read"],
    ),
    "no gz": (TextClassificationData, {}, "train.csv.gz", GOOD.encode(), ["a file that can be read"]),
}


@pytest.mark.parametrize("wrong", FILES)
def test_bad_files_name_file_line_and_column(folder, wrong):
    kind, options, name, content, expected = FILES[wrong]
    path = folder({name: content})
    text = complaint(whole, kind, path, **options)
    for part in [f"{path}/{name}", *expected]:
        assert part in text
    assert complaint(whole, kind, path, **options) == text, "a half-made cache is left"


def test_the_file_that_is_bad_is_named_among_others(folder):
    files = {"train-1.csv": GOOD, "train-2.csv": GOOD + "odd\n", "test.csv": GOOD}
    assert "train-2.csv, line 5" in complaint(whole, TextClassificationData, folder(files))
    files = {"train-2.csv": GOOD, "test.csv": "text,label\n ,1\n"}
    assert "test.csv, line 2" in complaint(whole, TextClassificationData, folder(files))


def test_an_empty_file_among_others_is_named(folder):
    files = {"train.csv": GOOD, "test.csv": ""}
    assert "test.csv" in complaint(whole, TextClassificationData, folder(files))


def test_a_mended_file_is_read(folder):
    complaint(whole, TextClassificationData, folder({"train.csv": GOOD + "odd\n"}))
    data = whole(TextClassificationData, folder({"train.csv": GOOD + "odd,1\n"}))
    assert sum(data.describe().split_sizes.values()) == 4


def test_labels_and_words_that_training_never_saw_are_no_error(folder):
    files = {"train.csv": GOOD, "dev.csv": "text,label\nnew,9\n", "test.csv": "text,label\nnew words,7\n"}
    data = whole(TextClassificationData, folder(files))
    assert len(data.encoded("test")) == 1
    files = {"train.conll": "a B-X\n", "dev.conll": "b B-Y\n", "test.conll": "ü I-Z\n"}
    for scheme in (None, "bio", "bioes"):
        whole(TaggingData, folder(files, "tags"), scheme=scheme)


# Hub


def test_bad_rows_of_the_hub_name_the_split_and_the_row(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"text": ["x", "y", "z"], "label": [0, 1, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "train.parquet"))
    rows = {"text": ["x", ""], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "test.parquet"))
    text = complaint(lambda: TextClassificationData(hub=str(tmp_path)).raw("test"))
    assert f"{tmp_path} test, row 1: expected a text" in text


def test_an_unknown_column_of_the_hub(tmp_path):
    datasets.Dataset.from_dict({"sentence": ["x"], "label": ["a"]}).to_parquet(str(tmp_path / "train.parquet"))
    text = complaint(lambda: TextClassificationData(hub=str(tmp_path)).raw("test"))
    assert "train, row 0: data.columns.text: expected one of sentence, label" in text


# Options


OPTIONS = {  # what is wrong → data module, options, what the message says
    "no source": (TextClassificationData, {"path": None}, ["data.path, data.hub or data.synthetic"]),
    "a missing folder": (TextClassificationData, {"path": "/no/such/folder"}, ["data.path /no/such/folder"]),
    "a missing file": (TextClassificationData, {"train": "trian.csv"}, ["data.train", "did you mean 'train.csv'?"]),
    "an unknown format": (TextClassificationData, {"format": "cvs"}, ["data.format", "did you mean 'csv'?"]),
    "a format of another module": (FrameData, {"format": "conll"}, ["data.format"]),
    "an unknown name of a column": (
        TextClassificationData,
        {"columns": {"labels": "x"}},
        ["data.columns", "did you mean 'label'?"],
    ),
    "a share of nothing": (TextClassificationData, {"validation_fraction": 0.0}, ["data.validation_fraction", "0.0"]),
    "too large a share": (TextClassificationData, {"test_fraction": 0.5}, ["data.test_fraction", "0.5"]),
    "an unknown scheme": (TaggingData, {"scheme": "bilou"}, ["data.scheme", "'bilou'"]),
    "a window of nothing": (FrameData, {"window_size": 0}, ["data.window_size", "at least 1"]),
    "a stride of nothing": (FrameData, {"window_size": 2, "window_stride": 0}, ["data.window_stride", "at least 1"]),
    "an unknown task": (
        TextClassificationData,
        {"path": None, "synthetic": "topic_chain"},
        ["topic_chain", "did you mean 'topic_chains'?"],
    ),
    "a task of another kind": (
        TextClassificationData,
        {"path": None, "synthetic": "adding"},
        ["data.synthetic", "text and label", "frames and labels"],
    ),
    "an unknown tokenizer": (
        TextClassificationData,
        {"tokenizer": TokenizerOptions(kind="word")},
        ["tokenizer.kind", "did you mean 'words'?"],
    ),
    "no samples to train on": (TextClassificationData, {"limit": 0}, ["data.limit", "at least 1"]),
}


@pytest.mark.parametrize("wrong", OPTIONS)
def test_bad_options_are_named(folder, wrong):
    kind, options, expected = OPTIONS[wrong]
    text = complaint(lambda: whole(kind, **{"path": folder({"train.csv": GOOD}), **options}))
    for part in expected:
        assert part in text


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_tokens": 0}, {"batch_size": -1}], ids=str)
def test_a_batch_of_nothing(folder, options):
    (name,) = options
    assert f"data.{name}" in complaint(lambda: TextClassificationData(path=folder({"train.csv": GOOD}), **options))


def test_an_unknown_split_gets_the_list_and_a_hint(folder):
    data = TextClassificationData(path=folder({"train.csv": GOOD}))
    text = complaint(data.raw, "tset")
    assert "test, train, validation" in text
    assert "did you mean 'test'?" in text


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_samples_to_make_a_split(folder, rows):
    content = "text,label\n" + "a,1\n" * rows
    text = complaint(whole, TextClassificationData, folder({"train.csv": content}))
    assert "enough training samples" in text
    assert "--data." in text
