"""A run is resumed on the files that it began with, or it says that it was not."""

from __future__ import annotations

import json
import shutil

import pytest

from rnnzoo.cells import CELLS
from rnnzoo.cli.inputs import NAME, named_files
from rnnzoo.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
SMALL = ["--model.hidden_size=4", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
ROWS = "text,label\n" + "".join(
    f"{word} day number {index},{word}\n" for index in range(12) for word in ("good", "bad")
)
VECTORS = "good 0.1 0.2\nbad 0.3 0.4\nday 0.5 0.6\n"
CELL = """
from rnnzoo import register_cell
from rnnzoo.cells.gru import GRUCell

@register_cell("resumed", source="a test")
class ResumedCell(GRUCell):
    pass
"""


@pytest.fixture(scope="module")
def began(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs") / "began"
    (folder / "data").mkdir(parents=True)
    for split in ("train", "val", "test"):  # of the same contents: a file that is gone was not renamed
        (folder / "data" / f"{split}.csv").write_text(ROWS)
    (folder / "vectors.txt").write_text(VECTORS)
    (folder / "resumed_cell.py").write_text(CELL)
    words = ["--data.path", str(folder / "data"), "--model.words.vectors", str(folder / "vectors.txt")]
    words += ["--model.words.size=2", "--import", str(folder / "resumed_cell.py"), "--model.cell=resumed"]
    run = ["--trainer.max_epochs=1", "--run_dir", str(folder / "run")]
    assert main(["fit", "many_to_one/sst2", *SMALL, *words, *run]) == 0
    yield folder
    CELLS.remove("resumed")  # which other tests do not expect


@pytest.fixture
def work(began):
    """Return the folder of the run and its files, as they were when the run ended."""
    pristine = began.with_name("pristine")
    if not pristine.is_dir():
        shutil.copytree(began, pristine)
    shutil.rmtree(began)
    return shutil.copytree(pristine, began)


def resume(work, *words):
    return main(["fit", "--resume", str(work / "run"), "--trainer.max_epochs=2", *words])


CHANGES = {
    "train": (lambda work: (work / "data" / "train.csv").write_text(ROWS + "good,bad\n"), "train.csv was changed"),
    "test": (lambda work: (work / "data" / "test.csv").write_text(ROWS + "bad,bad\n"), "test.csv was changed"),
    "gone": (lambda work: (work / "data" / "val.csv").unlink(), "val.csv is missing"),
    "new": (lambda work: (work / "data" / "more_train.csv").write_text(ROWS + "x,bad\n"), "more_train.csv is new"),
    "vectors": (
        lambda work: (work / "vectors.txt").write_text(VECTORS.replace("0.1", "0.7")),
        "model.init_args.words.vectors was changed",
    ),
    "code": (lambda work: (work / "resumed_cell.py").write_text(CELL + "\n"), "imports.resumed_cell.py was changed"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changed_is_named(work, capsys, name):
    change, told = CHANGES[name]
    change(work)
    before = {path: path.read_bytes() for path in (work / "run").rglob("*") if path.is_file()}
    words = ["--import", str(work / "resumed_cell.py")]
    assert resume(work, *words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"--resume {work / 'run'}: expected the files that the run began with, got {told}; bring them back" in error
    assert {path: path.read_bytes() for path in (work / "run").rglob("*") if path.is_file()} == before


def test_with_the_key_it_goes_on_and_the_report_says_so(work, capsys):
    CHANGES["vectors"][0](work)
    words = ["--import", str(work / "resumed_cell.py")]
    assert resume(work, *words, "--allow_changed_data") == 0
    change = "resumed after 1 steps on changed files: model.init_args.words.vectors was changed"
    assert change in json.loads((work / "run" / "report.json").read_text())["data"]["notes"]
    assert resume(work, *words, "--trainer.max_epochs=3") == 0  # these are its files now
    assert change in json.loads((work / "run" / "report.json").read_text())["data"]["notes"]


def test_files_that_moved_or_were_renamed_are_the_same(work):
    (work / "data").rename(work / "elsewhere")
    (work / "elsewhere" / "val.csv").rename(work / "elsewhere" / "dev.csv")
    words = ["--data.path", str(work / "elsewhere"), "--import", str(work / "resumed_cell.py")]
    assert resume(work, *words) == 0


def test_a_run_of_an_earlier_version_is_resumed(work):
    (work / "run" / NAME).unlink()
    CHANGES["vectors"][0](work)
    assert resume(work, "--import", str(work / "resumed_cell.py")) == 0
    assert (work / "run" / NAME).is_file()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": 3, "files": {}, "changes": []}'])
def test_a_damaged_record_is_one_line(work, capsys, text):
    (work / "run" / NAME).write_text(text)
    assert resume(work, "--import", str(work / "resumed_cell.py")) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"rnnzoo: error: {work / 'run' / NAME}: expected JSON")


def test_words_that_happen_to_name_a_file_are_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("lstm", "vectors.txt", "train.csv"):
        (tmp_path / name).write_text("x")
    tree = {
        "init_args": {"cell": "lstm", "train": "train.csv", "words": {"vectors": "vectors.txt"}, "text": "a/" * 5000}
    }
    assert dict(named_files(tree, "model")).keys() == {"model.init_args.words.vectors", "model.init_args.train"}
    assert dict(named_files(tree, "data")).keys() == {"data.init_args.words.vectors"}
