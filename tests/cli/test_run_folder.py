"""A folder belongs to one run: claimed by who makes it, locked while a process works on it, free once it is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from rnnzoo.cli import run_folder
from rnnzoo.cli.main import main
from rnnzoo.cli.run_folder import claim_run_folder, lock_folder, start_of
from rnnzoo.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, about small data
HOLDER = """
import sys, time
from contextlib import suppress
from pathlib import Path
from rnnzoo.cli.run_folder import lock_folder
with lock_folder(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def first_process(monkeypatch):
    for name in (*run_folder.RANK_VARIABLES, run_folder.RUN_FOLDER_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    """Run a test with the locks of the file system, and on one that has none."""
    if request.param == "no locks":
        monkeypatch.setattr(run_folder, "fcntl", None)


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: run_folder.make_folder(None, "a/b")[0], range(24)))
    assert len(set(made)) == 24
    assert all(folder.is_dir() for folder in made)


def test_a_wanted_folder_has_one_owner(tmp_path):
    def claim(_):
        try:
            return run_folder.make_folder(str(tmp_path / "deep" / "run"), "a")[0]
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(claim, range(24)))
    assert sum(isinstance(each, Path) for each in made) == 1
    assert all("expected a new folder, got one that exists" in each for each in made if isinstance(each, str))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_run_that_fails_keeps_its_folder_if_it_has_a_checkpoint(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    folders = []

    def begin():
        with claim_run_folder(None, "a/b") as folder:
            folders.append(folder)
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / ("best.ckpt" if checkpoint else "notes")).write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    (folder,) = folders
    assert folder.is_dir() == checkpoint
    assert not (folder / ".lock").exists()
    assert (tmp_path / "runs").is_dir()
    assert (tmp_path / "runs" / "a").exists() == checkpoint


def test_a_command_that_writes_nothing_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--data.limit", "40", "--model.hidden_size", "4", "--trainer.accelerator", "cpu"]
    assert main(["fit", "hidden_markov", *small, "--trainer.fast_dev_run", "true"]) == 0
    assert main(["fit", "hidden_markov", *small, "--model.cell", "lstmm"]) == 2
    with pytest.raises(SystemExit):
        main(["fit", "hidden_markov", "--print_config"])
    capsys.readouterr()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_a_process_works_on_is_refused_with_its_number(tmp_path, holder, monkeypatch):
    with pytest.raises(InputError, match=f"it: expected a folder .* got one that process {holder.pid} on .* works on"):
        lock_folder(tmp_path, "it").__enter__()
    monkeypatch.setattr(run_folder, "fcntl", None)
    with pytest.raises(InputError, match=f"got one that process {holder.pid} on"):
        lock_folder(tmp_path, "it").__enter__()


@pytest.mark.usefixtures("locks")
def test_the_lock_of_a_dead_process_is_taken_over_and_its_temporary_files_go(tmp_path, holder):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.0a1b2c3d.tmp").write_text("half")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").is_file()
    with lock_folder(tmp_path, "it"):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
        assert list((tmp_path / "checkpoints").iterdir()) == []
    assert not (tmp_path / ".lock").exists()


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": null, "host": 3}'])
def test_a_lock_file_that_tells_nothing_does_not_end_in_a_traceback(tmp_path, text):
    (tmp_path / ".lock").write_text(text)
    with suppress(InputError), lock_folder(tmp_path, "it"):
        pass


def test_another_process_of_the_same_number_is_no_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "fcntl", None)
    owner = {"pid": os.getpid(), "host": run_folder.socket.gethostname(), "started": "1"}
    (tmp_path / ".lock").write_text(json.dumps(owner))
    assert start_of(os.getpid()) not in (None, "1")
    with lock_folder(tmp_path, "it"):
        pass
    (tmp_path / ".lock").write_text(json.dumps({**owner, "host": "elsewhere"}))
    with pytest.raises(InputError, match=r"got one that process .* on elsewhere works on"):
        lock_folder(tmp_path, "it").__enter__()


@pytest.mark.parametrize("name", run_folder.RANK_VARIABLES)
def test_other_processes_of_a_run_get_its_folder_and_no_lock(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with claim_run_folder(None, "a") as folder:
        monkeypatch.setenv(name, "1")
        with claim_run_folder(None, "a") as same, lock_folder(folder, "it"):
            assert same == folder
        assert (folder / ".lock").is_file()
        monkeypatch.delenv(name)


def test_a_run_or_comparison_that_is_at_work_is_not_touched_by_another(tmp_path, holder, capsys):
    (tmp_path / "config.yaml").write_text("# a run of x\nmodel: {}\n")
    assert main(["fit", "--resume", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert f"--resume {tmp_path}: expected a folder that no process works on, got one that process {holder.pid}" in told
    assert told.count("\n") == 1
    (tmp_path / "config.yaml").unlink()
    small = ["--data.limit", "40", "--model.hidden_size", "4"]
    assert main(["compare", "hidden_markov", "--cells", "gru", "--run_dir", str(tmp_path), *small]) == 2
    assert f"--run_dir {tmp_path}: expected a folder that no process works on" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_comparison_does_not_remove_a_run_that_another_process_works_on(tmp_path, holder):
    from rnnzoo.cli.compare_run import Plan, train

    (tmp_path / "notes").write_text("at work")
    error = train(Plan("hidden_markov", ("gru",), (1,), None, ()), "gru", 1, tmp_path)
    assert f"process {holder.pid} on" in error
    assert (tmp_path / "notes").is_file()
