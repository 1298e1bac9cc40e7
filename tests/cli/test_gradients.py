"""``rnnzoo gradients`` from the command line: tables, files, a trained model, and what bad input gets."""

from __future__ import annotations

import json

import pytest
from matplotlib.figure import Figure

from rnnzoo.cli.gradient_plots import draw_curves
from rnnzoo.cli.main import main
from rnnzoo.diagnostics.gradient_flow import GradientFlow, LagCurve

SMALL = ["--data.limit", "64", "--model.hidden_size", "8", "--trainer.accelerator", "cpu"]
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of small data; `rnnzoo` itself must not rely on it


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradients") / "run"
    options = ["--cells", "rnn,lstm", "--steps", "3", "--lags", "6", "--run_dir", str(folder)]
    assert main(["gradients", "hidden_markov", *SMALL, *options]) == 0
    return folder


def test_the_folder_holds_numbers_tables_and_plots(found):
    assert {path.name for path in found.iterdir()} == {"gradients.json", "gradients.md", "gradients.png", "gates.png"}
    document = json.loads((found / "gradients.json").read_text())
    looks = [(each["cell"], each["when"]) for each in document["measured"]]
    stages = ("at initialisation", "after 3 steps")
    assert looks == [(cell, when) for cell in ("rnn", "lstm") for when in stages]
    for each in document["measured"]:
        assert set(each["flow"]["curves"]) == {"recurrent.layer 0 forward", "recurrent.layer 0 backward"}
        assert all(len(curve["median"]) == 6 for curve in each["flow"]["curves"].values())
        assert each["rows"] == 32
        assert each["flow"]["clipped"]["all"] <= 1.0 + 1e-6
    assert document["measured"][0]["flow"]["loss"] > document["measured"][1]["flow"]["loss"]
    assert document["measured"][0]["flow"]["gates"]["recurrent.layer 0 forward"] == []
    gates = document["measured"][2]["flow"]["gates"]["recurrent.layer 0 forward"]
    assert [gate["gate"] for gate in gates] == ["f", "i", "o"]
    text = (found / "gradients.md").read_text()
    assert all(definition in text for definition in document["definitions"].values())
    assert "rnnzoo gradients hidden_markov" in text
    for name in ("gradients.png", "gates.png"):
        assert (found / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_same_command_gives_the_same_numbers_and_steps_may_be_left_out(found, tmp_path, capsys):
    options = ["--cells", "lstm", "--steps", "0", "--lags", "6", "--run_dir", str(tmp_path / "again")]
    assert main(["gradients", "hidden_markov", *SMALL, *options]) == 0
    [look] = json.loads((tmp_path / "again" / "gradients.json").read_text())["measured"]
    assert look == json.loads((found / "gradients.json").read_text())["measured"][2]
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    shown = ["lag", "1", "lag", "2", "lag", "5", "lag", "6", "per", "step", "clipping", "per", "step,", "clipped"]
    assert lines[1][3:] == shown
    assert "at initialisation, recurrent.layer 0 forward: over 5 steps back the gradient" in printed
    assert "gate saturation:" in printed


def test_the_gradient_by_step(tmp_path, capsys):
    assert main(["gradients", "markov_text", *SMALL, "--by_step", "--run_dir", str(tmp_path / "run")]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"by_step.json", "by_step.png"}
    document = json.loads((tmp_path / "run" / "by_step.json").read_text())
    assert len(document["losses"]) == len(document["use_norms"]["recurrent.layer 0 forward"]) == 32
    assert document["loss_difference"] < 1e-6 > document["use_difference"]
    assert document["conclusions"][0] in capsys.readouterr().out


def test_panels_share_their_axes(monkeypatch, tmp_path):
    curve = LagCurve([1.0, 0.1], [0.5, 0.05], [2.0, 0.2], [3, 3], 0.1)
    flow = GradientFlow(1.0, {"layer 0": curve, "layer 1": curve}, {}, {}, 0.5)
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_curves([("rnn", "before", flow), ("lstm", "before", flow), ("lstm", "after", flow)], tmp_path / "a.png")
    [figure] = drawn
    panels = figure.axes
    assert len(panels) == 4
    assert all(panels[0].get_shared_x_axes().joined(panels[0], axes) for axes in panels)
    assert all(panels[0].get_shared_y_axes().joined(panels[0], axes) for axes in panels)
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == [
        "rnn: × 0.100 a step",
        "lstm: × 0.100 a step",
    ]
    assert "band: 10th to 90th percentile" in figure.get_suptitle()
    assert len(panels[0].lines) == 4  # each before and after clipping


@pytest.mark.slow
def test_a_trained_model_is_looked_at_beside_the_one_it_began_as(tmp_path):
    fit = ["fit", "hidden_markov", *SMALL, "--model.cell", "gru", "--trainer.max_epochs", "1"]
    assert main([*fit, "--run_dir", str(tmp_path / "run")]) == 0
    options = ["--model", str(tmp_path / "run"), "--run_dir", str(tmp_path / "out")]
    assert main(["gradients", "hidden_markov", "--data.limit", "64", *options]) == 0
    first, second = json.loads((tmp_path / "out" / "gradients.json").read_text())["measured"]
    assert (first["cell"], second["cell"]) == ("gru", "gru")
    assert (first["when"], second["when"]) == ("at initialisation", "trained (run)")
    assert first["flow"]["loss"] > second["flow"]["loss"]
    assert main(["gradients", "topic_chains", *options[:2], "--run_dir", str(tmp_path / "other")]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["hidden_markov", "--cells", "lstmm"], "got 'lstmm'; did you mean 'lstm'?"),
        (["hidden_markov", "--cells", "lstm,gru,lstm"], "--cells: expected each cell once, got 'lstm,gru,lstm'"),
        (["hidden_markov", "--cells", "lstm", "--model", "run"], "expected --model or --cells, got both"),
        (["hidden_markov", "--steps", "3", "--model", "run"], "expected --model or --steps, got both"),
        (["hidden_markov", "--model", "nowhere"], "nowhere: expected a model folder"),
        (["hidden_markov", "--by_step", "--steps", "3"], "expected --by_step or --steps, got both"),
        (["hidden_markov", "--by_step", "--cells", "lstm,gru"], "expected --by_step or --cells, got both"),
        (["gaussians", "--by_step"], "expected one with recurrent layers, got a VectorClassifier"),
        (["hidden_markov", "--lags", "300"], "lags: expected at most"),
        (["hidden_markov", "--lags", "0"], "--lags: expected a whole number of at least 1, got '0'"),
        (["hidden_markov", "--steps", "-1"], "--steps: expected a whole number of at least 0, got '-1'"),
        (["hidden_markov", "--modle.cell", "gru"], "did you mean '--model"),
        (["gaussians"], "expected one with recurrent layers, got a VectorClassifier"),
        (["gaussians", "--cells", "lstm"], "model.cell: expected an argument of VectorClassifier, got 'cell'"),
        (["hidden_markov", "--run_dir", "."], "expected a new folder"),
        ([], "rnnzoo gradients: expected a recipe"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing_behind(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["gradients", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []
