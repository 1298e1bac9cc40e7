"""When kernels are compiled: never, when they come often, or at their first use.

`RNNZOO_COMPILE=0` in the environment never compiles, `RNNZOO_COMPILE=1` compiles at the first use. So does a training
on a CPU: compiled kernels round otherwise than plain ones, and a training that is resumed in a new process has to
compute what it would have computed in the old one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

COMPILE_AFTER = 20  # runs with the same layouts; what comes less often is not worth the time that compiling takes

_hurry = ContextVar("hurry", default=False)
_training = [False]  # whether kernels for CPUs are compiled at their first use


def compile_on_first_use(wanted: bool) -> None:
    """Say whether kernels for CPUs are from now on compiled at their first use, instead of when they come often.

    Which numbers are computed then follows from the program alone, not from what this process has run before. On GPUs,
    where a kernel is compiled for each size of a batch and takes seconds, nothing changes.
    """
    _training[0] = wanted


def on_first_use(device: torch.device) -> bool:
    """Return whether kernels for a device are compiled at their first use."""
    mode = os.environ.get("RNNZOO_COMPILE", "")
    return mode == "1" or (mode != "0" and device.type == "cpu" and _training[0])


@contextmanager
def compiling_now() -> Iterator[None]:
    """Compile whatever comes, instead of waiting for it to come often."""
    token = _hurry.set(True)
    try:
        yield
    finally:
        _hurry.reset(token)


def in_a_hurry() -> bool:
    """Return whether this is within `compiling_now`."""
    return _hurry.get()
