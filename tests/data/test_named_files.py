"""Nothing is read twice, what is pooled is said, and named test sets are measured one by one and together."""

from __future__ import annotations

import json

import pytest
import yaml

from rnnzoo.cli.main import main
from rnnzoo.data import (
    CaptionData,
    FrameData,
    LanguageData,
    TaggingData,
    TextClassificationData,
    TranslationData,
    VectorData,
)
from rnnzoo.data.named_files import name_test_sets
from rnnzoo.errors import InputError

# Data module → its options, ending of files, and the contents of a file with n samples.
KINDS = {
    TextClassificationData: ({}, "csv", lambda n: "text,label\n" + "".join(f"w{k},{'ab'[k % 2]}\n" for k in range(n))),
    TaggingData: ({}, "conll", lambda n: "".join(f"w{k}\tA\n\n" for k in range(n))),
    VectorData: ({}, "csv", lambda n: "x,label\n" + "".join(f"{k / 7:.3f},{'ab'[k % 2]}\n" for k in range(n))),
    FrameData: ({"sequence": "v"}, "csv", lambda n: "v,x,labels\n" + "".join(f"{n}-{k},0.5,a\n" for k in range(n))),
    LanguageData: ({"documents": "line"}, "txt", lambda n: "".join(f"word{k}\n" for k in range(n))),
    TranslationData: (
        {"source": "en", "target": "de"}, "tsv", lambda n: "en\tde\n" + "".join(f"a{k}\tb{k}\n" for k in range(n)),
    ),
    CaptionData: ({}, "csv", lambda n: "image,caption\n" + "".join(f"{n}-{k}.npy,a b\n" for k in range(n))),
}  # fmt: skip


def module(kind, folder, sizes, **options):
    """Return a data module over files of the given numbers of samples, by name without ending."""
    own, ending, contents = KINDS[kind]
    path = folder({f"{name}.{ending}": contents(size) for name, size in sizes.items()})
    if kind is CaptionData:
        import numpy as np

        for size in sizes.values():
            for k in range(size):
                np.save(f"{path}/{size}-{k}.npy", np.zeros((2, 3), dtype=np.float32))
    named = {"train": "train", "validation": "dev", **options}
    if isinstance(named["test"], dict):
        named["test"] = {name: f"{file}.{ending}" for name, file in named["test"].items()}
    else:
        named["test"] = ",".join(f"{file}.{ending}" for file in named["test"].split(","))
    named |= {split: f"{named[split]}.{ending}" for split in ("train", "validation")}
    return kind(path=path, **own, **named)


SIZES = {"train": 20, "dev": 4, "one": 2, "two": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_named_twice_is_refused(folder, kind):
    for test in ("one,one", {"a": "one", "b": "one"}, "one,two,./one"):
        with pytest.raises(InputError, match=r"data\.test: expected each file once, got one\.\w+ twice"):
            module(kind, folder, SIZES, test=test).describe()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not CaptionData])
def test_samples_that_two_splits_share_are_said(folder, kind):
    data = module(kind, folder, SIZES, test="train")
    assert any(
        note.startswith("train and test share their samples: train.") and note.endswith(" is in both")
        for note in data.describe().notes
    )
    data = module(kind, folder, {**SIZES, "copy": 4}, test="copy")
    assert any(note.startswith("validation and test share their samples: ") for note in data.describe().notes)
    data = module(kind, folder, {**SIZES, "copy": 2}, test="one,copy")
    assert any(note.startswith("test: each of its samples counts twice: one") for note in data.describe().notes)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_pooled_is_said_unless_it_is_named(folder, kind):
    data = module(kind, folder, SIZES, test="one,two")
    (note,) = [note for note in data.describe().notes if "measured together" in note]
    assert note.startswith("test: 2 files are measured together: one.")
    assert data.describe().split_sizes == {"train": 20, "validation": 4, "test": 5}
    data = module(kind, folder, SIZES, test={"first": "one", "2nd": "two"})
    assert data.describe().split_sizes == {
        "train": 20, "validation": 4, "test": 5, "test/first": 2, "test/2nd": 3,
    }  # fmt: skip
    assert not any("measured together" in note for note in data.describe().notes)
    pooled = list(data.raw("test"))
    assert pooled == [*data.raw("test/first"), *data.raw("test/2nd")]
    assert pooled == list(module(kind, folder, SIZES, test="one,two").raw("test"))


