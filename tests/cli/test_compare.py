"""Comparing cells: the arithmetic, one small comparison from the command line, going on, and bad input."""

from __future__ import annotations

import json
import os

import pytest

from rnnzoo import plots
from rnnzoo.cli import compare, compare_run
from rnnzoo.cli.main import main
from rnnzoo.cli.vary import Variant, read_variants
from rnnzoo.comparison import (
    Spread,
    numeric_key,
    order,
    read_curves,
    rows,
    sentence,
    spread,
    summarise,
    undefined_notes,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # of jsonargparse
GRU = Variant((("model.cell", "gru"),))
OPTIONS = [
    "--data.limit",
    "60",
    "--trainer.max_epochs",
    "1",
    "--model.hidden_size",
    "4",
    "--trainer.accelerator",
    "cpu",
]


def report(value, *, speed=10.0):
    training = {"items_per_second": speed, "wall_seconds": 2.0, "epochs": 3, "peak_memory_mib": 5.0, "parameters": 7}
    return {
        "metrics": {"validation": {"f1": {"value": value}}, "test": {"f1": {"value": value - 1}}},
        "training": training,
    }


def test_mean_and_deviation_are_over_seeds():
    assert spread([]) is None
    assert spread([2.0]) == Spread(2.0, None, 1)
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(7.0**0.5), 3)


def test_cells_are_ordered_by_validation_and_failed_ones_come_last():
    found = [
        summarise("a", {}, {1: report(50.0), 2: report(60.0)}, {}, "f1"),
        summarise("b", {}, {}, {1: "out of memory"}, "f1"),
        summarise("c", {}, {1: report(70.0)}, {}, "f1"),
    ]
    assert [each.label for each in order(found, "max")] == ["c", "a", "b"]
    assert [each.label for each in order(found, "min")] == ["a", "c", "b"]
    table = rows(order(found, "max"), "f1")
    assert table[1]["validation f1"] == "55 ± 7.1"
    assert table[1]["test f1"] == "54 ± 7.1"
    assert (table[1]["runs"], table[1]["parameters"], table[1]["items/s"]) == ("2", "7", "10")
    assert (table[2]["validation f1"], table[2]["runs"]) == ("-", "0")


def test_a_cell_of_which_a_run_has_no_metric_stands_below_the_others():
    lost = report(0.0)
    lost["metrics"]["validation"]["f1"]["value"] = None  # as the report writes inf and nan
    found = [
        summarise("a", {}, {1: report(90.0), 2: lost, 3: report(90.0)}, {}, "f1"),
        summarise("b", {}, {}, {1: "out of memory"}, "f1"),
        summarise("c", {}, {1: report(70.0)}, {}, "f1"),
        summarise("d", {}, {1: lost}, {}, "f1"),
    ]
    for mode in ("max", "min"):
        found = order(found, mode)
        assert [each.label for each in found][:2] == ["c", "a"]
    table = dict(zip("cabd", rows(found, "f1"), strict=True))
    assert (table["a"]["validation f1"], table["a"]["runs"]) == ("90 ± 0 (2 of 3)", "3")
    assert (table["d"]["validation f1"], table["d"]["runs"]) == ("- (0 of 1)", "1")
    assert table["c"]["validation f1"] == "70"
    assert undefined_notes(found, "f1") == [
        "a: validation f1 is no number (infinite or undefined) in 1 of 3 runs; the mean is of the others",
        "d: validation f1 is no number (infinite or undefined) in 1 of 1 runs",
    ]


@pytest.fixture
def trained(monkeypatch):
    """Replace the training by one that writes a report at once; return what was trained."""
    done = []

    def train(plan, variant, seed, place):
        cell = variant.label
        done.append((cell, seed))
        if cell == "rnn":
            return "it broke"
        place.mkdir(parents=True)
        full = report(50.0 + len(cell) + seed)
        full["model"] = {"selection": {"metric": "f1", "mode": "max"}}
        full["training"] |= {"item": "a word", "threads": 1, "device": "cpu"}
        full["metrics"]["validation"]["f1"]["definition"] = full["metrics"]["test"]["f1"]["definition"] = "of spans"
        (place / "report.json").write_text(json.dumps(full))
        return ""

    monkeypatch.setattr(compare, "train", train)
    monkeypatch.setattr(compare, "refuse_unfit", lambda *_: None)
    return done


