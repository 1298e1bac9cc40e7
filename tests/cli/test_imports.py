"""Code of users on the command line: when it is run, what is kept of it, and that a saved model never runs it."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from small_models import build

import rnnzoo
from rnnzoo.bundle import cells_in
from rnnzoo.cells import CELLS
from rnnzoo.cli import compare
from rnnzoo.cli.main import main
from rnnzoo.errors import InputError
from rnnzoo.imports import import_code

CODE = '''
import pathlib

import torch

import rnnzoo
from rnnzoo.cells.base import GatedCell, HiddenState

pathlib.Path(__file__).with_name("ran").open("a").write("x")


@rnnzoo.register_cell("leaky", source="me")
class LeakyCell(GatedCell):
    """h' = z h + (1 - z) n"""

    gate_count = 2

    def gates(self, projected, recurrent, state):
        z, n = (projected + recurrent).chunk(2, dim=-1)
        hidden = torch.lerp(torch.tanh(n), state.hidden, torch.sigmoid(z))
        return hidden, HiddenState(hidden)
'''
SMALL = ["--data.limit", "40", "--trainer.max_epochs", "1", "--model.hidden_size", "4", "--trainer.accelerator", "cpu"]
RECIPE = "many_to_many/hidden_markov"
pytestmark = pytest.mark.filterwarnings("ignore")


def forget(*modules):
    """Forget what a test imported, as a new process would have it."""
    for name in modules:
        sys.modules.pop(name, None)
    if "leaky" in CELLS:
        CELLS.remove("leaky")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a file with a cell, in the folder where commands run; forget it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "leaky_cells.py"
    path.write_text(CODE, encoding="utf-8")
    yield path
    forget("leaky_cells")


def runs(file):
    """Return how often the code ran."""
    ran = file.with_name("ran")
    return len(ran.read_text()) if ran.exists() else 0


def fails(capsys, *words):
    """Run a command that has to fail; return its one line."""
    assert main(list(words)) == 2
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = found.err.splitlines()
    return line


@pytest.mark.parametrize("words", [["--import", "leaky_cells.py"], ["--import=leaky_cells.py"]], ids=" ".join)
def test_cells_of_a_file_are_listed(file, capsys, words):
    for order in (["cells", "--json", *words], [*words, "cells", "--json"], ["cells", *words, *words, "--json"]):
        assert main(order) == 0
        found = {row["cell"]: row for row in json.loads(capsys.readouterr().out)}
        assert found["leaky"] == {"cell": "leaky", "kind": "gated", "summary": "h' = z h + (1 - z) n", "source": "me"}
    assert runs(file) == 1


def test_a_module_that_can_be_imported_has_no_ending(file, monkeypatch):
    monkeypatch.syspath_prepend(str(file.parent))
    import_code("leaky_cells")
    assert CELLS.entry("leaky").facts["code"] == "leaky_cells"
    import_code("leaky_cells.py")  # the same file, under another word
    assert runs(file) == 1


def test_a_file_finds_what_lies_beside_it(file):
    file.with_name("front_cells.py").write_text("import leaky_cells\n")
    import_code("front_cells.py")
    assert CELLS.entry("leaky").facts["code"] == "front_cells.py"
    forget("front_cells")


def test_from_training_to_answers(file, capsys):
    """The recipe keeps the file; the model names it, and runs it only if it is named."""
    words = ["--import", file.name, "--model.cell", "leaky", "--model.recurrent.zoneout", "0.1"]
    assert main(["fit", RECIPE, *words, *SMALL, "--run_dir", "run"]) == 0
    config = yaml.safe_load((file.parent / "run" / "config.yaml").read_text())
    assert config["imports"] == [str(file.resolve())]  # wherever the run is resumed
    assert config["model"]["init_args"]["recurrent"]["zoneout"] == 0.1
    stored = json.loads((file.parent / "run" / "model" / "config.json").read_text())
    assert stored["own_cells"] == {"leaky": "leaky_cells.py"}
    assert "--imports+=leaky_cells.py" in json.loads((file.parent / "run" / "report.json").read_text())["command"]

    forget("leaky_cells")
    (file.parent / "in.txt").write_text("w01 w02\n")
    capsys.readouterr()
    message = (
        "rnnzoo: error: run/model/config.json: expected a cell that is known here, got 'leaky', which leaky_cells.py "
        "registered; on the command line give --import leaky_cells.py, from Python import it before"
    )
    for verb in ("predict", "test", "generate"):
        assert fails(capsys, verb, "run") == message
    with pytest.raises(InputError, match=r"which leaky_cells\.py registered"):
        rnnzoo.load("run")
    assert runs(file) == 1
    assert main(["predict", "run", "--import", file.name, "--input", "in.txt", "--output", "out.jsonl"]) == 0
    assert len(json.loads((file.parent / "out.jsonl").read_text())["tags"]) == 2
    assert runs(file) == 2
    rnnzoo.save(rnnzoo.load("run"), "copy")
    assert json.loads((file.parent / "copy" / "config.json").read_text())["own_cells"] == {"leaky": "leaky_cells.py"}

    forget("leaky_cells")
    assert main(["fit", "run/config.yaml", "--trainer.fast_dev_run", "1"]) == 0  # the recipe names it
    assert runs(file) == 3


def test_a_run_goes_on_in_another_folder(file, tmp_path, capsys, monkeypatch):
    words = ["--import", file.name, "--model.cell", "leaky", *SMALL]
    assert main(["fit", RECIPE, *words, "--run_dir", "run"]) == 0
    run, more = str(file.parent / "run"), ["--trainer.max_epochs", "2"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    forget("leaky_cells")
    capsys.readouterr()
    message = f"none for {file}; if you trust them, add --import {file}"
    assert fails(capsys, "fit", "--resume", run, *more).endswith(message)
    assert runs(file) == 1  # that of the first training
    assert main(["fit", "--resume", run, *more, "--import", str(file)]) == 0
    moved = file.rename(tmp_path / "elsewhere" / file.name)
    forget("leaky_cells")
    capsys.readouterr()
    more = ["--trainer.max_epochs", "3"]
    assert fails(capsys, "fit", "--resume", run, *more).endswith(message)
    assert main(["fit", "--resume", run, "--import", str(moved), *more]) == 0


def test_a_model_of_the_zoo_names_no_code(tmp_path):
    rnnzoo.save(build("SequenceTagger"), tmp_path / "model")
    assert json.loads((tmp_path / "model" / "config.json").read_text())["own_cells"] == {}


def test_what_a_program_registered_is_told(file, tmp_path, monkeypatch):
    import_code(file.name)
    kind = CELLS["leaky"]
    CELLS.remove("leaky")
    monkeypatch.setattr(kind, "__module__", "__main__")
    rnnzoo.register_cell("leaky")(kind)
    rnnzoo.save(build("SequenceTagger", cell="leaky"), tmp_path / "model")
    CELLS.remove("leaky")
    with pytest.raises(InputError, match=r"got 'leaky', which a program registered; .* --import FILE\.py, from Python"):
        rnnzoo.load(tmp_path / "model")


@pytest.mark.parametrize("place", ["cell", "characters"])
def test_a_cell_that_a_folder_says_nothing_of_is_asked_for_too(place, tmp_path):
    rnnzoo.save(build("SequenceTagger"), tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["own_cells"]
    config["arguments"][place] = "leaky" if place == "cell" else {"kind": "rnn", "cell": "leaky"}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"got 'leaky'; .* --import FILE\.py, from Python .*, or update rnnzoo$"):
        rnnzoo.load(tmp_path / "model")


def test_an_option_of_a_cell_is_no_cell():
    assert cells_in({"cell": "gru", "recurrent": {"zoneout": {"cell": 0.5}, "cell_options": {"cell": "x"}}}) == ["gru"]


def test_runs_of_a_comparison_are_told_of_the_file(file, monkeypatch):
    told = []
    monkeypatch.setattr(compare, "train", lambda plan, *rest: told.append(plan.overrides) or "not now")
    assert main(["compare", RECIPE, "--import", file.name, "--cells", "leaky,rnn", "--run_dir", "compared"]) == 1
    assert told == [("--imports+=leaky_cells.py",)] * 2


@pytest.mark.slow
def test_cells_are_compared_in_processes_that_know_them(file, capsys):
    words = ["compare", RECIPE, "--import", file.name, "--cells", "leaky,rnn", *SMALL, "--run_dir", "compared"]
    assert main(words) == 0
    assert (file.parent / "compared" / "leaky" / "seed_1" / "report.json").is_file()
    assert "leaky" in capsys.readouterr().out


def test_a_recipe_that_names_code_is_compared_and_looked_at(file, capsys):
    recipe = file.with_name("own.yaml")
    recipe.write_text("imports: [nothing.py]\n")
    for verb in ("compare", "gradients", "fit"):
        assert "import of nothing.py: expected a file of Python, got nothing" in fails(
            capsys, verb, "own.yaml", *([] if verb == "fit" else ["--cells", "leaky"])
        )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nothing.py", None, "expected a file of Python, got nothing"),
        ("nothing", None, "expected a file that ends in .py, or an installed module, got neither"),
        ("leaky_cells", None, "got neither; give leaky_cells.py"),
        ("nothing.at.all", None, "got neither"),
        ("bad.py", "x = (\n", "expected Python that runs, got SyntaxError: '(' was never closed (bad.py, line 1)"),
        ("bad.py", "\n\nimport torhc\n", "ModuleNotFoundError: No module named 'torhc' (bad.py, line 3)"),
        ("bad.py", "1 / 0\n", "ZeroDivisionError: division by zero (bad.py, line 1)"),
        ("torch.py", "", "expected a file whose name is not that of another module, got torch; rename it"),
        ("turtle.py", "", "expected a file whose name is not that of another module, got turtle"),
        ("bad.py", "import rnnzoo\nrnnzoo.register_cell('gru')(int)\n", "cell 'gru': expected a class that derives"),
    ],
)
def test_code_that_does_not_run_is_one_line(file, capsys, name, text, message):
    if text is not None:
        file.with_name(name).write_text(text)
    for _ in range(2):  # what failed once is not taken for imported
        line = fails(capsys, "cells", "--import", name)
        assert message in line
        assert line.startswith("rnnzoo: error: ")


@pytest.mark.parametrize("words", [["cells", "--import"], ["cells", "--import", "--json"], ["cells", "--import="]])
def test_an_import_of_nothing(file, capsys, words):
    assert "--import: expected a value, got none; write --import VALUE" in fails(capsys, *words)


@pytest.mark.parametrize("value", ["my.py", "[1]", "{a: b}", "3"])
def test_imports_of_a_recipe_are_a_list(file, capsys, value):
    file.with_name("own.yaml").write_text(f"imports: {value}\n")
    assert "own.yaml: imports: expected a list of files or modules" in fails(capsys, "fit", "own.yaml")
