"""One run of a comparison: ``rnnzoo fit`` in a process of its own."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnnzoo.cli.run_folder import lock_folder
from rnnzoo.cli.vary import Variant
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe, read_recipe
from rnnzoo.terminal import echo

EPOCH_ROW = re.compile(r"(epoch| *\d+)  +\S")  # of the table that a training prints


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Args:
        recipe: name or file.
        variants: what differs between the runs.
        seeds: seeds.
        budget: seconds of each training, or None.
        overrides: options handed to every run.
    """

    recipe: str
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    budget: int | None
    overrides: tuple[str, ...]

    @property
    def runs(self) -> list[tuple[Variant, int]]:
        """Variants and seeds in the order of training: all variants once before any twice."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]


def train(plan: Plan, variant: Variant, seed: int, place: Path) -> str:
    """Train one run as `rnnzoo fit` does, in a process of its own; return what it failed with, or nothing.

    Its epochs are shown, and all it prints goes into a log beside the folder. A folder without a report is what an
    interrupted run left: it goes on from its last checkpoint, with the time that was left to it.
    """
    resumed = can_resume(place)
    if resumed:
        named = read_recipe(find_recipe(plan.recipe).path).get("imports") or []  # whoever compares has named them
        options = [f"--resume={place}", *(f"--imports+={name}" for name in named)]
        options += [word for word in plan.overrides if word.startswith("--imports")]
    else:
        if place.is_dir():
            try:
                with lock_folder(place, str(place)):
                    shutil.rmtree(place, ignore_errors=True)
            except InputError as error:  # somebody resumed it by hand, it seems
                return str(error)
        place.parent.mkdir(parents=True, exist_ok=True)
        options = [plan.recipe, *plan.overrides]
        options += [*variant.words, f"--seed_everything={seed}", f"--run_dir={place}"]
        if plan.budget is not None:
            options.append(f"--trainer.max_time={clock(plan.budget)}")
        if not any(word.startswith("--trainer.enable_progress_bar") for word in plan.overrides):
            options.append("--trainer.enable_progress_bar=false")  # it would fill the log
    program = [sys.executable, "-m", "rnnzoo", "fit", *options]
    log = place.with_name(f"{place.name}.log")
    last = ""
    with log.open("a" if resumed else "w", encoding="utf-8") as file, ended_with_us(program) as run:
        assert run.stdout is not None
        for line in run.stdout:
            file.write(line)
            file.flush()
            last = line.strip() or last
            if EPOCH_ROW.match(line):
                echo(f"  {line.rstrip()}")
    if run.returncode == 0 and has_report(place):
        return ""
    reason = f"killed by signal {-run.returncode}" if run.returncode < 0 else last.removeprefix("rnnzoo: error: ")
    return f"{reason or f'exit code {run.returncode}'} (see {log})"


def can_resume(place: Path) -> bool:
    """Return whether there is a run that left a checkpoint that can be read."""
    from rnnzoo.cli.resume import find_interrupted

    try:
        find_interrupted(place)
    except InputError:
        return False
    return True


@contextmanager
def ended_with_us(program: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a program whose output is read here, and end it if we are interrupted or terminated."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with subprocess.Popen(program, text=True, errors="replace", **pipes) as run:
            try:
                yield run
            except BaseException:
                run.terminate()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)


def clock(seconds: int) -> str:
    """Return seconds as Lightning reads them: days, hours, minutes and seconds.

    >>> clock(90061)
    '01:01:01:01'
    """
    minutes, hours = seconds // 60, seconds // 3600
    return f"{hours // 24:02}:{hours % 24:02}:{minutes % 60:02}:{seconds % 60:02}"


def has_report(place: Path) -> bool:
    """Return whether a run is finished."""
    return (place / "report.json").is_file()