def test_test_sets_that_lie_in_a_folder_are_said_to_be_pooled(folder):
    text = "text,label\n" + "".join(f"w{k},{'ab'[k % 2]}\n" for k in range(9))
    files = {"train.csv": text, "dev.csv": text[:-5], "test_2016.csv": text[:-10], "test_2017.csv": text[:-15]}
    data = TextClassificationData(path=folder(files))
    assert [note for note in data.describe().notes if "together" in note] == [
        "test: 2 files are measured together: test_2016.csv, test_2017.csv (--data.test NAME=FILE,NAME=FILE measures "
        "each by itself, too)"
    ]
    data = TextClassificationData(path=folder(files), test="2016=test_2016.csv")
    assert list(data.describe().split_sizes)[2:] == ["test", "test/2016"]
    assert len(data.raw("test")) == len(data.raw("test/2016")) == 7
    files = {"pos.test.txt": "a\nb\n", "neg.test.txt": "c\n", "pos.train.txt": "a\nd\n" * 9}
    data = TextClassificationData(path=folder(files, "classes"), class_per_file=True)
    assert not any("together" in note for note in data.describe().notes)
    rows = "x,labels\n0.5,a\n0.25,b\n"
    files = {"train_1.csv": rows, "test_1.csv": rows + "1.5,a\n", "test_2.csv": rows + "2.5,a\n"}
    data = FrameData(path=folder({**files, "dev.csv": rows + "9.5,a\n"}, "frames"))
    assert not any("together" in note for note in data.describe().notes)


PAIRS = {
    f"{name}.{language}": "".join(f"{language} {name} {k}\n" for k in range(size))
    for name, size in (("train", 20), ("val", 4), ("test16", 2), ("test17", 3))
    for language in ("en", "de")
}


@pytest.mark.parametrize("test", ["test16.de,test16.en", "test16.en,test16.de", "test16", "test16.en"])
def test_both_sides_of_a_parallel_corpus_are_one_corpus(folder, test):
    data = TranslationData(path=folder(PAIRS), source="en", target="de", test=test)
    assert data.describe().split_sizes == {"train": 20, "validation": 4, "test": 2}
    assert list(data.raw("test")["source"]) == ["en test16 0", "en test16 1"]
    data = TranslationData(path=folder(PAIRS), source="en", target="de", test=f"{test},test17")
    assert data.describe().split_sizes["test"] == 5
    named = ",".join([*(f"old={name}" for name in test.split(",")), "new=test17.de"])
    data = TranslationData(path=folder(PAIRS), source="en", target="de", test=named)
    assert {name: size for name, size in data.describe().split_sizes.items() if "test" in name} == {
        "test": 5, "test/old": 2, "test/new": 3,
    }  # fmt: skip


def test_a_corpus_that_is_named_twice_is_refused(folder):
    path = folder(PAIRS)
    for test in ("test16,test16", "test16.en,test16.en", "test16,test16.en", "a=test16.en,b=test16.de"):
        with pytest.raises(InputError, match=r"data\.test: expected each file once"):
            TranslationData(path=path, source="en", target="de", test=test).describe()
    path = folder({**PAIRS, "train.en.gz": "x\n"}, "twins")
    with pytest.raises(InputError, match=r"expected each file once, got train\.en and train\.en\.gz"):
        TranslationData(path=path, source="en", target="de").describe()


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ("a=one.csv,two.csv", "a name for each test set, or for none"),
        ("a b=one.csv", "test sets as NAME=FILE"),
        ({"a/b": "one.csv"}, "test sets as NAME=FILE"),
        ({"a": ""}, "test sets as NAME=FILE"),
        ("a=three.csv", "data.test: expected one of"),
    ],
)
def test_names_of_test_sets_that_are_none(folder, test, words):
    path = folder(
        {"train.csv": "text,label\na,b\nc,d\n", "one.csv": "text,label\na,b\n", "two.csv": "text,label\nb,b\n"}
    )
    with pytest.raises(InputError, match=words):
        TextClassificationData(path=path, test=test).describe()


