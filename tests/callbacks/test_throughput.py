"""Speed and memory of a training: what is counted, and what is left out."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from rnnzoo.callbacks import throughput
from rnnzoo.callbacks.throughput import Throughput, peak_memory

TRAINER = SimpleNamespace(sanity_checking=False, world_size=1)


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that is set by hand."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now.seconds)
    return now


def test_a_pause_that_comes_once_is_in_the_rate_but_not_in_the_steady_rate(clock):
    module = SimpleNamespace(log=lambda *_: None)
    counted = Throughput()
    counted.on_train_epoch_start(TRAINER, module)
    for seconds, lengths in ((60.0, [5, 5]), (1.0, [10, 10]), (2.0, [30, 20]), (1.0, [21])):
        clock.seconds += seconds
        counted.on_train_batch_end(TRAINER, module, None, SimpleNamespace(lengths=torch.tensor(lengths)), 0)
    counted.on_validation_start(TRAINER, module)
    clock.seconds += 1000.0
    counted.on_validation_end(TRAINER, module)
    clock.seconds += 1.0
    counted.on_train_batch_end(TRAINER, module, None, SimpleNamespace(ids=torch.arange(22)), 0)
    counted.on_train_epoch_end(TRAINER, module)
    assert counted.batch_rates == pytest.approx([10 / 60, 20.0, 25.0, 21.0, 22.0])
    assert (counted.steady_rate(1), counted.steady_rate(2)) == pytest.approx((21.0, 42.0))
    assert counted.rate(counted.items, counted.seconds, 1) == pytest.approx(123 / 65)
    assert Throughput().steady_rate(1) == 0.0


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the parent's memory may be counted")
def test_the_memory_of_a_process_is_its_own_whoever_started_it():
    held = bytearray(2**29)  # 512 MiB that the process that is started never has
    program = (
        "import sys, torch; from rnnzoo.callbacks.throughput import peak_memory as p; print(p(torch.device('cpu')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    own = peak_memory(torch.device("cpu"))
    held[::4096] = b"1" * len(held[::4096])
    assert own > 512
    assert 50 < float(done.stdout) < own - 256
