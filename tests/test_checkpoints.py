"""Checkpoints are whole or as they were, and damage is seen wherever it is."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest
import torch

from rnnzoo.checkpoints import AtomicCheckpointIO, newest_readable, read_checkpoint
from rnnzoo.errors import InputError

CHECKPOINT = {"epoch": 1, "global_step": 8, "state_dict": {"weight": torch.arange(4096.0)}, "callbacks": {}}
FULL = """
import resource, sys, torch
from rnnzoo.checkpoints import AtomicCheckpointIO
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    AtomicCheckpointIO().save_checkpoint({"weight": torch.zeros(100_000)}, sys.argv[1])
except ValueError as error:
    print(error)
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(path, tmp_path):
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    command = [sys.executable, "-c", FULL, str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert told.startswith(f"{path.parent}: expected room for last.ckpt, got File too large; make room")
    assert torch.equal(read_checkpoint(path)["state_dict"]["weight"], torch.arange(4096.0))
    assert os.listdir(path.parent) == ["last.ckpt"]


def test_a_flipped_byte_anywhere_in_the_weights_is_seen(path):
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    whole = path.read_bytes()
    begin = whole.index(torch.arange(4096.0).numpy().tobytes())
    draw = random.Random(1)
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[begin + draw.randrange(4096 * 4)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="expected a checkpoint, got a file that is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-99], lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda _: b"{}"]
)
def test_the_newest_that_can_be_read_is_taken(path, tmp_path, damage):
    best = path.with_name("best.ckpt")
    AtomicCheckpointIO().save_checkpoint(CHECKPOINT, path)
    AtomicCheckpointIO().save_checkpoint({**CHECKPOINT, "epoch": 0}, best)
    names = ("last.ckpt", "best.ckpt")
    assert newest_readable(tmp_path, names)[0] == path
    path.write_bytes(damage(path.read_bytes()))
    found, stored = newest_readable(tmp_path, names)
    assert (found, stored["epoch"]) == (best, 0)
    best.write_bytes(damage(best.read_bytes()))
    with pytest.raises(InputError, match=r"last.ckpt: expected a checkpoint, got a file that is damaged"):
        newest_readable(tmp_path, names)
    path.unlink()
    best.unlink()
    with pytest.raises(InputError, match=r"expected a checkpoint \(last.ckpt or best.ckpt\), got none"):
        newest_readable(tmp_path, names)


def test_a_file_that_would_run_code_is_no_checkpoint(path, tmp_path):
    torch.save({**CHECKPOINT, "callbacks": random.Random(1)}, path)
    with pytest.raises(InputError, match="expected a checkpoint, got a file that is damaged"):
        read_checkpoint(path)
