"""What a model folder says of its data is data: `rnnzoo test` runs no code that only the folder names."""

from __future__ import annotations

import json
import sys

import pytest

import rnnzoo
from rnnzoo.cli.main import main
from rnnzoo.cli.stored_data import check_stored_data
from rnnzoo.data import DATA_MODULES
from rnnzoo.errors import InputError
from rnnzoo.imports import import_code

CODE = """
import pathlib

from rnnzoo.data import TaggingData

pathlib.Path(__file__).with_name("ran").write_text("x")


class Mine(TaggingData):
    def __init__(self, *, anything: object = None, batch_size: int = 8, **options) -> None:
        super().__init__(batch_size=batch_size, **options)


class Stranger:
    pass
"""
PATH = "rnnzoo.data.TaggingData"
SMALL = ["--data.limit", "40", "--trainer.max_epochs", "1", "--model.hidden_size", "4", "--trainer.accelerator", "cpu"]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train once for all tests."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main(["fit", "many_to_many/hidden_markov", *SMALL, "--run_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Write code that leaves a trace when it is run, and a YAML file that names it, where imports find them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "planted.py").write_text(CODE)
    (tmp_path / "planted.yaml").write_text("class_path: planted.Mine\n")
    yield tmp_path
    sys.modules.pop("planted", None)


def stored(trained, change):
    """Return the data section of the trained model after a change."""
    data = json.loads((trained / "model" / "config.json").read_text())["data"]
    change(data)
    return data


ATTACKS = {
    "another class": lambda data: data.update(class_path="planted.Mine"),
    "a class in options": lambda data: data["init_args"].update(words={"class_path": "planted.Mine"}),
    "a class beside options": lambda data: data["init_args"]["words"].update(class_path="planted.Mine"),
    "a file of options": lambda data: data["init_args"].update(words="planted.yaml"),
    "a path of options": lambda data: data["init_args"].update(characters="planted.Mine"),
    "a list of options": lambda data: data["init_args"].update(words=["planted.Mine"]),
    "an argument that is none": lambda data: data["init_args"].update(anything="planted.Mine"),
    "other keys": lambda data: data.update(dict_kwargs={"anything": {"class_path": "planted.Mine"}}),
    "a file of arguments": lambda data: data.update(init_args="planted.yaml"),
    "a class that is no text": lambda data: data.update(class_path=["planted.Mine"]),
    "a name that is no class of data": lambda data: data.update(class_path="rnnzoo.data.planted.TaggingDat"),
}


@pytest.mark.parametrize("change", ATTACKS.values(), ids=list(ATTACKS))
def test_a_folder_runs_nothing(trained, place, capsys, change):
    path = trained / "model" / "config.json"
    before = path.read_text()
    config = json.loads(before)
    change(config["data"])
    try:
        path.write_text(json.dumps(config))
        assert main(["test", str(trained)]) == 2
    finally:
        path.write_text(before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rnnzoo: error: {path}: data")
    assert not (place / "ran").exists()
    assert "planted" not in sys.modules


@pytest.mark.parametrize("section", ["planted.Mine", ["planted.Mine"], {}, {"init_args": {}}], ids=str)
def test_a_section_of_another_form_is_refused(place, section):
    with pytest.raises(InputError, match="here: data"):
        check_stored_data(section, "here")
    assert "planted" not in sys.modules


def test_what_fit_stores_is_taken_as_it_is(trained):
    data = stored(trained, lambda data: None)
    assert check_stored_data(data, "here") == data
    assert check_stored_data(None, "here") is None
    assert main(["test", str(trained)]) == 0


@pytest.mark.parametrize("name", DATA_MODULES)
def test_data_of_the_zoo_are_known_by_either_name(name):
    expected = {"class_path": f"rnnzoo.data.{name}", "init_args": {"batch_size": 3}}
    for path in (name, f"rnnzoo.data.{name}", DATA_MODULES[name].__module__ + f".{name}"):
        assert check_stored_data({**expected, "class_path": path}, "here") == expected


def test_data_of_a_user_are_known_once_their_code_is_named(trained, place):
    data = stored(trained, lambda data: data.update(class_path="planted.Mine"))
    with pytest.raises(
        InputError, match=r"here: data: expected data that are known here, got 'planted.Mine'; .*--import"
    ):
        check_stored_data(data, "here")
    import_code("planted.py")
    assert check_stored_data(data, "here") == data
    for bad in ("planted.Stranger", "planted.Missing", "os.system", "rnnzoo.data.base.ZooData"):
        with pytest.raises(InputError, match="data that are known here"):
            check_stored_data({**data, "class_path": bad}, "here")


@pytest.mark.parametrize("value", ["os.system", {"class_path": "subprocess.Popen"}, ["os.system"]], ids=str)
def test_what_may_be_any_object_is_no_text_that_could_name_one(place, value):
    import_code("planted.py")
    data = {"class_path": "planted.Mine", "init_args": {"anything": value}}
    with pytest.raises(InputError, match=r"here: data.anything: expected a value that names no code"):
        check_stored_data(data, "here")
    for plain in (None, 3, True, 0.5):
        data = {"class_path": "planted.Mine", "init_args": {"anything": plain}}
        assert check_stored_data(data, "here") == data


def test_a_folder_does_not_start_hundreds_of_processes(trained, place, capsys, monkeypatch):
    data = stored(trained, lambda data: data["init_args"].update(num_workers=400))
    with pytest.raises(InputError, match=r"data.num_workers: expected at most 64 processes, got 400; set RNNZOO_MAX_W"):
        check_stored_data(data, "here")
    monkeypatch.setenv("RNNZOO_MAX_WORKERS", "400")
    assert check_stored_data(data, "here")["init_args"]["num_workers"] == 400


def test_from_python_a_folder_is_loaded_whatever_its_data_say(trained, place):
    """They are not read then."""
    assert rnnzoo.load(trained) is not None
