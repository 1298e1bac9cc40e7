"""Files are whole or as they were, whenever a process ends and whatever the disk says; nothing else writes files."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rnnzoo
from rnnzoo import files
from rnnzoo.errors import InputError
from rnnzoo.files import atomic_file, atomic_folder, remove_leftovers, write_atomically

ROOT = Path(rnnzoo.__file__).parent
WRITERS = {"write_text", "write_bytes", "savefig", "save_file", "mkstemp", "mkdtemp", "NamedTemporaryFile", "dump"}
OWN_WAY = {  # file → what it may call: files that no run depends on, and streams that only grow
    "files.py": {"open"},
    "cli/compare_run.py": {"open"},  # the log of a run, which grows
    "cli/metrics_log.py": {"open"},  # rows at the end; half of one is left out on reading
    "cli/output.py": set(),
    "checkpoints.py": {"torch.save"},  # into memory
    "kernels/torch_private.py": None,  # what is compiled, which torch keeps
    "cli/engine.py": {"dump"},  # YAML as text
}


def writes(tree):
    """Return the calls of a module that write files in another way than `rnnzoo.files` does."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        path_first = isinstance(node.func, ast.Name) or name == "fdopen"  # open(path, mode), but path.open(mode)
        words = [*node.args[path_first:], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
        modes = [word.value for part in words for word in ast.walk(part) if isinstance(word, ast.Constant)]
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if name == "save" and owner in ("torch", "np"):
            yield f"{owner}.save"
        elif name in ("open", "fdopen", "open_memmap"):
            if any(isinstance(mode, str) and set(mode) & set("wxa+") and set(mode) <= set("wxabt+") for mode in modes):
                yield "open"
        elif name == "savefig":
            if not (isinstance(node.args[0], ast.Name) and node.args[0].id == "file"):
                yield name
        elif name in WRITERS:
            yield name


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_all_files_are_written_by_one_function(path):
    allowed = OWN_WAY.get(path.relative_to(ROOT).as_posix(), set())
    if allowed is not None:
        assert set(writes(ast.parse(path.read_text(encoding="utf-8")))) <= allowed


def test_the_reader_of_calls_sees_them():
    source = "open('a', 'w')\nPath('a').open(mode='x')\nPath('a').write_text('')\ntorch.save({}, 'a')\nopen('a')\n"
    source += "figure.savefig(path)\nsave_file({}, 'a')\npath.open('rb')\nfigure.savefig(file)\n"
    assert sorted(writes(ast.parse(source))) == ["open", "open", "save_file", "savefig", "torch.save", "write_text"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_file_is_replaced_as_a_whole_with_the_usual_mode(tmp_path, mask):
    target = tmp_path / "text"
    before = os.umask(mask)
    try:
        write_atomically(target, "a long first version")
        write_atomically(target, "shört")
        with atomic_folder(tmp_path / "folder") as folder:
            write_atomically(folder / "bytes", b"\0")
    finally:
        os.umask(before)
    assert target.read_text(encoding="utf-8") == "shört"
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bytes", "folder", "text"]


@pytest.mark.parametrize("step", ["write", "flush", "fsync", "replace"])
def test_what_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch, step):
    target = tmp_path / "text"
    write_atomically(target, "old")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    if step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, fail)

    def write():
        with atomic_file(target) as file:
            file.write(b"new")
            if step == "flush":
                file.flush()
            if step in ("write", "flush"):
                fail()

    with pytest.raises(OSError, match="Input/output error"):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


KILLED = """
import os, signal, sys
from rnnzoo import files
step, target = sys.argv[1:]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
with files.atomic_file(target) as file:
    file.write(b"new" * 100000)
    if step == "write":
        kill()
    setattr(os, step, kill)
"""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_killed_process_leaves_the_file_as_it_was_and_what_it_left_is_removed(tmp_path, step):
    target = tmp_path / "deep" / "text"
    target.parent.mkdir()
    write_atomically(target, "old")
    other = tmp_path / ".hidden.tmp"
    other.write_text("somebody else's")
    killed = subprocess.run([sys.executable, "-c", KILLED, step, str(target)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    assert len(list(target.parent.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in target.parent.iterdir()] == ["text"]
    assert other.is_file()


@pytest.mark.parametrize("step", ["before", "between", "after"])
def test_a_folder_that_was_being_replaced_comes_back(tmp_path, monkeypatch, step):
    folder = tmp_path / "model"
    with atomic_folder(folder) as new:
        write_atomically(new / "a", "old")
    calls = {"before": 0, "between": 1, "after": 2}[step]
    real = os.replace

    def break_off(source, target):
        nonlocal calls
        if Path(target).parent == tmp_path:
            if calls == 0:
                raise KeyboardInterrupt
            calls -= 1
        real(source, target)

    def keep(*_, **__):
        """As if the process were gone: nothing is cleaned."""

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", break_off)
        broken.setattr(files.shutil, "rmtree", keep)
        try:
            with atomic_folder(folder) as new:
                write_atomically(new / "a", "new")
        except KeyboardInterrupt:
            pass
    remove_leftovers(tmp_path)
    assert (folder / "a").read_text() == ("new" if step == "after" else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_a_full_or_protected_folder_is_named(tmp_path, monkeypatch, number, make):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError) as caught, make(tmp_path / "name"):
        pass
    assert str(caught.value).startswith(f"{tmp_path}: expected ")
    assert "name" in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), atomic_file(tmp_path / "answers"):
        raise PermissionError(errno.EACCES, "Permission denied", "/their/photo.jpg")
