"""``rnnzoo gates`` from the command line: table, sentence and picture, and one line for each mistake."""

from __future__ import annotations

import pytest
from small_models import build

from rnnzoo import bundle
from rnnzoo.cli.main import main


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the folder of some untrained models."""
    folder = tmp_path_factory.mktemp("models")
    bundle.save(build("LanguageModel"), folder / "lstm")
    bundle.save(build("LanguageModel", cell="rnn"), folder / "rnn")
    bundle.save(build("SequenceClassifier", cell="gru"), folder / "gru")
    bundle.save(build("FrameLabeller"), folder / "frames")
    return folder


def test_gates_are_listed_drawn_and_told(models, tmp_path, capsys):
    target = tmp_path / "g.png"
    words = ["gates", str(models / "lstm"), "--text", "the cat sat on the mat", "--output", str(target)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:6]] == ["i", "f", "o", "g", "tanh"]
    assert "Gates open and shut with what is read: " in out
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert main(words) == 2
    assert "--output" in capsys.readouterr().err


def test_another_layer_and_cell(models, tmp_path, capsys):
    words = ["gates", str(models / "gru"), "--text", "the cat", "--layer", "recurrent.layer 0 backward"]
    assert main([*words, "--output", str(tmp_path / "g.png")]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:4]] == ["r", "z", "n"]
    assert "other layers: recurrent.layer 0 forward" in out


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("rnn", ["--text", "the cat"], "a cell whose gates have names, such as lstm or gru, got rnn"),
        ("frames", ["--text", "the cat"], "expected recurrent layers that read text, got a FrameLabeller"),
        ("lstm", [], "--text: expected a text to read, got none"),
        ("gru", ["--text", ""], "text: expected at least one token, got ''"),
        ("lstm", ["--text", "the", "--layer", "x"], "--layer: expected one of recurrent.layer 0 forward, got 'x'"),
        ("nothing", ["--text", "the"], "expected a model folder"),
        ("lstm", ["--text", "the", "--txt", "a"], "got --txt; did you mean '--text'?"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(models, tmp_path, monkeypatch, capsys, model, options, message):
    monkeypatch.chdir(tmp_path)
    assert main(["gates", str(models / model), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []
