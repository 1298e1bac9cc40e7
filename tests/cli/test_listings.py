"""Listings and help: what they print, and that nothing heavy is imported for them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rnnzoo.cells import CELLS
from rnnzoo.cli.main import VERBS, main
from rnnzoo.models import MODELS
from rnnzoo.recipes import list_recipes
from rnnzoo.version import __version__

HEAVY = (
    "datasets", "jsonargparse", "lightning", "matplotlib", "numpy", "pandas", "pyarrow", "safetensors", "tokenizers",
    "torch", "torchmetrics",
)  # fmt: skip
PROBE = """
import sys
from rnnzoo.cli.main import main
code = main(sys.argv[2:])
loaded = [name for name in sys.argv[1].split(",") if name in sys.modules]
sys.stderr.write(" ".join(loaded))
sys.exit(code)
"""
LIGHT = [
    [],
    ["--help"],
    ["--version"],
    *([verb, "--help"] for verb in VERBS),
    ["recipes"],
    ["recipes", "many_to_one", "--json"],
    ["cells"],
    ["cells", "--json"],
    ["models"],
    ["models", "--json"],
]


@pytest.mark.parametrize("arguments", LIGHT, ids=" ".join)
def test_nothing_heavy_is_imported(arguments):
    command = [sys.executable, "-c", PROBE, ",".join(HEAVY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", f"imported: {done.stderr}"
    assert done.stdout.strip()


def test_a_typo_is_told_without_importing_anything_heavy():
    command = [sys.executable, "-c", PROBE, ",".join(HEAVY), "fit", "hidden_markow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    complaint, loaded = done.stderr.split("\n")
    assert "hidden_markov" in complaint
    assert loaded == ""


def test_python_dash_m_works():
    command = [sys.executable, "-m", "rnnzoo", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout


def listed(capsys, *arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_help_names_every_verb(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_shows_how_it_is_called(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: rnnzoo {verb}")


def test_json_of_cells_lists_all_of_them(capsys):
    rows = listed(capsys, "cells")
    assert [row["cell"] for row in rows] == list(CELLS)
    assert all(
        row["kind"] in ("gated", "staged", "linear", "general") and row["summary"] and row["source"] for row in rows
    )


def test_json_of_models_lists_all_of_them(capsys):
    rows = listed(capsys, "models")
    assert [(row["model"], row["pattern"]) for row in rows] == [
        (name, MODELS.entry(name).facts["pattern"]) for name in MODELS
    ]


def test_json_of_recipes_lists_all_of_them_or_those_of_a_pattern(capsys):
    assert [row["recipe"] for row in listed(capsys, "recipes")] == [recipe.name for recipe in list_recipes()]
    rows = listed(capsys, "recipes", "many_to_one")
    assert rows
    assert all(row["recipe"].startswith("many_to_one/") for row in rows)


@pytest.mark.parametrize("verb", ["recipes", "cells", "models"])
def test_tables_have_a_header_and_a_line_for_each_entry(verb, capsys):
    rows = listed(capsys, verb)
    assert main([verb]) == 0
    header, *lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert header.split()[0] == verb.removesuffix("s")
    assert [line.split()[0] for line in lines] == [row[verb.removesuffix("s")] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recipez"], "did you mean 'recipes'"),
        (["recipes", "many_to_ten"], "did you mean 'many_to_one'"),
        (["recipes", "many_to_one", "one_to_one"], "many_to_one"),
        (["cells", "lstm"], "no argument"),
        (["models", "--jsn"], "--jsn"),
        (["fit", "--trainer.max_epochs", "1"], "rnnzoo recipes"),
        (["predict", "--input"], "a value"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, complaint, capsys):
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert complaint in printed.err


def test_debug_shows_where_a_mistake_was_found():
    with pytest.raises(ValueError, match="did you mean 'cells'"):
        main(["cell", "--debug"])
