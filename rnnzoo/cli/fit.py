"""``rnnzoo fit``: train the model of a recipe, evaluate it, and leave a run folder with report and model."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.cli.arguments import Arguments, sort_arguments
from rnnzoo.errors import InputError
from rnnzoo.recipes import find_recipe, read_recipe

if TYPE_CHECKING:
    from rnnzoo.cli.engine import ZooCLI

SUMMARY = "train the model of a recipe and report how good it is"
HELP = """usage: rnnzoo fit RECIPE [--KEY VALUE ...]

Train the model that a recipe describes, evaluate its best checkpoint, and write a run folder:
config.yaml (itself a recipe), checkpoints/, metrics.csv, report.json, report.md, plots (PNG) and model/.

RECIPE is a name that `rnnzoo recipes` lists, or a YAML file.

options, in any order:
  --config FILE            a further YAML file whose keys override the recipe's; may be repeated
  --model.KEY VALUE        an argument of the model, such as --model.cell gru
  --model.init_from MODEL  start from a trained model (a run or model folder): what fits is loaded, a table says what
  --model.freeze PARTS     do not train these parts, such as embedding,encoder
  --data.KEY VALUE         an argument of the data, such as --data.path FOLDER
  --trainer.KEY VALUE      an argument of Lightning's Trainer, such as --trainer.max_epochs 3
  --seed_everything N      the seed of weights and dropout (default 1); that of splits and order is --data.seed
  --import FILE            run your own Python first, such as a file with cells of your own; may be repeated
  --run_dir FOLDER         the run folder; a new one, runs/RECIPE/TIME by default
  --print_config           print the whole configuration and stop
  --model.help             what the arguments of the recipe's model are; --data.help likewise
  --help                   this text
"""
OWN = ("run_dir",)
PREFIXES = ("model", "data", "trainer", "seed_everything", "imports")
RUN_FOLDER_VARIABLE = "RNNZOO_RUN_FOLDER"  # hands the folder of the first process to those that it launches


def run(argv: list[str]) -> int:
    """Fit, evaluate and report; return the exit code."""
    arguments = sort_arguments(argv, own=OWN, prefixes=PREFIXES)
    if {"--help", "-h"} & set(arguments.overrides):
        print(HELP)
        return 0
    recipe, configs = named_recipe(arguments, "fit")
    folder = run_folder(arguments.own.get("run_dir"), recipe)

    from rnnzoo.cli.engine import ZooCLI, quiet_lightning

    quiet_lightning()
    started = time.perf_counter()
    overrides = [help_of_recipe(word, configs) for word in arguments.overrides]
    cli = ZooCLI([*(f"--config={config}" for config in configs), *overrides], run_folder=folder)
    fit_and_report(cli, folder, title=run_name(recipe), started=started, command=["rnnzoo", "fit", *argv])
    return 0


def named_recipe(arguments: Arguments, verb: str) -> tuple[str, list[str]]:
    """Return the name of the recipe, and the YAML files in order of rising priority.

    Raises:
        InputError: if neither a recipe nor a file is given, or there is none of the name.
    """
    configs = list(arguments.configs)
    if arguments.positional is not None:
        found = find_recipe(arguments.positional)
        return found.name, [str(found.path), *configs]
    if not configs:
        raise InputError(f"rnnzoo {verb}", expected="a recipe", got="none", fix="`rnnzoo recipes` lists them")
    return configs[0], configs


def help_of_recipe(word: str, configs: list[str]) -> str:
    """Return ``--model.help`` with the class of the recipe's model, and any other word as it is."""
    section = word.removeprefix("--").removesuffix(".help")
    if not word.endswith(".help"):
        return word
    paths = [(read_recipe(config).get(section) or {}).get("class_path") for config in configs]
    named = [path for path in paths if path]
    if not named:
        raise InputError(word, expected="--model.help or --data.help of a recipe", got=word)
    return f"{word}={named[-1]}"


def run_folder(wanted: str | None, recipe: str) -> Path:
    """Return the folder of this run, which does not exist yet; processes that a run launches get the same.

    Raises:
        InputError: if the wanted folder exists.
    """
    if RUN_FOLDER_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[RUN_FOLDER_VARIABLE])
    first = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0  # who writes, under a launcher
    if wanted is not None:
        folder = Path(wanted)
        if folder.exists() and first:
            raise InputError(
                f"--run_dir {wanted}", expected="a new folder", got="one that exists", fix="name another or remove it"
            )
    else:
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        folder = Path("runs") / run_name(recipe) / stamp
        number = 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{stamp}_{number}")
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    return folder


def run_name(recipe: str) -> str:
    """Return what the runs of a recipe are filed under: its name, or for a file the file's.

    >>> run_name("many_to_one/imdb"), run_name("my/own recipe.yaml"), run_name("runs/a/b/2026-01-01/config.yaml")
    ('many_to_one/imdb', 'own_recipe', 'b')
    """
    path = Path(recipe)
    if path.suffix not in (".yaml", ".yml"):
        return recipe
    if path.name == "config.yaml" and len(path.parts) > 2:  # of an earlier run
        return path.parts[-3]
    return path.stem.replace(" ", "_")


def fit_and_report(cli: ZooCLI, folder: Path, *, title: str, started: float, command: list[str]) -> None:
    """Train, pick the best checkpoint, evaluate it, and write everything that a run folder holds."""
    from rnnzoo.cli.evaluation import evaluate, load_best

    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if trainer.is_global_zero:
        print(describe(cli), flush=True)
    if cli.config.trainer.fast_dev_run:
        trainer.fit(model, datamodule=data)
        return
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(cli.resolved(), encoding="utf-8")
    try:
        trainer.fit(model, datamodule=data)
    except BaseException:
        if trainer.is_global_zero and not list(folder.glob("checkpoints/*.ckpt")):
            shutil.rmtree(folder, ignore_errors=True)  # nothing was learnt yet that could be of use
        raise
    load_best(model, trainer)
    results = evaluate(model, data, trainer)
    if not trainer.is_global_zero:
        return
    from rnnzoo.cli.run_report import write_run

    seconds = time.perf_counter() - started
    write_run(cli, folder, results, title=title, seconds=seconds, command=shlex.join(command))


def describe(cli: ZooCLI) -> str:
    """Return some lines on what is about to be trained, and on what."""
    model = cli.model
    facts: dict[str, Any] = dict(model.hparams)
    parts = [type(model).__name__]
    if "cell" in facts:
        parts.append(f"cell {facts['cell']}, {facts['num_layers']} layer(s) of {facts['hidden_size']}")
    trained, frozen = model.parameter_counts()
    kept = f" ({trained:,} trained, {frozen:,} frozen: {', '.join(model.frozen)})" if model.frozen else ""
    parts.append(f"{trained + frozen:,} parameters{kept}")
    data = cli.datamodule.describe()
    sizes = ", ".join(f"{count:,} {split}" for split, count in data.split_sizes.items())
    lines = [", ".join(parts), f"data: {data.source} ({sizes})", *(f"note: {note}" for note in data.notes)]
    if cli.warm_start is not None and model.origin is not None:
        lines += [f"started from {model.origin['path']} ({model.origin['class']}):", cli.warm_start.table()]
    return "\n".join(lines)
