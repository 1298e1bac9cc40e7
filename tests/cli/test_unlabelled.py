"""From training data whose test split has no labels to a report, and from there to answers for that split."""

from __future__ import annotations

import json
from types import SimpleNamespace

import datasets
import pytest

import rnnzoo
from rnnzoo.cli.main import main
from rnnzoo.cli.predict import read_input
from rnnzoo.errors import InputError

SMALL = ["--trainer.max_epochs", "1", "--model.hidden_size", "4", "--trainer.accelerator", "cpu"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data


def test_a_table_without_the_label_column_is_answered_and_not_measured(folder, tmp_path, capsys):
    rows = "".join(f"{kind} film {number},{kind}\n" for number in range(9) for kind in ("good", "bad"))
    files = {"train.csv": f"review,label\n{rows}", "dev.csv": f"review,label\n{rows}odd,NaN\n"}
    files["test.csv"] = "id,review\n1,good film\n2,bad film\n"
    data = ["--data.path", folder(files, "data"), "--data.file_columns", "null", "--data.columns.text", "review"]
    data += ["--data.columns.label", "label"]
    run = str(tmp_path / "run")
    assert main(["fit", "many_to_one/sst2", *SMALL, *data, "--run_dir", run]) == 0
    printed = capsys.readouterr().out
    assert (
        "note: test: none of 2 samples has a label, so the split is left out (`rnnzoo predict` answers it)" in printed
    )
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert set(report["metrics"]) == {"validation"}
    assert report["data"]["split_sizes"] == {"train": 18, "validation": 18}
    assert any("validation: 1 of 19 samples have no label" in note for note in report["data"]["notes"])

    assert main(["test", run]) == 2
    assert "--split test: expected samples with a label, got none; answer them" in capsys.readouterr().err
    assert main(["test", run, "--split", "validation"]) == 0
    capsys.readouterr()
    assert main(["predict", run, "--input", f"{tmp_path}/data/test.csv", "--column", "review"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2
    assert {answer["label"] for answer in answers} <= {"good", "bad"}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    run = str(tmp_path_factory.mktemp("runs") / "run")
    assert main(["fit", "many_to_many/hidden_markov", *SMALL, "--data.limit", "60", "--run_dir", run]) == 0
    return run


SENTENCES = [["w01", "w02"], ["w\u00a003"]]
FILES = {
    "in.conll": "w01\nw02\n\nw\u00a003\n",
    "with_tags.conll": "w01 X\nw02 X\n\nw\u00a003 X\n",
    "in.tsv": "tokens\ttags\nw01 w02\t\nw\u00a003\tX\n",
    "in.conllu": "".join(
        "".join(f"{number}\t{word}" + "\t_" * 8 + "\n" for number, word in enumerate(words, start=1)) + "\n"
        for words in SENTENCES
    ),
    "in.jsonl": "".join(json.dumps({"tokens": words, "tags": [-100] * len(words)}) + "\n" for words in SENTENCES),
}


@pytest.mark.parametrize("name", [*FILES, "in.parquet"])
def test_files_for_training_without_labels_are_answered(tagger, tmp_path, capsys, name):
    if name == "in.parquet":
        rows = {"tokens": SENTENCES, "tags": [None, None]}
        datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / name))
    else:
        (tmp_path / name).write_text(FILES[name])
    capsys.readouterr()
    assert main(["predict", tagger, "--input", str(tmp_path / name)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [answer["tags"] for answer in rnnzoo.load(tagger).answer({"tokens": words} for words in SENTENCES)]
    assert [answer["tags"] for answer in answers] == expected


@pytest.mark.parametrize("kind", ["frames", "vectors"])
def test_parquet_of_numbers_is_read_by_the_names_of_the_features(tmp_path, kind):
    table = {"label": [None, None], "b": [3.0, 4.0], "a": [1.0, 2.0]}
    datasets.Dataset.from_dict(table).to_parquet(str(tmp_path / "in.parquet"))
    model = SimpleNamespace(processor=SimpleNamespace(kind=kind, features=["a", "b"]))
    samples = list(read_input(str(tmp_path / "in.parquet"), model, None, None))
    rows = [[1.0, 3.0], [2.0, 4.0]]
    assert [sample.get("vector", sample.get("frames")) for sample in samples] == ([rows] if kind == "frames" else rows)


def test_parquet_on_standard_input_and_words_for_others_are_refused():
    model = SimpleNamespace(processor=SimpleNamespace(kind="text_classification", features=None))
    with pytest.raises(InputError, match="--format: expected text or jsonl or csv or tsv, got parquet"):
        read_input("-", model, "parquet", None)
    with pytest.raises(InputError, match=r"--input a\.conll: expected text .* got conll"):
        read_input("a.conll", model, None, None)
