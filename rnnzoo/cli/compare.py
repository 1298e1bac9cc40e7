"""``rnnzoo compare``: the same recipe with several cells and seeds, under equal budget."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnzoo.cells import CELLS
from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.fit import PREFIXES, run_name
from rnnzoo.cli.imports import import_named
from rnnzoo.cli.listing import show
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe

SUMMARY = "train the same recipe with several cells and show which is best, fastest, smallest"
HELP = """usage: rnnzoo compare RECIPE --cells A,B,... [--seeds N] [--budget 30m] [--run_dir FOLDER] [--KEY VALUE ...]

Train a recipe once for each cell and seed, each run in a process and a folder of its own, and set the results side by
side: metric (mean ± deviation over seeds), items per second, parameters, peak memory. Cells are ordered by the
validation metric; the test metric is what to report.

The same command again goes on where it was left: runs that are finished are not trained again.

  --cells A,B,...    cells that `rnnzoo cells` lists
  --seeds N          seeds 1 to N (default 1)
  --budget TIME      stop each training after 90s, 30m or 2h; without it the recipe's epochs are trained
  --run_dir FOLDER   where the runs, compare.json, compare.md and compare.png go (default runs/compare/RECIPE)
  --data.KEY VALUE, --model.KEY VALUE, --trainer.KEY VALUE   as for `rnnzoo fit`, for all runs alike
"""
OWN = ("cells", "seeds", "budget", "run_dir")
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Args:
        recipe: name or file.
        cells: names.
        seeds: seeds.
        budget: seconds of each training, or None.
        overrides: options handed to every run.
    """

    recipe: str
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: int | None
    overrides: tuple[str, ...]


def run(argv: list[str]) -> int:
    """Train what is missing and write the comparison; return 1 if a run failed."""
    if "--help" in argv or "-h" in argv:
        print(HELP)
        return 0
    arguments = sort_arguments(argv, own=OWN, prefixes=PREFIXES)
    if arguments.positional is None:
        raise InputError("rnnzoo compare", expected="a recipe", got="none", fix="`rnnzoo recipes` lists them")
    recipe = find_recipe(arguments.positional)
    import_named([*config_words([str(recipe.path), *arguments.configs]), *arguments.overrides])
    plan = read_plan(arguments.positional, arguments.own, [*config_words(arguments.configs), *arguments.overrides])
    folder = Path(arguments.own.get("run_dir") or Path("runs") / "compare" / run_name(recipe.name))
    check_settings(folder, {"recipe": recipe.path.read_text(encoding="utf-8"), **settings(plan)})
    errors: dict[tuple[str, int], str] = {}
    for seed in plan.seeds:  # all cells once before any twice: a comparison that is cut short compares something
        for cell in plan.cells:
            place = folder / cell / f"seed_{seed}"
            if not (place / "report.json").is_file():
                error = train(plan, cell, seed, place)
                if error:
                    errors[cell, seed] = error
                    print(f"{cell}, seed {seed}: failed: {error}", flush=True)
                    continue
            print(f"{cell}, seed {seed}: {headline(place)}", flush=True)
    write(plan, folder, recipe.name, errors)
    return int(bool(errors))


def config_words(configs: list[str]) -> list[str]:
    """Return further YAML files as words of a command line."""
    return [f"--config={config}" for config in configs]


def read_plan(recipe: str, own: dict[str, str], overrides: list[str]) -> Plan:
    """Check the options of a comparison.

    Raises:
        InputError: for the first that is wrong, before anything is trained.
    """
    if "cells" not in own:
        raise InputError("--cells", expected="names of cells, such as lstm,gru", got="none")
    cells = tuple(own["cells"].split(","))
    for cell in cells:
        CELLS.entry(cell)  # refuses an unknown one
    if len(set(cells)) < len(cells):
        raise InputError("--cells", expected="each cell once", got=own["cells"])
    seeds = own.get("seeds", "1")
    if not seeds.isdigit() or int(seeds) < 1:
        raise InputError("--seeds", expected="a whole number of seeds above 0", got=repr(seeds))
    for word in overrides:
        name = word.split("=")[0]
        if name in ("--model.cell", "--seed_everything", "--trainer.max_time"):
            ours = {"--model.cell": "--cells", "--seed_everything": "--seeds"}.get(name, "--budget")
            raise InputError("command line", expected=f"{ours}, which sets it for each run", got=name)
    budget = seconds_of(own["budget"]) if "budget" in own else None
    return Plan(recipe, cells, tuple(range(1, int(seeds) + 1)), budget, tuple(overrides))


def seconds_of(text: str) -> int:
    """Return the seconds that 90s, 30m or 2h are.

    Raises:
        InputError: for anything else.

    >>> seconds_of("30m")
    1800
    """
    found = re.fullmatch(r"(\d+)([smh])", text)
    if found is None or int(found[1]) == 0:
        raise InputError("--budget", expected="a time such as 90s, 30m or 2h", got=repr(text))
    return int(found[1]) * UNITS[found[2]]


