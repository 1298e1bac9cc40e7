"""From the command line to a run folder, and from there to answers; and what bad input gets."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import rnnzoo
from rnnzoo.cli.main import main
from rnnzoo.errors import InputError

SMALL = ["--data.limit", "120", "--trainer.max_epochs", "2", "--model.hidden_size", "8", "--trainer.accelerator", "cpu"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data; `rnnzoo` itself must not rely on it


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", *SMALL, "--model.cell=gru", "many_to_many/hidden_markov", "--run_dir", str(folder)]) == 0
    return folder


def test_a_run_folder_holds_all_that_was_promised(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert {"config.yaml", "metrics.csv", "report.json", "report.md", "checkpoints", "model"} <= names
    assert {"learning_curves.png", "confusion_matrix.png"} <= names
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (run_folder / "model").iterdir()} == {
        "config.json",
        "processor.json",
        "model.safetensors",
    }
    for name in ("best.ckpt", "last.ckpt"):
        torch.load(run_folder / "checkpoints" / name, weights_only=True)


def test_the_last_checkpoint_is_of_the_last_epoch_whatever_the_best_is(tmp_path):
    worse = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "0"]  # the first is best
    assert main(["fit", *SMALL, *worse, "many_to_many/hidden_markov", "--run_dir", str(tmp_path / "run")]) == 0
    epochs = {
        name: torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"]
        for name in ("best", "last")
    }
    assert epochs == {"best": 1, "last": 2}  # finished epochs


def test_the_report_has_values_with_definitions_and_what_made_them(run_folder):
    report = json.loads((run_folder / "report.json").read_text())
    for split in ("validation", "test"):
        for entry in report["metrics"][split].values():
            assert isinstance(entry["value"], float)
            assert len(entry["definition"]) > 20
    assert report["metrics"]["test"]["accuracy"]["best_possible"] > report["metrics"]["test"]["accuracy"]["value"]
    assert report["model"]["cell"] == "gru"
    assert report["data"]["split_sizes"]["train"] == 120
    training = report["training"]
    assert training["epochs"] == 2
    assert training["seed"] == 1
    assert training["items_per_second"] > 0
    assert training["peak_memory_mib"] > 10
    assert "--model.cell=gru" in report["command"]
    assert report["versions"]["rnnzoo"] == rnnzoo.__version__
    text = (run_folder / "report.md").read_text()
    assert "gru" in text
    assert "best possible" in text


def test_the_saved_configuration_is_a_recipe_that_repeats_the_run(run_folder, tmp_path):
    again = tmp_path / "again"
    assert main(["fit", str(run_folder / "config.yaml"), "--run_dir", str(again)]) == 0
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (run_folder, again))
    assert first["metrics"] == second["metrics"]
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load(
        (run_folder / "config.yaml").read_text()
    )


def test_a_loaded_model_answers_raw_input_as_the_trained_one(run_folder):
    model = rnnzoo.load(run_folder)
    assert not model.training
    report = json.loads((run_folder / "report.json").read_text())
    for sample in report["samples"]:
        assert model.tag([sample["input"]["tokens"]])[0] == sample["answer"]["tags"]
    assert model.tag([[], ["never-seen"]])[0] == []


def test_testing_the_run_gives_the_reported_numbers(run_folder, tmp_path, capsys):
    output = tmp_path / "test.json"
    assert main(["test", str(run_folder / "model"), "--output", str(output), "--data.limit", "120"]) == 0
    found = json.loads(output.read_text())["metrics"]["test"]
    reported = json.loads((run_folder / "report.json").read_text())["metrics"]["test"]
    for name, entry in found.items():
        assert entry["value"] == pytest.approx(reported[name]["value"], abs=1e-6)
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.txt", "w01 w02\n\nw03\n"),
        ("in.jsonl", '{"tokens": ["w01", "w02"]}\n{"tokens": []}\n{"tokens": ["w03"]}\n'),
        ("in.csv", 'tokens\nw01 w02\n""\nw03\n'),
    ],
)
def test_predict_reads_each_format_and_keeps_the_order(run_folder, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    output = tmp_path / "out.jsonl"
    assert main(["predict", str(run_folder), "--input", str(tmp_path / name), "--output", str(output)]) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [len(row["tags"]) for row in rows] == [2, 0, 1]


def test_predict_streams_from_standard_input(run_folder):
    command = [sys.executable, "-m", "rnnzoo", "predict", str(run_folder), "--batch_size", "2"]
    found = subprocess.run(
        command, input="w01 w02\nw03\nw04\n", capture_output=True, text=True, check=True, timeout=120
    )
    assert [len(json.loads(line)["tags"]) for line in found.stdout.splitlines()] == [2, 1, 1]


def test_several_configurations_are_merged_in_order(tmp_path, capsys):
    (tmp_path / "one.yaml").write_text("model: {init_args: {hidden_size: 3, dropout: 0.2}}\n")
    (tmp_path / "two.yaml").write_text("model: {init_args: {hidden_size: 5}}\n")
    configs = ["--config", str(tmp_path / "one.yaml"), "--config", str(tmp_path / "two.yaml")]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *configs, "hidden_markov", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["hidden_size"] == 5
    assert printed["model"]["init_args"]["dropout"] == 0.2


BAD = [
    (["fit"], "expected a recipe"),
    (["fit", "hidden_markof"], "did you mean"),
    (["fit", "a.yaml"], "a.yaml: expected a YAML file, got nothing"),
    (["fit", "hidden_markov", "again"], "expected one argument without dashes"),
    (["fit", "hidden_markov", "--model.cel", "gru"], "did you mean 'cell'?"),
    (["fit", "hidden_markov", "--model.cell", "lstmm"], "did you mean 'lstm'?"),
    (["fit", "hidden_markov", "--model.words.siz", "3"], "did you mean 'size'?"),
    (["fit", "hidden_markov", "--model.hidden_size", "many"], "model.hidden_size: expected an int, got 'many'"),
    (["fit", "hidden_markov", "--trainer.max_epoch", "3"], "did you mean 'max_epochs'?"),
    (["fit", "hidden_markov", "--model.optimizer.lrr", "1"], "did you mean 'lr'?"),
    (["fit", "hidden_markov", "--model.optimizer", "torch.optim.Addam"], "did you mean 'Adam'?"),
    (["fit", "hidden_markov", "--modell.cell", "gru"], "did you mean '--model.…'?"),
    (["fit", "hidden_markov", "--model.cell"], "--model.cell: expected a value, got none"),
    (["fit", "hidden_markov", "--data.synthetic", "gaussians"], "expected a task with tokens and tags"),
    (["fit", "hidden_markov", "--data.synthetic", "null", "--data.path", "nowhere"], "No such file or directory"),
    (["fit", "sst2", "--data.path", "."], "expected a file of training data"),
    (["fit", "hidden_markov", "--model.recurrent.locked_dropout", "true"], "locked_dropout"),
    (["fit", "hidden_markov", "--seed_everything", "-1"], "seed_everything: expected an integer from 0 to 4294967295"),
    (["fit", "hidden_markov", "--seed_everything", "4294967296"], "expected an integer from 0 to 4294967295"),
    (["fit", "hidden_markov", "--model.dropout", "1.5"], "model.dropout: expected a share of at least 0 and below 1"),
    (["fit", "gaussians", "--model.dropout", "-0.5"], "dropout: expected a share of at least 0 and below 1, got -0.5"),
    (["fit", "dates", "--model.dropout", "1"], "model.dropout: expected a share of at least 0 and below 1, got 1.0"),
    (["fit", "hidden_markov", "--trainer.gradient_clip_val", "-1"], "gradient_clip_val: expected a norm of at least 0"),
    (["test"], "expected a run folder or a model folder"),
    (["test", "nowhere"], "nowhere: expected a model folder"),
    (["predict", "nowhere"], "nowhere: expected a model folder"),
    (["predict", "nowhere", "--input", "missing.txt"], "--input missing.txt: expected a file, got nothing"),
    (["predict", "nowhere", "--batch_size", "0"], "expected a whole number of at least 1"),
    (["fitt"], "did you mean 'fit'?"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv) for argv, _ in BAD])
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(argv, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trainer.accelerator", "gpu"], "trainer: expected a setting that works here"),
        (["--data.batch_size", "0"], "data.batch_size: expected at least 1"),
        (
            ["--model.optimizer.lr", "-1"],
            "model.optimizer: expected arguments that it takes, got Invalid",
        ),
        (["--model.loss.label_smoothing", "0.1", "--model.crf", "true"], "model.loss"),
        (["--model.characters.kind", "cnn", "--data.characters", "null"], "model.characters"),
    ],
)
def test_settings_that_cannot_work_leave_nothing_behind(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    if "gpu" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert main(["fit", "hidden_markov", *options]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_trained_model_is_tested_on_a_file_of_other_data(run_folder, tmp_path, capsys):
    (tmp_path / "other.jsonl").write_text('{"tokens": ["w01", "w02"], "tags": ["S1", "never"]}\n')
    output = tmp_path / "out.json"
    assert main(["test", str(run_folder), "--data.path", str(tmp_path / "other.jsonl"), "--output", str(output)]) == 0
    found = json.loads(output.read_text())["metrics"]["test"]
    assert found["unseen_labels"]["value"] == 1
    assert found["accuracy"]["value"] <= 50
    assert main(["test", str(run_folder), "--data.batchsize", "3"]) == 2
    assert "did you mean 'batch_size'?" in capsys.readouterr().err


def test_a_file_that_the_recipe_names_is_not_taken_for_other_data(tmp_path, capsys):
    rows = ["text,label", *(f"w{n} a,{'xy'[n % 2]}" for n in range(40))]
    for name, count in (("train", 40), ("held", 10), ("new", 6)):
        (tmp_path / f"{name}.csv").write_text("\n".join(rows[: count + 1]) + "\n")
    own = ["--data.path", str(tmp_path / "train.csv"), "--data.test", str(tmp_path / "held.csv")]
    small = ["--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "run"), "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "topic_chains", "--data.synthetic", "null", *own, *small]) == 0
    for more, expected in (
        ([], "train.csv (10 in test)"),
        (["--data.path", str(tmp_path / "new.csv")], "new.csv (6 in test)"),
        (["--data.path", str(tmp_path), "--data.test", "new.csv"], " (6 in test)"),
    ):
        capsys.readouterr()
        assert main(["test", str(tmp_path / "run"), *more]) == 0
        assert expected in capsys.readouterr().out


def test_a_file_in_a_format_that_is_not_answered_is_refused(run_folder, tmp_path, capsys):
    (tmp_path / "in.txt").write_text("w01\n")
    assert main(["predict", str(run_folder), "--input", str(tmp_path / "in.txt"), "--format", "xml"]) == 2
    expected = "--format: expected text or jsonl or csv or tsv or conll or conllu or parquet, got xml; convert it"
    assert expected in capsys.readouterr().err


def test_compressed_input_is_answered_as_it_is_plain(run_folder, tmp_path, capsys):
    content = '{"tokens": ["w01", "w02"]}\n{"tokens": ["w03"]}\n'
    (tmp_path / "in.jsonl").write_text(content)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    answers = []
    for name in ("in.jsonl", "in.jsonl.gz"):
        assert main(["predict", str(run_folder), "--input", str(tmp_path / name)]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != ""
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode())[:20])
    assert main(["predict", str(run_folder), "--input", str(tmp_path / "in.jsonl.gz")]) == 2
    assert "in.jsonl.gz: expected a file that can be read" in capsys.readouterr().err


def test_notes_of_a_measurement_are_of_its_split(tmp_path, capsys):
    rows = ["text,label", *(f"w{n} a,{'xy'[n % 2]}" for n in range(40))]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    own = ["--data.synthetic", "null", "--data.path", str(tmp_path / "train.csv"), "--data.limit", "10"]
    small = ["--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "run"), "--trainer.enable_progress_bar", "false"]
    assert main(["fit", "topic_chains", *own, *small]) == 0
    assert "note: only 10 of " in capsys.readouterr().out
    assert main(["test", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "note: the data have no test split" in told
    assert "no validation split" not in told
    assert "only 10 of" not in told


def test_a_split_made_from_the_training_data_is_the_same_when_tested_again(tmp_path):
    data = tmp_path / "names"
    data.mkdir()
    for label in ("ab", "cd"):
        (data / f"{label}.txt").write_text("\n".join(label * (1 + n % 3) + str(n) for n in range(40)))
    options = ["--data.path", str(data), "--trainer.max_epochs", "1", "--run_dir", str(tmp_path / "run")]
    assert main(["fit", "names", *options]) == 0
    assert main(["test", str(tmp_path / "run"), "--output", str(tmp_path / "out.json")]) == 0
    reported = json.loads((tmp_path / "run" / "report.json").read_text())["metrics"]["test"]
    found = json.loads((tmp_path / "out.json").read_text())["metrics"]["test"]
    assert found["loss"]["value"] == pytest.approx(reported["loss"]["value"], abs=1e-6)


def test_the_arguments_of_a_recipe_are_explained(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "hidden_markov", "--model.help"])
    assert stop.value.code == 0
    assert "crf" in capsys.readouterr().out


def test_malformed_yaml_is_named_with_its_line(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("model:\n  cell: [lstm\n")
    assert main(["fit", str(tmp_path / "bad.yaml")]) == 2
    assert "bad.yaml, line" in capsys.readouterr().err


def test_a_finished_run_that_is_trained_for_longer_has_one_report_and_all_rows(run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    earlier = json.loads((folder / "report.json").read_text())
    assert main(["fit", "--resume", str(folder), "--trainer.max_epochs", "3"]) == 0
    report = json.loads((folder / "report.json").read_text())
    assert report["title"] == earlier["title"] == "many_to_many/hidden_markov"
    assert report["training"]["epochs"] == 3
    assert report["training"]["resumed_after_epochs"] == [2]
    assert report["training"]["wall_seconds"] > earlier["training"]["wall_seconds"]
    with (folder / "metrics.csv").open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file) if row["train/loss"]]
    assert epochs == ["0", "1", "2"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["trainer"]["max_epochs"] == 3
    assert main(["test", str(folder), "--data.limit", "120"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected a run with something left to train, got one that is finished after 2 epochs, 8 steps"),
        (["--model.hidden_size", "9"], "expected --data and --trainer options at most beside it"),
        (["hidden_markov"], "got hidden_markov; for another model begin a new run"),
        (["--run_dir", "other"], "got other; for another model"),
        (["--trainer.max_epochs", "3", "--data.limit", "2"], "expected the model that was trained there"),
    ],
)
def test_a_run_that_cannot_go_on_is_left_as_it_is(run_folder, capsys, options, message):
    before = {path: path.stat().st_mtime for path in run_folder.rglob("*")}
    assert main(["fit", "--resume", str(run_folder), *options]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert {path: path.stat().st_mtime for path in run_folder.rglob("*")} == before


def test_what_is_no_run_or_is_damaged_does_not_go_on(run_folder, tmp_path, capsys):
    assert main(["fit", "--resume", str(tmp_path / "none")]) == 2
    assert "expected a run folder, with the config.yaml of its run, got none" in capsys.readouterr().err
    shutil.copy(run_folder / "config.yaml", tmp_path)
    assert main(["fit", "--resume", str(tmp_path)]) == 2
    assert "expected a run that came to a checkpoint (checkpoints/last.ckpt), got none" in capsys.readouterr().err
    (tmp_path / "checkpoints").mkdir()
    for damaged in (b"", b"PK", (run_folder / "checkpoints" / "last.ckpt").read_bytes()[:-99]):
        (tmp_path / "checkpoints" / "last.ckpt").write_bytes(damaged)
        assert main(["fit", "--resume", str(tmp_path)]) == 2
        assert "last.ckpt: expected a checkpoint, got a file that is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_last_checkpoint_falls_back_to_the_best_and_says_so(run_folder, tmp_path, capsys, damage):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    last = folder / "checkpoints" / "last.ckpt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:-99])
    else:
        last.unlink()
    with (folder / "metrics.csv").open("a") as file:
        file.write("1,7,9")  # half a row, too
    (folder / "checkpoints" / ".last.ckpt.0a1b2c3d.tmp").write_text("half")
    assert main(["fit", "--resume", str(folder), "--trainer.max_epochs", "3"]) == 0
    state = {"cut": "is damaged", "gone": "is missing"}[damage]
    assert f"note: {last} {state}: resumed from best.ckpt (2 epochs finished)\n" in capsys.readouterr().err
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(last, weights_only=True)["epoch"] == 3
    with (folder / "metrics.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file) if row["train/loss"]] == ["0", "1", "2"]


def test_a_run_that_was_killed_before_its_new_report_writes_it_when_resumed(run_folder, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    with monkeypatch.context() as broken:
        broken.setattr("rnnzoo.cli.run_report.write_run", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            main(["fit", "--resume", str(folder), "--trainer.max_epochs", "3"])
    assert main(["fit", "--resume", str(folder)]) == 0
    assert json.loads((folder / "report.json").read_text())["training"]["epochs"] == 3


@pytest.mark.parametrize("option", ["max_epochs", "max_steps"])
def test_a_limit_below_what_is_done_is_refused(run_folder, tmp_path, capsys, option):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    (folder / "report.json").unlink()
    assert main(["fit", "--resume", str(folder), f"--trainer.{option}", "1"]) == 2
    told = capsys.readouterr().err
    assert f"--resume {folder}: trainer.{option}: expected a limit of at least the " in told
    assert told.count("\n") == 1


def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"

    def broken(*_):
        raise InputError("network", expected="power", got="none")

    monkeypatch.setattr("rnnzoo.cli.evaluation.load_best", broken)
    assert main(["fit", *SMALL, "many_to_many/hidden_markov", "--run_dir", str(folder)]) == 2
    assert f"to go on from the last checkpoint: rnnzoo fit --resume {folder}" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["fit", "--resume", str(folder)]) == 0  # all epochs are there, the report is not
    assert json.loads((folder / "report.json").read_text())["training"]["epochs"] == 2


def test_a_run_folder_that_exists_is_refused_untouched(run_folder, capsys):
    before = sorted(path.stat().st_mtime for path in run_folder.rglob("*"))
    assert main(["fit", "hidden_markov", "--run_dir", str(run_folder)]) == 2
    assert "expected a new folder" in capsys.readouterr().err
    assert sorted(path.stat().st_mtime for path in run_folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.json", "processor.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_model_folder_is_refused(run_folder, tmp_path, capsys, name, damage):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (run_folder / "model").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if damage == "missing":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    assert main(["predict", str(folder), "--input", os.devnull]) in (2,)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert name in error


def test_broken_input_before_any_answer_leaves_no_output_file(run_folder, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(b'{"tokens": ["\xff"]}\n{"tokens": ["w01"]}\n')
    output = tmp_path / "out.jsonl"
    assert main(["predict", str(run_folder), "--input", str(tmp_path / "in.jsonl"), "--output", str(output)]) == 2
    assert "line 1" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["many_to_many/hidden_markov", "many_to_one/topic_chains", "one_to_one/gaussians"])
def test_two_processes_train_and_measure_as_one(tmp_path, recipe):
    folder = tmp_path / "run"
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    small = ["--trainer.max_epochs", "1", "--data.limit", "203"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def call(*argv):
        command = [sys.executable, "-m", "rnnzoo", *argv]
        subprocess.run(command, check=True, timeout=300, env=environment, cwd=tmp_path, capture_output=True)

    call("fit", recipe, *two, *small, "--run_dir", str(folder))
    call("test", str(folder), "--output", str(tmp_path / "one.json"))
    call("test", str(folder), *two, "--output", str(tmp_path / "two.json"))
    reported = json.loads((folder / "report.json").read_text())["metrics"]["test"]
    assert json.loads((folder / "report.json").read_text())["training"]["processes"] == 2
    assert not Path(tmp_path / "runs").exists()
    for name in ("one", "two"):
        found = json.loads((tmp_path / f"{name}.json").read_text())["metrics"]["test"]
        for metric, entry in found.items():
            assert entry["value"] == pytest.approx(reported[metric]["value"], abs=1e-6), (name, metric)