def run(folder, *more, cells="lstm,gru"):
    return main(["compare", "many_to_many/hidden_markov", "--cells", cells, "--run_dir", str(folder), *more])


def test_a_comparison_goes_on_where_it_was_left(trained, tmp_path, capsys):
    assert run(tmp_path / "c", "--seeds", "2") == 0
    assert trained == [("lstm", 1), ("gru", 1), ("lstm", 2), ("gru", 2)]  # all cells once before any twice
    assert run(tmp_path / "c", "--seeds", "3", cells="lstm,gru,mingru") == 0
    assert trained[4:] == [("mingru", 1), ("mingru", 2), ("lstm", 3), ("gru", 3), ("mingru", 3)]
    written = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert [variant["label"] for variant in written["variants"]] == ["mingru", "lstm", "gru"]
    assert written["variants"][0]["metrics"]["test"]["count"] == 3
    assert "of spans" in (tmp_path / "c" / "compare.md").read_text()
    assert (tmp_path / "c" / "compare.png").stat().st_size > 1000
    assert "mean ± standard deviation over seeds 1 to 3" in capsys.readouterr().out


def test_a_cell_that_fails_does_not_stop_the_others(trained, tmp_path, capsys):
    assert run(tmp_path / "c", cells="rnn,lstm") == 1
    assert trained == [("rnn", 1), ("lstm", 1)]
    assert "rnn, seed 1: failed: it broke" in capsys.readouterr().out
    assert "it broke" in (tmp_path / "c" / "compare.md").read_text()


def test_other_settings_in_the_same_folder_are_refused(trained, tmp_path, capsys):
    assert run(tmp_path / "c") == 0
    assert run(tmp_path / "c", "--budget", "30s") == 2
    assert "budget_seconds of the comparison" in capsys.readouterr().err
    assert run(tmp_path / "c", "--data.limit", "9") == 2
    assert "options of the comparison in" in (told := capsys.readouterr().err)
    assert "expected none, got --data.limit=9; name another --run_dir" in told
    assert run(tmp_path / "c") == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("long")
    assert run(tmp_path / "other") == 2
    assert "expected a new folder, or that of a comparison" in capsys.readouterr().err
    assert len(trained) == 2


