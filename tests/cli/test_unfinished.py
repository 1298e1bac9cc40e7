"""A run that was interrupted can be measured, asked and started from: its best checkpoint stands in for the model."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import rnnzoo
from rnnzoo.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
SMALL = ["--data.limit", "60", "--trainer.max_epochs", "2", "--model.hidden_size", "6", "--trainer.accelerator", "cpu"]
RECIPES = {
    "SequenceTagger": "many_to_many/hidden_markov",
    "SequenceClassifier": "many_to_one/topic_chains",
    "FrameLabeller": "many_to_many/gaussians",
    "LanguageModel": "next_step/markov_text",
    "Translator": "encoder_decoder/dates",
}


def interrupt(folder):
    """Leave of a run what an interruption would."""
    shutil.rmtree(folder / "model")
    (folder / "report.json").unlink()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["fit", *SMALL, "hidden_markov", "--run_dir", str(folder)]) == 0
    shutil.copytree(folder, folder.with_name("finished"))
    interrupt(folder)
    return folder


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.parametrize("name", ["SequenceTagger", *(pytest.param(name, marks=pytest.mark.slow) for name in RECIPES)])
def test_the_best_checkpoint_of_each_model_is_its_model(tmp_path, name):
    run = tmp_path / "run"
    words = [word for word in SMALL if name != "LanguageModel" or word not in ("--data.limit", "60")]
    assert main(["fit", *words, RECIPES[name], "--run_dir", str(run)]) == 0
    finished = rnnzoo.load(run)
    interrupt(run)
    with pytest.warns(UserWarning, match=r"run has no finished model: the weights are those of checkpoints/best.ckpt"):
        model = rnnzoo.load(run)
    assert type(model) is type(finished)
    assert not model.training
    for key, value in finished.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_test_and_predict_say_what_they_take_in_one_line(run, capsys):
    finished = str(run.with_name("finished"))
    note = (
        f"note: {run} has no finished model: the weights are those of checkpoints/best.ckpt, after 2 epochs, 4 steps\n"
    )
    for words in (["test"], ["predict", "--input", str(run / "config.yaml")]):
        told = []
        for folder in (finished, str(run)):
            assert main([words[0], folder, *words[1:]]) == 0
            told.append(capsys.readouterr())
        assert told[0].out == told[1].out != ""
        assert (told[0].err, told[1].err) == ("", note)


def test_a_new_model_starts_from_it(run, tmp_path):
    words = ["--model.init_from", str(run), "--run_dir", str(tmp_path / "new")]
    assert main(["fit", *SMALL, "hidden_markov", *words, "--trainer.max_epochs", "1"]) == 0
    origin = json.loads((tmp_path / "new" / "report.json").read_text())["model"]["init_from"]
    assert origin["sha256"] == rnnzoo.bundle.sha256(run / "checkpoints" / "best.ckpt")


def test_the_last_checkpoint_is_taken_where_the_best_is_damaged(copy, capsys):
    best = copy / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-99])
    assert main(["test", str(copy)]) == 0
    assert "the weights are those of checkpoints/last.ckpt, after 2 epochs" in capsys.readouterr().err
    (copy / "checkpoints" / "last.ckpt").write_bytes(b"PK")
    assert main(["test", str(copy)]) == 2
    told = capsys.readouterr().err
    assert told == f"rnnzoo: error: {best}: expected a checkpoint, got a file that is damaged\n"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda stored: stored["state_dict"]["head.bias"].fill_(float("nan")),
            "head.bias: expected finite numbers, got NaN",
        ),
        (
            lambda stored: stored["state_dict"].pop("head.bias"),
            "head.bias: expected the weights of this SequenceTagger",
        ),
        (
            lambda stored: stored["hyper_parameters"].update(cell="mine"),
            "expected a cell that is known here, got 'mine'",
        ),
        (lambda stored: stored["hyper_parameters"].update(num_layers=10**6), "expected"),
        (lambda stored: stored["hyper_parameters"].update(hidden_size="x"), "arguments.hidden_size"),
        (lambda stored: stored["hyper_parameters"].pop("processor"), "expected a checkpoint of a run of rnnzoo"),
        (lambda stored: stored["hyper_parameters"].update(processor={"kind": "x"}), "expected"),
    ],
    ids=["nan", "missing", "cell", "size", "type", "no processor", "processor"],
)
def test_checkpoints_get_the_checks_of_model_folders(copy, capsys, damage, message):
    for name in ("best.ckpt", "last.ckpt"):
        stored = torch.load(copy / "checkpoints" / name, weights_only=True)
        damage(stored)
        torch.save(stored, copy / "checkpoints" / name)
    assert main(["predict", str(copy), "--input", str(copy / "config.yaml")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("rnnzoo: error: ")
    assert message in told
    assert str(copy / "checkpoints") in told


def test_a_configuration_that_names_code_is_refused(copy, capsys):
    text = (copy / "config.yaml").read_text().replace("class_path: rnnzoo.data.", "class_path: os.path.")
    assert "os.path." in text
    (copy / "config.yaml").write_text(text)
    assert main(["test", str(copy)]) == 2
    assert "expected data that are known here, got 'os.path." in capsys.readouterr().err
