"""Runs that are killed at random moments, again and again, end with the weights of one that never was, bit by bit.

With the default settings: kernels are compiled as they would be for a user.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rnnzoo

# Checkpoints within an epoch come several times a second instead of every ten minutes.
OFTEN = """
from rnnzoo.callbacks import exact_resume
exact_resume.BATCHES_BETWEEN_LOOKS = 4
exact_resume.LastCheckpoint.__init__.__kwdefaults__["seconds"] = 0.2
"""
QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=3"]
PATTERNS = {  # with cells whose kernels are compiled
    "tagger": ["hidden_markov", "--model.cell=peephole", "--model.hidden_size=16", "--data.limit=1500"],
    "translator": ["dates", "--model.cell=mgu", "--model.hidden_size=16", "--data.limit=1500", "--data.batch_size=32"],
    "language model": ["markov_text", "--model.cell=mingru", "--model.hidden_size=16", "--model.dropout=0.2"],
}
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
KILLS = {("tagger", 1): 5, ("translator", 1): 5, ("language model", 1): 4}  # 20 in all, with
KILLS |= dict.fromkeys(((pattern, 2) for pattern in PATTERNS), 2)


def start(folder, *argv):
    environment = {
        **{key: value for key, value in os.environ.items() if key != "RNNZOO_COMPILE"},
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(rnnzoo.__file__).parents[1]),
    }
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "rnnzoo", "fit", *argv], cwd=folder, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip


def finish(folder, *argv):
    process = start(folder, *argv)
    try:
        assert process.wait(timeout=120) == 0, (folder / "log.txt").read_text(encoding="utf-8")[-4000:]
    finally:
        kill(process)


def kill(process):
    """Kill a run with all of its processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for_checkpoints(process, path, count):
    """Wait until a run has written so many checkpoints, or has ended."""

    def written():
        try:
            return path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    before, limit = written(), time.monotonic() + 300
    while count > 0 and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
        now = written()
        count -= now != before
        before = now


def trained(run):
    """Return the last weights, the state of the optimizer, and the weights that were the best."""
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    moments = {
        f"{number} {name}": value
        for number, state in stored["optimizer_states"][0]["state"].items()
        for name, value in state.items()
    }
    return {"last": stored["state_dict"], "optimizer": moments, "best": load_file(run / "model" / "model.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "processes"), KILLS)
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(tmp_path, pattern, processes):
    (tmp_path / "often.py").write_text(OFTEN, encoding="utf-8")
    options = ["--import", "often.py", *QUICK, *(TWO if processes == 2 else [])]
    recipe, *small = PATTERNS[pattern]
    fresh = [recipe, *small, *options, "--run_dir", "killed"]
    finish(tmp_path, recipe, *small, *options, "--run_dir", "whole")
    moments = random.Random(f"{pattern} {processes}")
    kills = within = 0
    run = tmp_path / "killed"
    last = run / "checkpoints" / "last.ckpt"

    def command():
        if last.is_file():
            return ["--resume", "killed", "--import", "often.py"]
        shutil.rmtree(run, ignore_errors=True)  # nothing was trained
        return fresh

    while kills < KILLS[pattern, processes]:
        process = start(tmp_path, *command())
        count = moments.randrange(5)  # of checkpoints; without one it may not have begun to train
        wait_for_checkpoints(process, last, count)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0, 0.5 if count else 10))
        kills += process.poll() is None
        kill(process)
        assert process.returncode in (0, -signal.SIGKILL), (tmp_path / "log.txt").read_text(encoding="utf-8")[-4000:]
        if (run / "report.json").is_file():  # it was faster
            same(run, tmp_path / "whole")
            shutil.rmtree(run)
        elif last.is_file():
            within += torch.load(last, weights_only=True)["callbacks"]["LastCheckpoint"]["place"][1] > 0
    finish(tmp_path, *command())
    same(run, tmp_path / "whole")
    print(f"{pattern}, {processes} processes: {kills} kills, {within} of them left a checkpoint within an epoch")


def same(run, whole):
    expected, found = trained(whole), trained(run)
    for kind, values in expected.items():
        assert values.keys() == found[kind].keys()
        for name, value in values.items():
            assert torch.equal(value, found[kind][name]), (kind, name)
