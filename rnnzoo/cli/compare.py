"""``rnnzoo compare``: the same recipe with several cells and seeds, under equal budget."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.cells import chosen_cells
from rnnzoo.cli.compare_run import Plan, has_report, train
from rnnzoo.cli.fit import PREFIXES, run_name
from rnnzoo.cli.imports import import_named
from rnnzoo.cli.listing import show
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe
from rnnzoo.report import write_whole

SUMMARY = "train the same recipe with several cells and show which is best, fastest, smallest"
HELP = """usage: rnnzoo compare RECIPE --cells A,B,... [--seeds N] [--budget 30m] [--run_dir FOLDER] [--KEY VALUE ...]

Train a recipe once for each cell and seed, each run in a process and a folder of its own, and set the results side by
side: metric (mean ± deviation over seeds), items per second, parameters, peak memory. Cells are ordered by the
validation metric; the test metric is what to report.

The same command again goes on where it was left: runs that are finished are not trained again, one that was
interrupted goes on from its last checkpoint.

  --cells A,B,...    cells that `rnnzoo cells` lists
  --seeds N          seeds 1 to N (default 1)
  --budget TIME      stop each training after 90s, 30m or 2h, or after the recipe's epochs if they are done before:
                     --trainer.max_epochs -1 lets the time alone decide; compiling a new cell counts too
  --run_dir FOLDER   where the runs, compare.json, compare.md and compare.png go (default runs/compare/RECIPE)
  --import FILE      run your own Python first, such as a file with cells of your own; may be repeated
  --data.KEY VALUE, --model.KEY VALUE, --trainer.KEY VALUE   as for `rnnzoo fit`, for all runs alike
"""
OWN = ("cells", "seeds", "budget", "run_dir")
SETTINGS = "settings.json"
UNITS = {"s": 1, "m": 60, "h": 3600}


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
    files = [recipe.path, *map(Path, arguments.configs)]
    own = {"recipe": "".join(path.read_text(encoding="utf-8") for path in files), **settings(plan)}
    check_settings(folder, own)
    if not all(has_report(folder / cell / f"seed_{seed}") for cell in plan.cells for seed in plan.seeds):
        refuse_unfit(plan, recipe.path)
    keep_settings(folder, own)
    errors: dict[tuple[str, int], str] = {}
    for seed in plan.seeds:  # all cells once before any twice: a comparison that is cut short compares something
        for cell in plan.cells:
            place = folder / cell / f"seed_{seed}"
            if not has_report(place):
                print(f"{cell}, seed {seed}: {place}", flush=True)
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
    cells = chosen_cells(own["cells"])
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
    """See that a folder is new, or holds runs of the same settings.

    Raises:
        InputError: naming what differs.
    """
    path = folder / SETTINGS
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(
                f"--run_dir {folder}", expected="a new folder, or that of a comparison", got="one with other things"
            )
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    for name, value in own.items():
        expected, got = difference(name, before.get(name), value)
        if expected != got:
            raise InputError(
                f"{name} of the comparison in {folder}",
                expected=expected,
                got=got,
                fix="name another --run_dir, or remove this one",
            )


def difference(name: str, before: Any, now: Any) -> tuple[str, str]:
    """Return what a message says of a setting that was and that is, cut to what differs; the same text if nothing does.

    >>> difference("options", ["--data.limit=9", "--model.dropout=0"], ["--model.dropout=0", "--data.limit=8"])
    ('--data.limit=9', '--data.limit=8')
    """
    if name == "recipe":
        same = "what its runs were trained with"
        return same, same if before == now else "a recipe that was changed since"
    if isinstance(before, list) and isinstance(now, list):
        gone, new = ([word for word in one if word not in other] for one, other in ((before, now), (now, before)))
        return " ".join(gone) or "none", " ".join(new) or "none"
    return repr(before), repr(now)


def keep_settings(folder: Path, own: dict[str, Any]) -> None:
    """Note in a new folder what its runs have in common."""
    if not (folder / SETTINGS).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / SETTINGS, json.dumps(own, indent=1, ensure_ascii=False) + "\n")


def refuse_unfit(plan: Plan, recipe: Path) -> None:
    """Build the recipe's model with each cell: what cannot be is told before anything is trained.

    Raises:
        InputError: naming the cell, or whatever else is wrong with the recipe and the options.
    """
    from rnnzoo.cli.engine import ZooCLI, quiet_lightning

    quiet_lightning()
    cli = ZooCLI([f"--config={recipe}", *plan.overrides], run_folder=None)
    arguments = {name: value for name, value in dict(cli.model.hparams).items() if name != "processor"}
    if "cell" not in arguments:
        name = type(cli.model).__name__
        raise InputError(f"rnnzoo compare {plan.recipe}", expected="a recipe whose model has a cell", got=f"a {name}")
    for cell in plan.cells:
        with named(cell):
            type(cli.model)(processor=cli.model.processor, **{**arguments, "cell": cell})


@contextmanager
def named(cell: str) -> Iterator[None]:
    """Name the cell in what is refused inside."""
    try:
        yield
    except InputError as error:
        raise InputError.from_text(f"cell {cell!r} in this recipe: {error}") from error


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
    from rnnzoo.comparison import markdown, order, rows, summarise, undefined_notes

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
    limit = (
        "the recipe's epochs" if plan.budget is None else f"{plan.budget} s of training each, or the recipe's epochs"
    )
    notes = [
        f"{metric} ({'lower' if mode == 'min' else 'higher'} is better): {definition}",
        f"mean ± standard deviation over seeds {plan.seeds[0]} to {plan.seeds[-1]}"
        if len(plan.seeds) > 1
        else "seed 1",
        f"budget: {limit}; each run is of its best epoch by the validation metric, by which the cells are ordered",
        f"items/s, median over batches: {known[0]['training']['item']}; {known[0]['training']['threads']} threads, "
        f"{known[0]['training']['device']}",
    ]
    notes += undefined_notes(summaries, metric)
    show(table, as_json=False)
    print("\n".join(["", *notes, *failed]))
    title = f"Cells compared: {title}"
    plots.comparison(summaries, metric, folder / "compare.png")
    document = {"title": title, "selection": selection, "notes": notes, "cells": [asdict(each) for each in summaries]}
    write_whole(folder / "compare.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "compare.md", markdown(title, table, notes, failed))
    print(f"\nreport: {folder / 'compare.md'}  ({folder / 'compare.json'}, {folder / 'compare.png'})")
