"""When kernels are compiled: never, when they come often, or at their first use.

`RNNZOO_COMPILE=0` in the environment never compiles, `RNNZOO_COMPILE=1` compiles at the first use. So does a training
on a CPU: compiled kernels round otherwise than plain ones, and a training that is resumed in a new process has to
compute what it would have computed in the old one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

VARIABLE = "RNNZOO_COMPILE"  # read in this file alone
COMPILE_AFTER = 20  # runs with the same layouts; what comes less often is not worth the time that compiling takes

_hurry = ContextVar("hurry", default=False)
_steps_down: dict[str, str] = {}  # cause → reason
_mode = [""]  # of the last run
_training = [False]  # whether kernels for CPUs are compiled at their first use


def compile_on_first_use(wanted: bool) -> None:
    """Say whether kernels for CPUs are from now on compiled at their first use, instead of when they come often.

    Which numbers are computed then follows from the program alone, not from what this process has run before. On GPUs,
    where a kernel is compiled for each size of a batch and takes seconds, nothing changes.
    """
    _training[0] = wanted


def may_compile() -> bool:
    """Return whether anything may be compiled or recorded: not with ``RNNZOO_COMPILE=0``."""
    return os.environ.get(VARIABLE, "") != "0"


def always_on_first_use() -> bool:
    """Return whether everything is compiled or recorded at its first use, as ``RNNZOO_COMPILE=1`` asks for."""
    return os.environ.get(VARIABLE, "") == "1"


def on_first_use(device: torch.device) -> bool:
    """Return whether kernels for a device are compiled at their first use."""
    return always_on_first_use() or (may_compile() and device.type == "cpu" and _training[0])


def step_down(cause: str, reason: str, fix: str = "") -> None:
    """Record that something slower runs than could, and warn, once for each cause.

    Args:
        cause: tells causes apart.
        reason: what is missing or failed, and what runs instead.
        fix: what the user can do; where it is nothing, no warning is given.
    """
    if cause not in _steps_down:
        _steps_down[cause] = reason
        if fix:
            warnings.warn(f"rnnzoo: {reason}, with the same numbers but slower; {fix}", stacklevel=3)


def steps_down() -> dict[str, str]:
    """Return why something slower runs in this process than could: cause → reason."""
    return dict(_steps_down)


def record_mode(mode: str) -> None:
    """Record how the steps of the run that was just made were executed."""
    _mode[0] = mode


def last_mode() -> str:
    """Return how the steps of the last run were executed: one C++ program, compiled kernels, or plain torch."""
    return _mode[0]


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