def test_a_recipe_that_was_changed_is_refused(trained, tmp_path, capsys):
    (tmp_path / "more.yaml").write_text("model: {init_args: {hidden_size: 3}}\n")
    more = ["--config", str(tmp_path / "more.yaml")]
    assert run(tmp_path / "c", *more) == 0
    assert run(tmp_path / "c", *more) == 0
    (tmp_path / "more.yaml").write_text("model: {init_args: {hidden_size: 5}}\n")
    assert run(tmp_path / "c", *more) == 2
    assert "got a recipe that was changed since" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("gaussians", [], "gru: command line: model.cell: expected an argument of VectorClassifier, got 'cell'"),
        ("hidden_markov", ["--model.recurrent.weight_drop", "0.5"], "mingru: weight_drop"),
        ("hidden_markov", ["--model.recurrent.backend", "native"], "mingru: backend"),
        ("hidden_markov", ["--model.cel", "gru"], "did you mean 'cell'?"),
    ],
)
def test_what_the_model_cannot_take_is_told_before_anything_is_trained(tmp_path, capsys, recipe, options, expected):
    place = tmp_path / "c"
    assert main(["compare", recipe, "--cells", "gru,mingru", "--run_dir", str(place), *options]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
    assert not place.exists()


def test_a_run_is_a_process_whose_epochs_are_shown_and_whose_failure_is_told(tmp_path, capsys, monkeypatch):
    script = tmp_path / "python"
    monkeypatch.setattr(compare_run.sys, "executable", str(script))
    recipe = tmp_path / "own.yaml"
    recipe.write_text("imports: [my_cells.py]\n")
    plan = compare.Plan(str(recipe), (GRU,), (1,), 90, ("--data.limit=9", "--imports+=more.py"))
    place = tmp_path / "c" / "gru" / "seed_1"
    place.mkdir(parents=True)
    (place / "left.txt").write_text("of an interrupted run")

    def call(*lines):
        script.write_text("\n".join(["#!/bin/sh", 'echo "$@"', *lines]))
        script.chmod(0o755)
        error = compare.train(plan, GRU, 1, place)
        return error, capsys.readouterr().out, place.with_name("seed_1.log").read_text()

    done = [f"mkdir {place}", f"echo {{}} > {place}/report.json"]
    error, shown, log = call("echo 'epoch  loss'", "echo '    0   1.5'", "echo 'data: 12  of them'", *done)
    assert (error, shown) == ("", "  epoch  loss\n      0   1.5\n")
    words = log.splitlines()[0].split()
    assert words[:5] == ["-m", "rnnzoo", "fit", str(recipe), "--data.limit=9"]
    assert {"--model.cell=gru", "--seed_everything=1", "--trainer.max_time=00:00:01:30"} <= set(words)
    error, _, _ = call("echo 'rnnzoo: error: data: expected more, got less' >&2", "echo", "exit 2")
    assert error == f"data: expected more, got less (see {place.with_name('seed_1.log')})"
    assert not place.exists()
    error, _, _ = call("kill -9 $$")
    assert error.startswith("killed by signal 9 (")
    with pytest.raises(SystemExit):  # the run ends with the comparison
        call("kill -TERM $PPID", "exec sleep 60")
    monkeypatch.setattr(compare_run, "can_resume", lambda at: at == place)
    place.mkdir()
    error, _, log = call(f"echo {{}} > {place}/report.json")  # one that finished an epoch goes on, in the same log
    named = "--imports+=my_cells.py --imports+=more.py"
    assert (error, log.splitlines()[-1]) == ("", f"-m rnnzoo fit --resume={place} {named}")
    monkeypatch.setattr(compare_run, "can_resume", lambda at: False)
    error, _, _ = call("exit 0")  # no report, such as of a dry run
    assert error.startswith("-m rnnzoo fit")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cells", "lstm,gur"], "got 'gur'; did you mean"),
        (["--cells", "lstm,gru,lstm"], "--cells: expected each cell once"),
        (["--cells", "gru", "--budget", "1.5m"], "--budget: expected a time"),
        (["--cells", "gru", "--trainer.max_time", "00:00:01:00"], "expected --budget"),
        ([], "rnnzoo compare: expected --cells with names of cells, such as lstm,gru, or --vary"),
        (["--cells", "gru", "--seeds", "0"], "--seeds: expected a whole number"),
        (["--cells", "gru", "--budget", "30"], "--budget: expected a time such as 90s, 30m or 2h, got '30'"),
        (["--cells", "gru", "--budget", "0s"], "--budget: expected a time"),
        (["--cells", "gru", "--model.cell", "lstm"], "expected --cells, which sets it for each run, got --model.cell"),
        (["--cells", "gru", "--seed_everything", "3"], "expected --seeds"),
        (["--vary", "model.num_layers=1,2", "--model.num_layers", "1"], "expected --vary, which sets it for each run"),
        (["--vary", "model.num_layers=1,1"], "--vary model.num_layers: expected different values with commas between"),
        (["--vary", "model.num_layers=1,"], "--vary model.num_layers: expected different values with commas between"),
        (["--vary", "model.num_layers"], "--vary: expected KEY=VALUE,VALUE,..."),
        (["--vary", "num_layers=1,2"], "--vary: expected a key of model, data, trainer"),
        (["--vary", "modle.num_layers=1,2"], "got --modle.num_layers; did you mean '--model"),
        (["--vary", "seed_everything=1,2"], "--vary: expected --seeds, which sets it for each run"),
        (["--vary", "model.dropout=0,1", "--vary", "model.dropout=0"], "each key once, got model.dropout twice"),
        (["--cells", "gru", "--vary", "model.cell=lstm"], "each key once, got --cells and --vary model.cell"),
    ],
)
def test_bad_input_gets_one_line_before_anything_is_trained(trained, tmp_path, capsys, arguments, expected):
    place = tmp_path / "c"
    assert main(["compare", "many_to_many/hidden_markov", "--run_dir", str(place), *arguments]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
    assert not trained
    assert not place.exists()


def test_every_combination_of_values_is_a_variant():
    variants = read_variants(["lstm", "gru"], ["model.num_layers=1,2", "trainer.gradient_clip_val=0,1"])
    assert len(variants) == 8
    assert variants[1].label == "lstm, num_layers=1, gradient_clip_val=1"
    assert variants[1].folder == "lstm,num_layers=1,gradient_clip_val=1"
    assert variants[7].words == ["--model.cell=gru", "--model.num_layers=2", "--trainer.gradient_clip_val=1"]
    odd = read_variants([], ["data.path=a/b c,../d", "model.hidden_sizes=[1,2],[3]"])
    assert [dict(variant.settings)["model.hidden_sizes"] for variant in odd] == ["[1,2]", "[3]"] * 2
    folders = {variant.folder for variant in odd}
    assert len(folders) == 4
    assert all("/" not in folder and " " not in folder for folder in folders)
    assert read_variants(["gru"], []) == (GRU,) == read_variants([], ["model.cell=gru"])


def test_any_key_is_varied_and_drawn_over_its_values(trained, tmp_path, capsys):
    words = ["compare", "many_to_many/hidden_markov", "--run_dir", str(tmp_path / "c"), "--vary"]
    assert main([*words, "model.num_layers=10,9"]) == 0
    assert trained == [("num_layers=10", 1), ("num_layers=9", 1)]
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[4:7]] == ["num_layers", "10", "9"]  # best first
    told = "num_layers 9 → 10: validation f1 63 → 64, seconds 2 → 2, peak MiB 5 → 5, largest gradient norm - → -."
    assert told in out
    written = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert written["conclusion"] == told
    assert written["variants"][0]["settings"] == {"model.num_layers": "10"}
    assert main([*words, "model.num_layers=8,10"]) == 0  # values may be added
    assert trained[2:] == [("num_layers=8", 1)]
    assert main([*words, "model.dropout=0,0.5"]) == 2
    assert "varied of the comparison in" in capsys.readouterr().err


