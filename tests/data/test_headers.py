"""A header is never a sample, and a sample never a header: in all tables, with and without names of columns."""

from __future__ import annotations

import re

import pytest

from rnnzoo.cli.main import main
from rnnzoo.data import (
    FrameData,
    LanguageData,
    TaggingData,
    TextClassificationData,
    TranslationData,
    VectorData,
)
from rnnzoo.errors import InputError

WORDS = ["the", "film", "was", "very", "slow", "but", "I", "liked", "it"]
# Data module → its options, names of columns, rows, headers that mean the same.
KINDS = {
    TextClassificationData: (
        {},
        ["text", "label"],
        [[f"{' '.join(WORDS[: 4 + k % 5])} {k}", ("pos", "neg")[k % 2]] for k in range(20)],
        ["review\tsentiment", "Sentence\tClass", "CONTENT\tcategory", "text\tpolarity", "film_text\tverdict"],
    ),
    TaggingData: (
        {},
        ["tokens", "tags"],
        [[" ".join(WORDS[: 2 + k % 7]), " ".join(["A", "B"][k % 2] for _ in range(2 + k % 7))] for k in range(20)],
        ["words\tpos", "Sentence\tTags", "tokens\tner_tags"],
    ),
    TranslationData: (
        {"source": "en", "target": "de"},
        ["en", "de"],
        [[f"we see {k} dogs.", f"wir sehen {k} Hunde."] for k in range(20)],
        ["English\tGerman", "source\ttarget", "src\ttgt", "EN\tDE"],
    ),
    LanguageData: ({}, ["text"], [[f"a text, it has the number {k}."] for k in range(20)], ["content", "Sentence"]),
    VectorData: (
        {},
        ["x", "y", "label"],
        [[f"{k % 7}.5", f"{k % 3}", "ab"[k % 2]] for k in range(20)],
        ["width\theight\tclass", "V1\tV2\tTarget", "width\theight\tspecies"],
    ),
    FrameData: (
        {},
        ["x", "y", "labels"],
        [[f"{k % 7}.5", f"{k % 3}", "ab"[k % 2]] for k in range(20)],
        ["width\theight\tphase", "V1\tV2\tlabel", "width\theight\tspecies"],
    ),
}  # fmt: skip
LONG_ROWS = [f"a film {k} that is long.,{('great', 'bad')[k % 2]}" for k in range(20)]
CASES = [(kind, header) for kind, (*_, headers) in KINDS.items() for header in headers]


def write(folder, rows, format, inside="."):
    """Write a table as all three splits."""
    if format == "csv":
        lines = [",".join(f'"{field}"' if "," in field else field for field in row) for row in rows]
    else:
        lines = ["\t".join(row) for row in rows]
    text = "".join(line + "\n" for line in lines)
    return folder({f"{split}.{format}": text for split in ("train", "validation", "test")}, inside)


def contents(data):
    """Return the raw training samples, but for where they are from."""
    return [{name: value for name, value in row.items() if name != "name"} for row in data.raw("train")]


def header_notes(data):
    return [note for note in data.describe().notes if "taken for a header" in note]


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize(("kind", "header"), CASES)
def test_a_header_beside_names_of_columns_is_no_sample(folder, kind, header, format):
    options, names, rows, _ = KINDS[kind]
    bare = kind(path=write(folder, rows, format, "bare"), file_columns=names, **options)
    assert header_notes(bare) == []
    expected = contents(bare)
    data = kind(path=write(folder, [header.split("\t"), *rows], format, "named"), file_columns=names, **options)
    assert contents(data) == expected
    same = header.lower().split("\t") == names
    assert len(header_notes(data)) == (0 if same else 1)
    assert same or f"({', '.join(header.split(chr(9)))}) was taken for a header" in header_notes(data)[0]


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_a_header_is_refused_with_names_that_read_it_whole(folder, kind, format):
    options, names, rows, _ = KINDS[kind]
    path = write(folder, rows, format)
    with pytest.raises(InputError) as caught:
        kind(path=path, **options).describe()
    message = str(caught.value)
    assert f"train.{format}, line 1: expected a header" in message
    advised = re.search(r'--data.file_columns "\[(.*)\]"$', message)[1].split(", ")
    assert contents(kind(path=path, file_columns=advised, **options)) == contents(
        kind(path=path, file_columns=names, **options)
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_file_without_a_header_among_others(folder, split):
    rows = "".join(f"a film {k},{'ab'[k % 2]}\n" for k in range(9))
    files = {
        f"{name}.csv": ("" if name == split else "text,label\n") + rows for name in ("train", "validation", "test")
    }
    with pytest.raises(InputError, match=rf"{split}\.csv, line 1: expected a header"):
        TextClassificationData(path=folder(files)).describe()


@pytest.mark.parametrize("kind", [TextClassificationData, TaggingData, VectorData, FrameData])
@pytest.mark.parametrize("index", [0, 1])
def test_usual_names_of_columns_are_refused_with_the_options_to_give(folder, kind, index):
    options, _, rows, headers = KINDS[kind]
    path = write(folder, [headers[index].split("\t"), *rows], "csv")
    with pytest.raises(InputError) as caught:
        kind(path=path, **options).describe()
    advised = re.findall(r"--data\.columns\.(\w+) (\w+)", str(caught.value))
    assert len(contents(kind(path=path, columns=dict(advised), **options))) > 0


@pytest.mark.parametrize(
    ("header", "names", "advice"),
    [
        ("sentiment,review", ["text", "label"], "--data.columns.text review --data.columns.label sentiment"),
        ("id,review,sentiment", ["text", "label"], "--data.columns.text review --data.columns.label sentiment"),
        ("Label,Text", ["text", "label"], "--data.columns.text Text --data.columns.label Label"),
    ],
)
def test_a_header_in_another_order_or_width_is_refused(folder, header, names, advice):
    width = header.count(",")
    row = ",".join([*["1"] * (width - 1), "pos", "a film"])
    path = folder({"train.csv": f"{header}\n" + f"{row}\n" * 9})
    with pytest.raises(InputError, match=re.escape(f"--data.file_columns null {advice}")):
        TextClassificationData(path=path, file_columns=names).describe()


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        # The only name of its class, among names that all look alike.
        (["Ang,Vietnamese", *(f"Name{k}x,{('Irish', 'Czech')[k % 2]}" for k in range(20))], ["text", "label"]),
        # Every label is of its own.
        ([f"Title{k} of a film.,Class{k}" for k in range(20)], ["text", "label"]),
        # The first label comes again.
        (["Superb,great", *LONG_ROWS], ["text", "label"]),
        # Too few rows to tell.
        (["Superb,great", "a film. a bad one,bad", "a film. not good,bad"], ["text", "label"]),
        # A text that is a usual name.
        (["Review,bad", *LONG_ROWS], ["text", "label"]),
    ],
)  # fmt: skip
def test_samples_that_look_like_headers_stay(folder, rows, names):
    text = "".join(row + "\n" for row in rows)
    data = TextClassificationData(
        path=folder({f"{name}.csv": text for name in ("train", "dev", "test")}), file_columns=names
    )
    assert len(data.raw("train")) == len(rows)
    assert header_notes(data) == []


