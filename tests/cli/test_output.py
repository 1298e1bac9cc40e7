"""Where commands write: what cannot be is told in one line before any work, and nothing is left half-written."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from rnnzoo.cli import bench
from rnnzoo.cli.main import main
from rnnzoo.cli.output import check_writable, open_target
from rnnzoo.errors import InputError


@pytest.fixture
def working(tmp_path, monkeypatch):
    """Work in a folder with a file in it, and let whoever begins to work fail."""
    (tmp_path / "a.csv").write_text("text,label\n")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "measure", lambda *_: pytest.fail("work was done for nothing"))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fit", "hidden_markov", "--run_dir", "a.csv/run"], "--run_dir a.csv/run: expected a place in a folder"),
        (["gradients", "hidden_markov", "--run_dir", "a.csv/b/c"], "--run_dir a.csv/b/c: expected a place in a folder"),
        (["compare", "hidden_markov", "--cells", "gru", "--run_dir", "a.csv/x"], "a.csv/x: expected a file or folder"),
        (["bench", "step", "--json", "nothing/rows.json"], "--json nothing/rows.json: expected a file in a folder"),
        (["bench", "step", "--json", "folder"], "--json folder: expected a file, got a folder"),
        (["bench", "step", "--json", "a.csv/rows.json"], "--json a.csv/rows.json: expected a file in a folder"),
        (["test", "folder", "--output", "nothing/x.json"], "--output nothing/x.json: expected a file in a folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_place_that_cannot_be_is_told_at_once(working, capsys, monkeypatch, arguments, expected):
    monkeypatch.setattr("rnnzoo.cli.compare.refuse_unfit", lambda *_: None)
    before = sorted(working.rglob("*"))
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert told.count("\n") == 1
    assert sorted(working.rglob("*")) == before


def test_a_folder_that_others_own_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, _: stat.S_IMODE(os.stat(path).st_mode) != 0o555)  # root may all
    (tmp_path / "theirs").mkdir(mode=0o555)
    with pytest.raises(InputError, match=r"--run_dir .*theirs/a/b: expected a folder that can be written to, got .*s,"):
        check_writable("--run_dir", tmp_path / "theirs" / "a" / "b")
    check_writable("--run_dir", tmp_path / "ours" / "a")


def test_an_error_of_the_system_is_one_line_and_a_bug_is_none(capsys, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied", "/their/file")

    monkeypatch.setattr("rnnzoo.cli.cells.run", refuse)
    assert main(["cells"]) == 2
    assert capsys.readouterr().err.startswith("rnnzoo: error: /their/file: expected a file or folder that can be used")
    with pytest.raises(PermissionError):
        main(["cells", "--debug"])

    def break_off(_):
        raise OSError("no file at all")

    monkeypatch.setattr("rnnzoo.cli.cells.run", break_off)
    with pytest.raises(OSError, match="no file at all"):
        main(["cells"])


def test_a_training_that_is_ended_from_outside_is_no_success(monkeypatch):
    def terminate(_):
        raise SIGTERMException

    def interrupt(_):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    for run, code in ((terminate, 143), (interrupt, 130)):
        monkeypatch.setattr("rnnzoo.cli.cells.run", run)
        assert main(["cells"]) == code
    monkeypatch.setattr("rnnzoo.cli.cells.run", lambda _: sys.exit(5))
    with pytest.raises(SystemExit, match="5"):
        main(["cells"])


def test_a_file_is_there_when_it_is_whole(tmp_path):
    target = tmp_path / "out"
    with open_target("--output", str(target)) as file:
        file.write("a")
        assert not target.exists()
    assert target.read_text() == "a"
    with pytest.raises(TypeError), open_target("--output", str(tmp_path / "other")) as file:
        file.write(b"b")
    with pytest.raises(InputError, match="expected a new file, got one that exists"), open_target("-o", str(target)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert target.read_text() == "a"
