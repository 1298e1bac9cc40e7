"""From training data whose test split has no labels to a report, and from there to answers for that split."""

from __future__ import annotations

import json

import pytest

from rnnzoo.cli.main import main

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