def test_the_first_pair_of_a_translation_stays(folder):
    text = "hello\thallo\n" + "".join(f"we see {k} dogs.\twir sehen {k} Hunde.\n" for k in range(20))
    path = folder({f"{name}.tsv": text for name in ("train", "dev", "test")})
    data = TranslationData(path=path, source="en", target="de", file_columns=["en", "de"])
    assert data.raw("train")[0] == {"source": "hello", "target": "hallo"}


@pytest.mark.parametrize("names", [None, ["tokens", "chunk", "tags"]])
@pytest.mark.parametrize("gap", ["", "\n"])
@pytest.mark.parametrize("mark", ["\t", " "])
def test_the_header_of_columns_of_words_is_no_word(folder, names, gap, mark):
    lines = "".join(
        f"{word}{mark}c{mark}{'XY'[k % 2]}\n" + ("\n" if k % 3 == 2 else "") for k, word in enumerate(WORDS)
    )
    header = mark.join(["Word", "Chunk", "NER"]) + "\n" + gap
    bare = folder({f"{split}.conll": lines for split in ("train", "dev", "test")}, "bare")
    path = folder({f"{split}.conll": header + lines for split in ("train", "dev", "test")}, "named")
    data = TaggingData(path=path, file_columns=names)
    assert contents(data) == contents(TaggingData(path=bare, file_columns=names))
    (note,) = header_notes(data)
    assert "train.conll, dev.conll, test.conll (Word, Chunk, NER)" in note
    word = folder({f"{split}.conll": f"Word{mark}c{mark}X\n{lines}" for split in ("train", "dev", "test")}, "word")
    assert contents(TaggingData(path=word, file_columns=names))[0]["tokens"][0] == "Word"


@pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
def test_a_recipe_that_names_columns_reads_a_file_with_a_header(folder, capsys):
    """`rnnzoo fit many_to_one/sst2 --data.path kaggle.csv`: 40 samples, and a note on the header."""
    rows = "".join(f"{' '.join(WORDS[: 1 + k % 7])} {k},{('positive', 'negative')[k % 2]}\n" for k in range(40))
    path = folder({"kaggle.csv": "review,sentiment\n" + rows})
    options = ["--data.path", f"{path}/kaggle.csv", "--trainer.fast_dev_run", "true", "--trainer.accelerator=cpu"]
    assert main(["fit", "many_to_one/sst2", *options]) == 0
    out = capsys.readouterr().out
    assert "(32 train, 4 validation, 4 test)" in out
    assert "note: the first row of kaggle.csv (review, sentiment) was taken for a header and is no sample" in out


def test_prediction_of_a_table_without_a_header_says_so(folder):
    from rnnzoo.data.streams import read_samples

    with pytest.raises(InputError, match="the first row must name the columns, and looks like a sample"):
        list(read_samples([b"a film,1\n", b"b,0\n"], kind="text_classification", format="csv", where="x.csv"))
    with pytest.raises(InputError, match="the first row must name the columns"):
        list(read_samples([b"1,2\n", b"3,4\n"], kind="vectors", format="csv", features=["x", "y"], where="x.csv"))
