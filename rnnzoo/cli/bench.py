"""``rnnzoo bench``: how fast it is here, as ratios against named baselines."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.bench import SUITES
from rnnzoo.cells import CELLS
from rnnzoo.cli.output import open_target
from rnnzoo.errors import InputError, did_you_mean, unknown_name
from rnnzoo.terminal import echo, to_json

if TYPE_CHECKING:
    from rnnzoo.bench.measure import Row

SUMMARY = "measure speed and memory as ratios against named baselines"
HELP = """usage: rnnzoo bench [SUITE ...] [--cells A,B] [--device D] [--threads N] [--repeats N]
                    [--json FILE] [--quick]
       rnnzoo bench --explain CELL

Measure on this machine. Each row is a ratio: the median time (or peak memory) of ours over that of the baseline, taken
in turns in the same run. Let nothing else run meanwhile.

{suites}

  --cells A,B      only these cells, in the suites that have several
  --device D       cpu (default) or cuda, where all sides may multiply in TF32
  --threads N      threads of torch (default: as torch has it)
  --repeats N      samples of each (default 5)
  --json FILE      write the rows as JSON too, into a new file; - writes them to the screen instead of the table
  --quick          tiny sizes, to see that everything runs; the figures mean nothing
  --explain CELL   say which backend `auto` takes for a cell at some sizes, and why;
                   how it is executed here, and why not faster
"""
OPTIONS = ("cells", "device", "threads", "repeats", "json", "explain")
SIZES = (
    (1, 1, 64, 1),
    (16, 32, 64, 32),
    (32, 50, 256, 50),
    (64, 30, 256, 5),
    (64, 64, 512, 64),
)  # B, T, H, T of the shortest row


def run(argv: list[str]) -> int:
    """Run the suites that were asked for; return 1 if a bar was passed."""
    if "--help" in argv or "-h" in argv:
        echo(HELP.format(suites=list_suites()))
        return 0
    names, options = read(argv)
    if "explain" in options:
        explain(options["explain"])
        return 0
    os.environ.setdefault("RNNZOO_COMPILE", "1")  # compile at the first use: the measured runs are the later ones
    import torch

    from rnnzoo.bench.measure import Setting

    if "threads" in options:
        torch.set_num_threads(number("--threads", options["threads"]))
    cells = tuple(options["cells"].split(",")) if "cells" in options else ()
    setting = Setting(
        repeats=number("--repeats", options.get("repeats", "5")),
        quick="quick" in options,
        cells=cells,
        device=device(options.get("device", "cpu")),
    )
    target = options.get("json")
    with nullcontext() if target is None else open_target("--json", target) as file:
        rows = measure(names, setting)
        facts = machine(setting.device)
        if file is not None:
            document = {"machine": facts, "rows": [asdict(row) for row in rows]}
            echo(to_json(document, indent=1), file=file)
    if target != "-":
        echo(", ".join(f"{name} {value}" for name, value in facts.items()))
        show(rows)
        if setting.quick:
            echo("--quick: tiny sizes, the figures mean nothing")
    return int(any(row.ok is False for row in rows) and not setting.quick)


def read(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the suites and the options of a command line.

    Raises:
        InputError: for an unknown suite, option or cell, or a missing value.
    """
    names: list[str] = []
    options: dict[str, str] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            SUITES.entry(word)  # refuses an unknown one
            names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name == "quick":
            options[name] = "yes"
            continue
        if name not in OPTIONS:
            known = [f"--{option}" for option in (*OPTIONS, "quick")]
            raise InputError(
                "command line", expected=f"one of {', '.join(known)}", got=word, fix=did_you_mean(word, known)
            )
        if not equals:
            if not rest:
                raise InputError(f"--{name}", expected="a value", got="none", fix=f"write --{name} VALUE")
            value = rest.pop(0)
        options[name] = value
    for cell in [*options.get("cells", "").split(","), options.get("explain", "")]:
        if cell and cell not in CELLS:
            raise unknown_name("cell", cell, CELLS)
    return names or list(SUITES), options


def number(name: str, text: str) -> int:
    """Return a whole number above 0.

    Raises:
        InputError: if it is none.
    """
    if not text.isdigit() or int(text) < 1:
        raise InputError(name, expected="a whole number above 0", got=repr(text))
    return int(text)


