"""``rnnzoo compare``: the same recipe with several cells, or values of any key, and seeds, under equal budget."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rnnzoo.cli.arguments import sort_arguments, take_values
from rnnzoo.cli.cells import chosen_cells
from rnnzoo.cli.compare_run import Plan, has_report, train
from rnnzoo.cli.fit import PREFIXES
from rnnzoo.cli.imports import import_named
from rnnzoo.cli.listing import show
from rnnzoo.cli.run_folder import LOCK, lock_folder, run_name
from rnnzoo.cli.vary import CELL, RESERVED, read_variants
from rnnzoo.documents import read_json, read_whole
from rnnzoo.errors import InputError
from rnnzoo.files import write_atomically
from rnnzoo.recipes import find_recipe
from rnnzoo.terminal import echo

SUMMARY = "train variants of a recipe and show which is best, fastest, smallest"
HELP = """usage: rnnzoo compare RECIPE --cells A,B,... [--vary KEY=V,W,...] [--seeds N] [--budget 30m] [--KEY VALUE ...]

Train a recipe once for each variant and seed, each run in a process and a folder of its own, and set the results side
by side: metric (mean ± deviation over seeds), items per second, parameters, peak memory, the largest gradient norm,
seconds; with pictures of these and of the learning curves. Variants are ordered by the validation metric; the test
metric is what to report.

The same command again goes on where it was left: runs that are finished are not trained again, one that was
interrupted goes on from its last checkpoint.

  --cells A,B,...      cells that `rnnzoo cells` lists
  --vary KEY=V,W,...   values of any key of the recipe, such as model.num_layers=1,2,3, data.chunk_length=8,32,128 or
                       trainer.gradient_clip_val=0,1; may be repeated, then every combination is trained
  --seeds N            seeds 1 to N (default 1)
  --budget TIME        stop each training after 90s, 30m or 2h, or after the recipe's epochs if they are done before:
                       --trainer.max_epochs -1 lets the time alone decide; compiling a new cell counts too
  --run_dir FOLDER     where the runs, compare.json, compare.md, compare.png and curves.png go
                       (default runs/compare/RECIPE)
  --import FILE        run your own Python first, such as a file with cells of your own; may be repeated
  --data.KEY VALUE, --model.KEY VALUE, --trainer.KEY VALUE   as for `rnnzoo fit`, for all runs alike