@pytest.mark.parametrize("source", [{"hub": "some/data"}, {"synthetic": "topic_chains"}, {}])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_files_of_data_that_are_not_files_are_refused(source, split):
    with pytest.raises(InputError, match=rf"data\.{split} a\.csv: expected data\.path beside it"):
        TextClassificationData(**source, **{split: "a.csv"}).describe()


def test_a_file_whose_name_has_an_equals_sign(tmp_path):
    (tmp_path / "year=2020.csv").write_text("x")
    assert name_test_sets("year=2020.csv", tmp_path) == {"test": "year=2020.csv"}
    assert name_test_sets("a=year=2020.csv", tmp_path) == {"test": None, "test/a": "year=2020.csv"}


@pytest.mark.filterwarnings("ignore")  # Lightning warns of small data
def test_fit_and_test_report_each_test_set(folder, tmp_path, capsys):
    """A set that the model gets all right, one that it gets all wrong, and both together."""
    rows = "".join(f"{k % 5}.5,{'ab'[k % 5 > 2]}\n" for k in range(60))
    wrong = "".join(f"{k % 5}.5,{'ba'[k % 5 > 2]}\n" for k in range(20))
    files = {"train": rows, "dev": rows[:90], "right": rows[:180], "wrong": wrong, "third": rows[:120]}
    path = folder({f"{name}.csv": f"x,label\n{text}" for name, text in files.items()})
    sets = "2016=right.csv,wrong=wrong.csv"
    base = ["fit", "one_to_one/gaussians", "--data.path", path, "--trainer.accelerator=cpu", "--trainer.max_epochs=30"]
    base += ["--model.optimizer", "torch.optim.Adam", "--model.optimizer.lr", "0.05", "--data.train=train.csv"]
    assert main([*base, "--data.test", sets, "--run_dir", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert list(report["metrics"]) == ["validation", "test", "test/2016", "test/wrong"]
    right, wrong_size = files["right"].count("\n"), 20
    expected = {"test": 100 * right / (right + wrong_size), "test/2016": 100.0, "test/wrong": 0.0}
    found = {split: report["metrics"][split]["accuracy"]["value"] for split in expected}
    assert found == pytest.approx(expected)
    assert report["metrics"]["test/2016"]["accuracy"]["definition"]
    assert report["data"]["split_sizes"]["test/wrong"] == wrong_size
    output = tmp_path / "measured.json"
    assert main(["test", str(tmp_path / "run"), "--output", str(output), "--trainer.accelerator=cpu"]) == 0
    measured = json.loads(output.read_text())["metrics"]
    assert {split: entry["accuracy"]["value"] for split, entry in measured.items()} == pytest.approx(expected)
    capsys.readouterr()
    options = ["--data.test", "x=third.csv,y=wrong.csv", "--trainer.accelerator=cpu"]
    assert main(["test", str(tmp_path / "run"), "--data.path", path, *options]) == 0
    header = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("metric"))
    assert header.split() == ["metric", "test", "test/x", "test/y"]


def test_test_sets_may_be_given_as_a_mapping(tmp_path, capsys):
    sets = {"2016": "a.csv", "new": "b.csv,c.csv"}
    (tmp_path / "sets.yaml").write_text("data: {init_args: {test: {2016: a.csv, new: 'b.csv,c.csv'}}}")
    for given in (["--data.test", json.dumps(sets)], ["--config", str(tmp_path / "sets.yaml")]):
        with pytest.raises(SystemExit):
            main(["fit", "one_to_one/gaussians", *given, "--print_config"])
        test = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["test"]
        assert name_test_sets(test, tmp_path) == {"test": None, "test/2016": "a.csv", "test/new": "b.csv,c.csv"}