def device(name: str) -> str:
    """Return a device after it was set up: cuDNN multiplies in TF32 unless forbidden, so all others may too.

    Raises:
        InputError: for a device that is not there.
    """
    import torch

    if name not in ("cpu", "cuda"):
        raise InputError("--device", expected="cpu or cuda", got=repr(name))
    if name == "cuda":
        if not torch.cuda.is_available():
            raise InputError("--device", expected="a GPU that torch can use", got="none", fix="leave out --device")
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return name


def measure(names: list[str], setting: Any) -> list[Row]:
    """Run suites, with a line on the error stream for each part."""
    rows: list[Row] = []
    for name in names:
        tasks = SUITES[name](setting)
        for place, task in enumerate(tasks, start=1):
            echo(f"{name} {place}/{len(tasks)}: {task.work}", file=sys.stderr)
            rows += task.rows()
    return rows


def machine(device: str) -> dict[str, str]:
    """Return what the figures depend on besides the program."""
    import platform

    import torch

    from rnnzoo.version import __version__

    return {
        "rnnzoo": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "processor": processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        **({} if device == "cpu" else {"device": torch.cuda.get_device_name(), "products": "TF32"}),
    }


def processor() -> str:
    """Return the name of the processor, as far as the system tells it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    from rnnzoo.cli.listing import show as show_table

    show_table(
        [
            {
                "suite": row.suite,
                "work": row.work,
                "ours": f"{row.ours} {figure(row.value, row.measure)}",
                "baseline": f"{row.baseline} {figure(row.baseline_value, row.measure)}"
                + ("" if row.scale == 1 else f" × {row.scale:.2f}"),
                "ratio": "-" if row.ratio is None else f"{row.ratio:.2f}",
                "bar": "-" if row.bar is None else f"{row.bar:.2f} {'ok' if row.ok else 'over'}",
                "of the limit": "-" if row.share is None else f"{row.share:.2f} ({row.baseline_share or 0:.2f})",
                "note": row.note,
            }
            for row in rows
        ],
        as_json=False,
    )


def figure(value: float | None, measure: str) -> str:
    """Return a median as people read it."""
    if value is None:
        return "-"
    if measure == "memory":
        return f"{value / 2**20:.0f} MiB"
    return f"{value * 1e3:.3g} ms"


def explain(name: str) -> None:
    """Print which backend `auto` takes for a cell at some sizes, and why."""
    import torch

    from rnnzoo.backends.select import choose
    from rnnzoo.cells import make_cell
    from rnnzoo.cli.listing import show as show_table

    rows, slower = [], dict[str, None]()
    for batch, steps, size, least in SIZES:
        cell, inputs = make_cell(name, input_size=size, hidden_size=size), torch.zeros(batch, steps, size)
        choice = choose(cell, "auto", inputs, torch.linspace(least, steps, batch).long())
        times = f"{least}-{steps}" if least < steps else str(steps)
        mode, why_slower = execution_mode(cell, choice.name)
        rows.append(
            {"shape": f"B {batch} T {times} H {size}", "backend": choice.name, "runs as": mode, "why": choice.reason}
        )
        slower |= dict.fromkeys(why_slower)
    show_table(rows, as_json=False)
    for reason in slower:
        echo(f"not faster, since {reason}")


def execution_mode(cell: Any, backend: str) -> tuple[str, list[str]]:
    """Return how the steps of a fused run are executed in this process, tried on a small batch, and why not faster."""
    if backend != "fused":
        return "", []
    import warnings

    from rnnzoo.backends import BACKENDS
    from rnnzoo.kernels.settings import compiling_now, last_mode, may_compile, steps_down

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the reasons are printed below
        inputs = next(cell.parameters()).new_zeros(4, 4, cell.input_size)
        with compiling_now():
            BACKENDS[backend](cell, inputs, None, None)
    reasons = list(steps_down().values())
    if not may_compile():
        reasons.append("RNNZOO_COMPILE=0 is set")
    return last_mode(), reasons


def list_suites() -> str:
    """Return a line for each suite."""
    lines = (
        f"  {name:<8} {SUITES.entry(name).summary}; baseline: {SUITES.entry(name).facts['baseline']}" for name in SUITES
    )
    return "\n".join(lines)