"""
OWN = ("cells", "seeds", "budget", "run_dir")
SETTINGS = "settings.json"
MEASURED = (  # numbers of a report that are compared
    "steady_items_per_second",
    "items_per_second",
    "wall_seconds",
    "epochs",
    "steps",
    "peak_memory_mib",
    "parameters",
)
LARGEST = "train/largest_gradient_norm"
UNITS = {"s": 1, "m": 60, "h": 3600}


def run(argv: list[str]) -> int:
    """Train what is missing and write the comparison; return 1 if a run failed."""
    if "--help" in argv or "-h" in argv:
        echo(HELP)
        return 0
    words, varied = take_values(argv, "--vary")
    arguments = sort_arguments(words, own=OWN, prefixes=PREFIXES)
    if arguments.positional is None:
        raise InputError("rnnzoo compare", expected="a recipe", got="none", fix="`rnnzoo recipes` lists them")
    recipe = find_recipe(arguments.positional)
    import_named([*config_words([str(recipe.path), *arguments.configs]), *arguments.overrides])
    options = [*config_words(arguments.configs), *arguments.overrides]
    plan = read_plan(arguments.positional, arguments.own, varied, options)
    folder = Path(arguments.own.get("run_dir") or Path("runs") / "compare" / run_name(recipe.name))
    files = [recipe.path, *map(Path, arguments.configs)]
    own = {"recipe": "".join(read_whole(path, "CONFIG_BYTES") for path in files), **settings(plan)}
    check_settings(folder, own)
    if not all(has_report(folder / variant.folder / f"seed_{seed}") for variant, seed in plan.runs):
        refuse_unfit(plan, recipe.path)
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, f"--run_dir {folder}"):
        check_settings(folder, own)  # again: another comparison may have begun meanwhile
        keep_settings(folder, own)
        errors = train_all(plan, folder)
        write(plan, folder, recipe.name, errors)
    return int(bool(errors))


def train_all(plan: Plan, folder: Path) -> dict[tuple[str, int], str]:
    """Train the runs that are missing; return what those failed with that did, by cell and seed."""
    errors: dict[tuple[str, int], str] = {}
    for variant, seed in plan.runs:
        path = folder / variant.folder / f"seed_{seed}"
        if not has_report(path):
            echo(f"{variant.label}, seed {seed}: {path}")
            error = train(plan, variant, seed, path)
            if error:
                errors[variant.label, seed] = error
                echo(f"{variant.label}, seed {seed}: failed: {error}")
                continue
        echo(f"{variant.label}, seed {seed}: {headline(path)}")
    return errors


def config_words(configs: list[str]) -> list[str]:
    """Return further YAML files as words of a command line."""
    return [f"--config={config}" for config in configs]


def read_plan(recipe: str, own: dict[str, str], varied: list[str], overrides: list[str]) -> Plan:
    """Check the options of a comparison.

    Raises:
        InputError: for the first that is wrong, before anything is trained.
    """
    if "cells" not in own and not varied:
        raise InputError(
            "rnnzoo compare",
            expected="--cells with names of cells, such as lstm,gru, or --vary KEY=VALUE,VALUE",
            got="neither",
        )
    variants = read_variants(chosen_cells(own["cells"]) if "cells" in own else (), varied)
    seeds = own.get("seeds", "1")
    if not seeds.isdigit() or int(seeds) < 1:
        raise InputError("--seeds", expected="a whole number of seeds above 0", got=repr(seeds))
    taken = {f"--{key}": "--cells" if "cells" in own and key == CELL else "--vary" for key, _ in variants[0].settings}
    taken |= {f"--{key}": option for key, option in RESERVED.items()}
    for word in overrides:
        name = word.split("=")[0]
        if name in taken:
            raise InputError("command line", expected=f"{taken[name]}, which sets it for each run", got=name)
    budget = seconds_of(own["budget"]) if "budget" in own else None
    return Plan(recipe, variants, tuple(range(1, int(seeds) + 1)), budget, tuple(overrides))


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
    """Return what must be the same for all runs of a folder; values of what is varied and seeds may be added."""
    keys = [key for key, _ in plan.variants[0].settings]
    return {"budget_seconds": plan.budget, "options": list(plan.overrides), "varied": keys}


def check_settings(folder: Path, own: dict[str, Any]) -> None:
    """See that a folder is new, or holds runs of the same settings.

    Raises:
        InputError: naming what differs.
    """
    path = folder / SETTINGS
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir())):
            raise InputError(
                f"--run_dir {folder}", expected="a new folder, or that of a comparison", got="one with other things"
            )
        return
    stored = read_json(path, size="CONFIG_BYTES", values="CONFIG_VALUES")
    if not isinstance(stored, dict):
        fix = "name another --run_dir, or remove this one"
        raise InputError(str(path), expected="the settings of a comparison", got=type(stored).__name__, fix=fix)
    before = {"varied": [CELL], **stored}  # older folders varied cells alone
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
        write_atomically(folder / SETTINGS, json.dumps(own, indent=1, ensure_ascii=False) + "\n")


def refuse_unfit(plan: Plan, recipe: Path) -> None:
    """Build the data and the model of each variant: what cannot be is told before anything is trained.

    Raises:
        InputError: naming the variant.
    """
    from rnnzoo.cli.engine import ZooCLI, quiet_lightning

    quiet_lightning()
    for variant in plan.variants:
        with named(variant.label):
            ZooCLI([f"--config={recipe}", *plan.overrides, *variant.words], run_folder=None)


@contextmanager
def named(label: str) -> Iterator[None]:
    """Name the variant in what is refused inside."""
    try:
        yield
    except InputError as error:
        raise InputError.from_text(f"{label}: {error}") from error


def read_report(place: Path) -> dict[str, Any]:
    """Read the report of a run, in which all that is compared is there.

    Raises:
        InputError: if it is damaged.
    """
    path = place / "report.json"
    fix = f"remove {place}, and it is trained again"
    try:
        report: dict[str, Any] = read_json(path, size="FILE_BYTES", values="JSON_VALUES")
    except InputError as error:
        raise InputError.from_text(f"{error}; {fix}") from error
    try:
        selection, training = report["model"]["selection"], report["training"]
        entries = [entry for split in report["metrics"].values() for entry in split.values()]
        numbers = [entry["value"] for entry in entries] + [training.get(name) for name in MEASURED]
        texts = [selection["metric"], selection["mode"], *(entry.get("definition", "") for entry in entries)]
        whole = {"wall_seconds", "item", "threads", "device", "parameters"} <= set(training)
        whole &= all(value is None or isinstance(value, int | float) for value in numbers)
        whole &= all(isinstance(text, str) for text in texts)
    except (AttributeError, KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(str(path), expected="the report of a run", got="other JSON", fix=fix)
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
    from rnnzoo.comparison import (
        by_value,
        markdown,
        numeric_key,
        order,
        read_curves,
        rows,
        sentence,
        summarise,
        undefined_notes,
    )

    paths = {
        variant.label: [folder / variant.folder / f"seed_{seed}" for seed in plan.seeds] for variant in plan.variants
    }
    reports = {
        label: {seed: read_report(path) for seed, path in zip(plan.seeds, runs, strict=True) if has_report(path)}
        for label, runs in paths.items()
    }
    known = [report for by_seed in reports.values() for report in by_seed.values()]
    failed = [f"{label}, seed {seed}: {error}" for (label, seed), error in errors.items()]
    if not known:
        echo(f"no run was finished: nothing to compare\n{chr(10).join(failed)}")
        return
    selection = known[0]["model"]["selection"]
    metric, mode = selection["metric"], selection["mode"]
    curves = {label: [read_curves(path / "metrics.csv") for path in runs] for label, runs in paths.items()}
    summaries = [
        summarise(
            variant.label,
            dict(variant.settings),
            reports[variant.label],
            {seed: text for (label, seed), text in errors.items() if label == variant.label},
            metric,
            largest_gradients(curves[variant.label]),
        )
        for variant in plan.variants
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
        f"budget: {limit}; each run is of its best epoch by the validation metric, by which the rows are ordered",
        "peak MiB: of the whole process on a CPU, some 400 of which torch takes by itself; largest gradient: the "
        "largest norm of all gradients before clipping in any step, over the whole run",
        f"items/s, median over batches: {known[0]['training']['item']}; {known[0]['training']['threads']} threads, "
        f"{known[0]['training']['device']}",
    ]
    notes += undefined_notes(summaries, metric)
    show(table, as_json=False)
    conclusion = sentence(summaries, metric)
    echo("\n".join(["", conclusion, "", *notes, *failed]))
    names = ", ".join(key for key, _ in plan.variants[0].settings)
    title = f"{title}: {names} compared"
    key = numeric_key([summary.settings for summary in summaries])
    drawn = summaries if key is None else by_value(summaries, key)
    plots.comparison(drawn, metric, folder / "compare.png", key)
    plots.compared_curves({label: runs[0] for label, runs in curves.items()}, metric, folder / "curves.png")
    document = {
        "title": title,
        "selection": selection,
        "conclusion": conclusion,
        "notes": notes,
        "variants": [asdict(summary) for summary in summaries],
    }
    write_atomically(folder / "compare.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "compare.md", markdown(title, table, [conclusion, *notes], failed))
    echo(f"\nreport: {folder / 'compare.md'}  ({folder / 'compare.json'})")
    echo(f"plots:  {folder / 'compare.png'}, {folder / 'curves.png'}")


def largest_gradients(curves: Sequence[Mapping[str, Sequence[tuple[float, float]]]]) -> list[float]:
    """Return the largest gradient norm of each run that logged it."""
    return [max(value for _, value in run[LARGEST]) for run in curves if run.get(LARGEST)]
