"""``--model.init_from`` and ``--model.freeze`` from the command line: a language model, then a classifier from it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import yaml
from small_models import build

import rnnzoo
from rnnzoo.cli.main import main

QUICK = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
SIZES = ["--model.hidden_size", "8", "--model.words.size", "6"]
ONE_WAY = ["--model.recurrent.bidirectional", "false"]
FREEZE = ["--model.freeze", "embedding,encoder"]
NUMBERS = re.compile(r"^(.*?) +([\d,]+) +([\d,]+) +([\d,]+)(?:  (.*))?$")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data; `rnnzoo` itself must not rely on it


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with a few texts, a language model, and the run of a classifier that started from it."""
    folder = tmp_path_factory.mktemp("work")
    texts = ["a good film", "a bad film", "so good", "so bad a story"] * 5
    (folder / "labelled").mkdir()
    for split in ("train", "dev", "test"):
        lines = [f"{text} indeed\t{int('good' in text)}\n" for text in texts]
        (folder / "labelled" / f"sst2.{split}.tsv").write_text("".join(lines))
    rnnzoo.save(build("LanguageModel", " ".join(texts)), folder / "lm" / "model")
    assert main(["fit", *classifier(folder), *FREEZE, "--run_dir", str(folder / "run")]) == 0
    return folder


def classifier(folder, source="lm"):
    start = ["--model.init_from", str(folder / source)]
    return ["sst2", "--data.path", str(folder / "labelled"), *start, *QUICK, *SIZES, *ONE_WAY]


def table(text):
    """Return module → (loaded, remapped, new, why) as printed."""
    found = (NUMBERS.match(line) for line in text.splitlines())
    return {
        each[1].strip(): (*(int(each[column].replace(",", "")) for column in (2, 3, 4)), each[5])
        for each in found
        if each
    }


def test_the_table_says_what_was_loaded_and_the_line_above_what_is_trained(work, capsys):
    assert main(["fit", *classifier(work), *FREEZE, "--trainer.fast_dev_run", "true"]) == 0
    printed = capsys.readouterr().out
    found = table(printed)
    words = len(rnnzoo.load(work / "run").processor.tokenizer.vocabulary)
    assert found["words.table"] == (0, 6 * (words - 1), 6, f"{words - 1} of {words} words known")  # "indeed" is new
    assert found["recurrent.layer 0 forward"] == (480, 0, 0, None)
    assert found["head"] == (0, 0, 34, "not in the source")
    frozen = 6 * words + 480
    assert f"{frozen + 34:,} parameters (34 trained, {frozen:,} frozen: embedding, encoder)" in printed
    assert f"started from {work / 'lm'} (LanguageModel):" in printed
    assert "not used of the source: head (2 tensors)" in printed


def test_frozen_parts_leave_the_training_as_they_came(work):
    source, model = rnnzoo.load(work / "lm"), rnnzoo.load(work / "run")
    for name, value in model.recurrent.state_dict().items():
        assert torch.equal(value, source.recurrent.state_dict()[name])
    rows = [each.processor.tokenizer.vocabulary.index("good") for each in (model, source)]
    assert torch.equal(model.words.table.weight[rows[0]], source.words.table.weight[rows[1]])


def test_report_and_model_tell_where_the_run_started(work):
    report = json.loads((work / "run" / "report.json").read_text())
    stored = json.loads((work / "run" / "model" / "config.json").read_text())
    assert report["model"]["init_from"] == stored["init_from"]
    assert stored["init_from"]["class"] == "LanguageModel"
    assert stored["init_from"]["path"] == str(work / "lm")
    weights = json.loads((work / "lm" / "model" / "config.json").read_text())["sha256"]["model.safetensors"]
    assert stored["init_from"]["sha256"] == weights
    assert report["model"]["frozen"] == ["embedding", "encoder"]
    assert report["training"]["frozen_parameters"] == report["training"]["parameters"] - 34


def test_the_configuration_repeats_the_run_and_the_model_needs_no_source(work, tmp_path, capsys):
    settings = yaml.safe_load((work / "run" / "config.yaml").read_text())["model"]["init_args"]
    assert settings["init_from"] == str(work / "lm")
    assert settings["freeze"] == "embedding,encoder"
    shutil.copytree(work / "run" / "model", tmp_path / "alone")
    assert rnnzoo.load(tmp_path / "alone").classify(["so good indeed"])[0] in ("0", "1")
    (work / "lm").rename(work / "gone")
    try:
        assert main(["fit", str(work / "run" / "config.yaml"), "--run_dir", str(tmp_path / "again")]) == 2
        assert f"{work / 'lm'}: expected a model folder" in capsys.readouterr().err
        assert not (tmp_path / "again").exists()
    finally:
        (work / "gone").rename(work / "lm")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.init_from", "nowhere"], "nowhere: expected a model folder"),
        (["--model.freeze", "embeding"], "model.freeze: expected one of embedding, encoder, head, got 'embeding'; did"),
        (["--model.freeze", "[encoder, head, embedding]"], "expected a part that is left to train"),
        (["--model.cell", "gru", "--model.words.size", "5"], "expected a model of which something fits this Sequence"),
        (["--model.init_form", "lm"], "did you mean 'init_from'?"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(work, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *classifier(work), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["sst2", "gaussians", "hidden_markov", "adding", "markov_text"])
def test_help_lists_both_arguments(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["fit", recipe, "--model.help"])
    printed = capsys.readouterr().out
    assert "init_from" in printed
    assert "freeze" in printed
    assert "parts that are not trained" in printed