def settings(plan: Plan) -> dict[str, Any]:
    """Return what must be the same for all runs of a folder; cells and seeds may be added."""
    return {"budget_seconds": plan.budget, "options": list(plan.overrides)}


def check_settings(folder: Path, own: dict[str, Any]) -> None:
    """See that a folder holds runs of the same settings, or note them in a new one.

    Raises:
        InputError: naming what differs.
    """
    path = folder / "settings.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(own, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for name, value in own.items():
        if before.get(name) != value:
            short = name == "recipe"
            raise InputError(
                f"{name} of the comparison in {folder}",
                expected="what its runs were trained with" if short else repr(before.get(name)),
                got="a recipe that was changed since" if short else repr(value),
                fix="name another --run_dir, or remove this one",
            )


def train(plan: Plan, cell: str, seed: int, place: Path) -> str:
    """Train one run as `rnnzoo fit` does, in a process of its own; return the last line of its error, or nothing.

    A folder without a report is what an interrupted run left: it is trained anew.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    words = [f"--model.cell={cell}", f"--seed_everything={seed}", f"--run_dir={place}"]
    if plan.budget is not None:
        hours, rest = divmod(plan.budget, 3600)
        words.append(f"--trainer.max_time=00:{hours:02}:{rest // 60:02}:{rest % 60:02}")
    program = [sys.executable, "-m", "rnnzoo", "fit", plan.recipe, *plan.overrides, *words]
    log = place.with_name(f"{place.name}.log")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(program, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 0 and (place / "report.json").is_file():
        return ""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit code {done.returncode}") + f" (see {log})"


def read_report(place: Path) -> dict[str, Any]:
    """Read the report of a run."""
    report: dict[str, Any] = json.loads((place / "report.json").read_text(encoding="utf-8"))
    return report


def headline(place: Path) -> str:
    """Return the selection metric of a run, by split."""
    report = read_report(place)
    metric = report["model"]["selection"]["metric"]
    parts = [
        f"{split} {metric} {values[metric]['value']:.4g}"
        for split, values in report["metrics"].items()
        if values.get(metric, {}).get("value") is not None
    ]
    return ", ".join([*parts, f"{report['training']['wall_seconds']:.0f} s"])


def write(plan: Plan, folder: Path, title: str, errors: dict[tuple[str, int], str]) -> None:
    """Print the comparison and write it as JSON, Markdown and PNG."""
    from rnnzoo import plots
    from rnnzoo.comparison import markdown, order, rows, summarise
    from rnnzoo.report import write_whole

    reports = {
        cell: {seed: read_report(place) for seed in plan.seeds if has_report(place := folder / cell / f"seed_{seed}")}
        for cell in plan.cells
    }
    known = [report for by_seed in reports.values() for report in by_seed.values()]
    failed = [f"{cell}, seed {seed}: {error}" for (cell, seed), error in errors.items()]
    if not known:
        print(f"no run was finished: nothing to compare\n{chr(10).join(failed)}")
        return
    selection = known[0]["model"]["selection"]
    metric, mode = selection["metric"], selection["mode"]
    summaries = [
        summarise(cell, reports[cell], {seed: text for (name, seed), text in errors.items() if name == cell}, metric)
        for cell in plan.cells
    ]
    summaries = order(summaries, mode)
    table = rows(summaries, metric)
    definition = next(values[metric]["definition"] for values in known[0]["metrics"].values() if metric in values)
    limit = "the epochs of the recipe" if plan.budget is None else f"{plan.budget} s of training each"
    notes = [
        f"{metric} ({'lower' if mode == 'min' else 'higher'} is better): {definition}",
        f"mean ± standard deviation over seeds {plan.seeds[0]} to {plan.seeds[-1]}"
        if len(plan.seeds) > 1
        else "seed 1",
        f"budget: {limit}; each run is of its best epoch by the validation metric, by which the cells are ordered",
        f"items/s: {known[0]['training']['item']}; {known[0]['training']['threads']} threads, "
        f"{known[0]['training']['device']}",
    ]
    show(table, as_json=False)
    print("\n".join(["", *notes, *failed]))
    title = f"Cells compared: {title}"
    plots.comparison(summaries, metric, folder / "compare.png")
    document = {"title": title, "selection": selection, "notes": notes, "cells": [asdict(each) for each in summaries]}
    write_whole(folder / "compare.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "compare.md", markdown(title, table, notes, failed))
    print(f"\nreport: {folder / 'compare.md'}  ({folder / 'compare.json'}, {folder / 'compare.png'})")


def has_report(place: Path) -> bool:
    """Return whether a run is finished."""
    return (place / "report.json").is_file()
