"""Timing side by side: what is compared takes turns, so that a slow minute of the machine slows all of it.

The ratio is that of the medians; it is printed with both of them, and beside it, where a row is bound by matrix
products, the share of what the machine can do: useful FLOP/s over those of one large product in the same run.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from rnnzoo.kernels import processor
from rnnzoo.kernels.products.linear import multiply

Clock = Callable[[], float]
Call = Callable[[], object]

PRODUCT = "one large product"  # the contender that shows what the machine can do
LEAST_SECONDS = 0.005  # that a sample takes at least; shorter calls are repeated within it


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Args:
        repeats: samples of each contender.
        quick: tiny sizes, to see that everything runs; the figures mean nothing.
        cells: the cells of the suites that have several; all of them if empty.
        device: where to run.
    """

    repeats: int = 5
    quick: bool = False
    cells: tuple[str, ...] = ()
    device: str = "cpu"


class Comparison(NamedTuple):
    """Two contenders of which one has to be so much faster."""

    ours: str
    baseline: str
    bar: float | None = None  # the ratio that must not be passed; None asks for nothing
    scale: float = 1.0  # the baseline's figure is multiplied by it, as by the ratio of the matrix products


class Contest(NamedTuple):
    """The same work done in different ways."""

    work: str
    calls: Mapping[str, Call]  # contender → does the work once
    comparisons: tuple[Comparison, ...]
    flops: Mapping[str, float] = {}  # contender → useful FLOPs of its matrix products in one call
    dtype: str = "float32"


@dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, and what it was made of.

    Args:
        suite: of which it is.
        work: what was done.
        ours: the name of what is measured.
        baseline: the name of what it is measured against.
        measure: ``time`` in seconds or ``memory`` in bytes.
        value: the median of ours.
        baseline_value: the median of the baseline, before it is scaled.
        scale: what the baseline is multiplied by.
        ratio: value / (scale · baseline_value).
        bar: the greatest ratio that is well; None asks for nothing.
        ok: whether the ratio is below the bar.
        share: of the FLOP/s of one large product that ours has; None where products do not bind.
        baseline_share: that of the baseline.
        repeats: samples of each.
        dtype: of the numbers.
        note: why there is no ratio.
    """

    suite: str
    work: str
    ours: str = ""
    baseline: str = ""
    measure: str = "time"
    value: float | None = None
    baseline_value: float | None = None
    scale: float = 1.0
    ratio: float | None = None
    bar: float | None = None
    ok: bool | None = None
    share: float | None = None
    baseline_share: float | None = None
    repeats: int = 0
    dtype: str = ""
    note: str = ""


class Task(NamedTuple):
    """A part of a suite, made and measured when its turn comes."""

    work: str
    rows: Callable[[], list[Row]]


def interleave(
    calls: Mapping[str, Call], *, repeats: int, clock: Clock = time.perf_counter, least: float = LEAST_SECONDS
) -> dict[str, list[float]]:
    """Return the seconds of each call, `repeats` samples of each, taken in turns after three calls to warm up.

    A call below `least` seconds is done so often in each sample that it takes as long; the sample is the mean.
    """
    counts = {}
    for name, call in calls.items():
        call()  # compiles, if anything is compiled
        call()  # records, on GPUs
        start = clock()
        call()
        counts[name] = max(1, round(least / max(clock() - start, 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            for _ in range(counts[name]):
                call()
            samples[name].append((clock() - start) / counts[name])
    return samples


def run_contest(suite: str, contest: Contest, setting: Setting, *, clock: Clock = time.perf_counter) -> list[Row]:
    """Measure a contest: a row for each comparison."""
    calls, flops = dict(contest.calls), dict(contest.flops)
    if flops:
        calls[PRODUCT], flops[PRODUCT] = large_product(contest.dtype, setting)
    if setting.device != "cpu":
        calls = {name: synchronised(call) for name, call in calls.items()}
    least = 0.0 if setting.quick else LEAST_SECONDS
    samples = interleave(calls, repeats=setting.repeats, clock=clock, least=least)
    medians = {name: median(values) for name, values in samples.items()}
    speeds = {name: count / medians[name] for name, count in flops.items()}
    shares = {name: speed / speeds[PRODUCT] for name, speed in speeds.items()}
    return [
        judge(
            Row(
                suite,
                contest.work,
                each.ours,
                each.baseline,
                value=medians[each.ours],
                baseline_value=medians[each.baseline],
                scale=each.scale,
                bar=each.bar,
                share=shares.get(each.ours),
                baseline_share=shares.get(each.baseline),
                repeats=setting.repeats,
                dtype=contest.dtype,
            )
        )
        for each in contest.comparisons
    ]


def judge(row: Row) -> Row:
    """Return a row with its ratio, and whether it is below the bar."""
    assert row.value is not None
    assert row.baseline_value is not None
    ratio = row.value / (row.scale * row.baseline_value)
    return Row(**{**vars(row), "ratio": ratio, "ok": None if row.bar is None else ratio <= row.bar})


def large_product(dtype: str, setting: Setting) -> tuple[Call, float]:
    """Return a large square matrix product, by the library that is the faster one, and its FLOPs."""
    size = 64 if setting.quick else 2048
    left, right = (torch.randn(size, size, dtype=getattr(torch, dtype), device=setting.device) for _ in range(2))
    return lambda: multiply(left, right), 2.0 * size**3


def has_fast_bf16(device: str) -> bool:
    """Return whether a device multiplies bfloat16 by instructions of its own."""
    return processor.has_fast_bf16() if device == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)


def synchronised(call: Call) -> Call:
    """Return a call that waits until the device is done."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def matrix_flops(call: Call) -> float:
    """Return the FLOPs of the matrix products in one call, forward and backward.

    torch's own recurrent kernels are counted through the single products that they replace.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # switching oneDNN off speaks of GPUs
        with (
            torch.backends.mkldnn.flags(enabled=False),
            torch.backends.cudnn.flags(enabled=False),
            FlopCounterMode(display=False) as counter,
        ):
            call()
    return float(counter.get_total_flops())