def test_the_conclusion_names_the_best_and_the_fastest():
    found = [
        summarise(cell, {"model.cell": cell}, {1: report(score, speed=speed)}, {}, "f1")
        for cell, score, speed in (("gru", 50.0, 30.0), ("lstm", 60.0, 20.0))
    ]
    told = sentence(order(found, "max"), "f1")
    assert told == "best validation f1: lstm (60); fastest: gru (30 items/s)."
    assert numeric_key([{"trainer.gradient_clip_val": "0"}, {"trainer.gradient_clip_val": "0.5"}]) is not None
    assert numeric_key([{"model.cell": "gru"}, {"model.cell": "lstm"}]) is None
    assert numeric_key([{"a.b": "1", "c.d": "1"}, {"a.b": "2", "c.d": "1"}]) is None


def test_curves_are_read_from_the_metrics_of_a_run_and_drawn(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/loss\n0,9,,2.5\n0,9,3.0,\n1,19,,2.0\n1,19,2.5,\n2,19,,2.0\n")
    assert read_curves(path) == {"val/loss": [(1.0, 2.5), (2.0, 2.0)], "train/loss": [(1.0, 3.0), (2.0, 2.5)]}
    assert read_curves(tmp_path / "none.csv") == {}
    curves = {"a": read_curves(path), "b": {}}
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, target: drawn.extend(figure.axes))
    assert plots.compared_curves(curves, "loss", tmp_path / "curves.png")
    assert [axes.get_title() for axes in drawn] == ["training loss", "validation loss"]
    assert not plots.compared_curves({"b": {}}, "loss", tmp_path / "none.png")


@pytest.mark.slow
def test_a_whole_comparison(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    assert run(tmp_path / "c", *OPTIONS, cells="gru,mingru") == 0
    out = capsys.readouterr().out
    assert "gru, seed 1: validation accuracy" in out
    written = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert {variant["label"] for variant in written["variants"]} == {"gru", "mingru"}
    assert all(variant["memory"]["mean"] > 50 for variant in written["variants"])
