"""Recipes: found by name or file, read with clear complaints; each that ships parses, builds and takes one step."""

from __future__ import annotations

import os

import pytest
import yaml
from catalogue_models import CELLS, RECIPES

from rnnzoo import recipes
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe, list_recipes, read_recipe

LONGEST = 60  # lines

VALID = """# A title
#
#   rnnzoo fit a/b
model:
  class_path: rnnzoo.models.SequenceTagger
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put three recipes into a folder that stands for that of the package."""
    for name in ("one/alpha", "one/same", "two/same"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(VALID.replace("A title", f"Title of {name}"), encoding="utf-8")
    (tmp_path / "results").mkdir()
    (tmp_path / "one" / "notes.md").write_text("no recipe", encoding="utf-8")
    monkeypatch.setattr(recipes, "recipe_folder", lambda: tmp_path)
    return tmp_path


# Finding


def test_recipes_are_listed_by_name_with_their_titles(folder):
    assert [(recipe.name, recipe.pattern, recipe.title) for recipe in list_recipes()] == [
        ("one/alpha", "one", "Title of one/alpha"),
        ("one/same", "one", "Title of one/same"),
        ("two/same", "two", "Title of two/same"),
    ]
    assert [recipe.name for recipe in list_recipes("two")] == ["two/same"]


def test_an_unknown_pattern_is_refused(folder):
    with pytest.raises(InputError, match="one of one, two, got 'twoo'; did you mean 'two'"):
        list_recipes("twoo")


@pytest.mark.parametrize("name", ["one/alpha", "alpha"])
def test_a_recipe_is_found_by_its_name_or_its_end(folder, name):
    assert find_recipe(name).path == folder / "one" / "alpha.yaml"


def test_an_ambiguous_end_is_refused(folder):
    with pytest.raises(InputError, match="one/same and two/same"):
        find_recipe("same")


def test_an_unknown_recipe_is_refused_with_the_nearest(folder):
    with pytest.raises(InputError, match="did you mean 'one/alpha'"):
        find_recipe("one/alhpa")


@pytest.mark.parametrize("file", ["mine.yaml", "mine.yml", "mine"])
def test_a_file_is_a_recipe_too(folder, tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / file).write_text(VALID, encoding="utf-8")
    found = find_recipe(file)
    assert (found.name, found.title) == (file, "A title")
    assert read_recipe(found.path) == {"model": {"class_path": "rnnzoo.models.SequenceTagger"}}


@pytest.mark.parametrize("file", ["missing.yaml", "one.yaml"])
def test_a_yaml_file_that_is_none_is_refused(folder, tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.yaml").mkdir()
    with pytest.raises(InputError, match="expected a YAML file"):
        find_recipe(file)


def test_a_recipe_without_a_comment_is_called_by_its_file(tmp_path):
    path = tmp_path / "plain.yaml"
    path.write_text("model: {}\n", encoding="utf-8")
    assert find_recipe(str(path)).title == "plain"


# Reading


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        (b"model: [1, 2\ndata: 3\n", "line 2"),
        (b"model:\n\tcell: gru\n", "line 2"),
        (b"", "NoneType"),
        (b"# only a comment\n", "NoneType"),
        (b"- a\n- b\n", "list"),
        (b"just text\n", "str"),
        (b"model: \xff\n", "0xff"),
        (b"model: !!python/object/apply:os.getcwd []\n", "line 1"),
    ],
)
def test_malformed_files_are_refused(tmp_path, contents, complaint):
    path = tmp_path / "bad.yaml"
    path.write_bytes(contents)
    with pytest.raises(InputError, match=complaint) as caught:
        read_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_recipe(tmp_path / "none.yaml")


# The recipes that ship


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_says_what_it_is_and_how_it_is_run(name):
    text = find_recipe(name).path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= LONGEST
    head = [line for line in lines if line.startswith("#")]
    assert lines[: len(head)] == head, "the head comment comes first"
    assert len(find_recipe(name).title) > 20
    assert any(line.lstrip("# ").startswith(f"rnnzoo fit {name}") for line in head)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_its_model_and_data_and_no_unknown_key(name):
    from rnnzoo.cli.config_errors import refuse_unknown_keys

    path = find_recipe(name).path
    tree = read_recipe(path)
    case = RECIPES[name]
    assert tree["model"]["class_path"] == f"rnnzoo.models.{case.model}"
    assert tree["data"]["class_path"] == f"rnnzoo.data.{case.data}"
    assert tree["seed_everything"] == 1
    assert ("synthetic" in tree["data"]["init_args"]) == (case.write is None)
    refuse_unknown_keys([f"--config={path}"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in an empty folder with its own cache; the environment is put back afterwards."""
    import datasets

    from rnnzoo.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = dict(os.environ)
    os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"  # Lightning calls a method by its former name
    yield lambda *words: main(list(words))
    os.environ.clear()
    os.environ.update(before)


def arguments_of(name, tmp_path):
    """Return the command line that trains a recipe for one step on files made up here."""
    case = RECIPES[name]
    words = ["fit", name, "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    if case.write is None:
        return [
            *words,
            "--data.limit",
            "64",
            "--data.synthetic_options.sizes",
            "{train: 256, validation: 64, test: 64}",
        ]
    files = tmp_path / "files"
    files.mkdir()
    case.write(files)
    return [*words, "--data.path", str(files), *case.arguments]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_and_takes_one_step(name, tmp_path, run, capsys):
    assert run(*arguments_of(name, tmp_path)) == 0, capsys.readouterr().err
    assert RECIPES[name].model in capsys.readouterr().out
    assert not (tmp_path / "runs").exists(), "a trial leaves nothing behind"


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", [name for name, case in RECIPES.items() if case.model != "VectorClassifier"])
def test_the_cell_of_a_recipe_can_be_swapped(name, cell, tmp_path, run, capsys):
    assert run(*arguments_of(name, tmp_path), "--model.cell", cell) == 0, capsys.readouterr().err
    assert f"cell {cell}" in capsys.readouterr().out


def test_printed_configuration_is_itself_a_recipe(tmp_path, run, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("fit", "many_to_many/hidden_markov", "--model.cell", "gru", "--print_config")
    assert stopped.value.code in (0, None)
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["model"]["init_args"]["cell"] == "gru"
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert read_recipe(copy)["data"]["init_args"]["synthetic"] == "hidden_markov"
