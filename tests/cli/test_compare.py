"""Comparing cells: the arithmetic, one small comparison from the command line, going on, and bad input."""

from __future__ import annotations

import json
import os

import pytest

from rnnzoo.cli import compare, compare_run
from rnnzoo.cli.main import main
from rnnzoo.comparison import Spread, order, rows, spread, summarise, undefined_notes

pytestmark = pytest.mark.filterwarnings("ignore")  # of jsonargparse
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
        summarise("a", {1: report(50.0), 2: report(60.0)}, {}, "f1"),
        summarise("b", {}, {1: "out of memory"}, "f1"),
        summarise("c", {1: report(70.0)}, {}, "f1"),
    ]
    assert [each.cell for each in order(found, "max")] == ["c", "a", "b"]
    assert [each.cell for each in order(found, "min")] == ["a", "c", "b"]
    table = rows(order(found, "max"), "f1")
    assert table[1]["validation f1"] == "55 ± 7.1"
    assert table[1]["test f1"] == "54 ± 7.1"
    assert (table[1]["runs"], table[1]["parameters"], table[1]["items/s"]) == ("2", "7", "10")
    assert (table[2]["validation f1"], table[2]["runs"]) == ("-", "0")


def test_a_cell_of_which_a_run_has_no_metric_stands_below_the_others():
    lost = report(0.0)
    lost["metrics"]["validation"]["f1"]["value"] = None  # as the report writes inf and nan
    found = [
        summarise("a", {1: report(90.0), 2: lost, 3: report(90.0)}, {}, "f1"),
        summarise("b", {}, {1: "out of memory"}, "f1"),
        summarise("c", {1: report(70.0)}, {}, "f1"),
        summarise("d", {1: lost}, {}, "f1"),
    ]
    for mode in ("max", "min"):
        found = order(found, mode)
        assert [each.cell for each in found][:2] == ["c", "a"]
    table = {row["cell"]: row for row in rows(found, "f1")}
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

    def train(plan, cell, seed, place):
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
    assert [cell["cell"] for cell in written["cells"]] == ["mingru", "lstm", "gru"]
    assert written["cells"][0]["metrics"]["test"]["count"] == 3
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
        ("gaussians", [], "expected a recipe whose model has a cell, got a VectorClassifier"),
        ("hidden_markov", ["--model.recurrent.weight_drop", "0.5"], "cell 'mingru' in this recipe: weight_drop"),
        ("hidden_markov", ["--model.recurrent.backend", "native"], "cell 'mingru' in this recipe: backend"),
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
    plan = compare.Plan("recipe", ("gru",), (1,), 90, ("--data.limit=9",))
    place = tmp_path / "c" / "gru" / "seed_1"
    place.mkdir(parents=True)
    (place / "left.txt").write_text("of an interrupted run")

    def call(*lines):
        script.write_text("\n".join(["#!/bin/sh", 'echo "$@"', *lines]))
        script.chmod(0o755)
        error = compare.train(plan, "gru", 1, place)
        return error, capsys.readouterr().out, place.with_name("seed_1.log").read_text()

    done = [f"mkdir {place}", f"echo {{}} > {place}/report.json"]
    error, shown, log = call("echo 'epoch  loss'", "echo '    0   1.5'", "echo 'data: 12  of them'", *done)
    assert (error, shown) == ("", "  epoch  loss\n      0   1.5\n")
    words = log.splitlines()[0].split()
    assert words[:5] == ["-m", "rnnzoo", "fit", "recipe", "--data.limit=9"]
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
    assert (error, log.splitlines()[-1]) == ("", f"-m rnnzoo fit --resume={place}")
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
        ([], "--cells: expected names of cells"),
        (["--cells", "gru", "--seeds", "0"], "--seeds: expected a whole number"),
        (["--cells", "gru", "--budget", "30"], "--budget: expected a time such as 90s, 30m or 2h, got '30'"),
        (["--cells", "gru", "--budget", "0s"], "--budget: expected a time"),
        (["--cells", "gru", "--model.cell", "lstm"], "expected --cells, which sets it for each run, got --model.cell"),
        (["--cells", "gru", "--seed_everything", "3"], "expected --seeds"),
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


@pytest.mark.slow
def test_a_whole_comparison(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    assert run(tmp_path / "c", *OPTIONS, cells="gru,mingru") == 0
    out = capsys.readouterr().out
    assert "gru, seed 1: validation accuracy" in out
    written = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert {cell["cell"] for cell in written["cells"]} == {"gru", "mingru"}
    assert all(cell["memory"]["mean"] > 50 for cell in written["cells"])
