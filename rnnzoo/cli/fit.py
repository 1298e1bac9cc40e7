"""``rnnzoo fit``: train the model of a recipe, evaluate it, and leave a run folder with report and model."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.cli.arguments import BARE, Arguments, sort_arguments
from rnnzoo.cli.run_folder import ALLOW_CHANGED_DATA, claim_run_folder, run_name
from rnnzoo.errors import InputError
from rnnzoo.files import write_atomically
from rnnzoo.recipes import find_recipe, read_recipe
from rnnzoo.terminal import echo, escape

if TYPE_CHECKING:
    from rnnzoo.cli.engine import ZooCLI
    from rnnzoo.cli.resume import Interrupted

SUMMARY = "train the model of a recipe and report how good it is"
HELP = """usage: rnnzoo fit RECIPE [--KEY VALUE ...]
       rnnzoo fit --resume FOLDER [--KEY VALUE ...]

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
  --resume FOLDER          go on with an interrupted run as if it had never stopped, from its last checkpoint (one
                           between epochs, and every ten minutes within); with a higher --trainer.max_epochs, train a
                           finished one longer; --data and --trainer options may be given anew; --import is asked
                           for each file of Python that the run names
  --allow_changed_data     resume although files that the run began with have changed, which the report will say
  --print_config           print the whole configuration and stop
  --model.help             what the arguments of the recipe's model are; --data.help likewise
  --help                   this text
"""
OWN = ("run_dir", "resume")
PREFIXES = ("model", "data", "trainer", "seed_everything", "imports")
KEPT_OPEN = ("--data.", "--trainer.", "--imports", *BARE)  # what may be said anew of a run that is resumed


def run(argv: list[str]) -> int:
    """Fit, evaluate and report; return the exit code."""
    arguments = sort_arguments(argv, own=OWN, prefixes=PREFIXES, flags=(ALLOW_CHANGED_DATA,))
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    with ExitStack() as stack:
        resumed: Interrupted | None = None
        folder: Path | None = None
        if "resume" in arguments.own:
            resumed = stack.enter_context(resumed_run(arguments))
            title, folder, configs = resumed.title, resumed.folder, [str(resumed.config)]
        else:
            recipe, configs = named_recipe(arguments, "fit")
            title = run_name(recipe)
            if not any(is_question(word) for word in arguments.overrides):
                folder = stack.enter_context(claim_run_folder(arguments.own.get("run_dir"), recipe))

        from rnnzoo.cli.engine import ZooCLI, quiet_lightning

        quiet_lightning()
        overrides = [help_of_recipe(word, configs) for word in arguments.overrides]
        cli = ZooCLI([*(f"--config={config}" for config in configs), *overrides], run_folder=folder, resumed=resumed)
        assert folder is not None  # the parser has answered questions and left
        allow = ALLOW_CHANGED_DATA in arguments.flags
        fit_and_report(cli, folder, title=title, command=["rnnzoo", "fit", *argv], allow_changed=allow)
    return 0


def resumed_run(arguments: Arguments) -> AbstractContextManager[Interrupted]:
    """Return the run that is resumed, to be entered with its folder locked.

    Raises:
        InputError: if another recipe or folder is named beside it.
    """
    others = [arguments.positional, arguments.own.get("run_dir"), *arguments.configs]
    others += [word for word in arguments.overrides if not word.startswith(KEPT_OPEN)]
    if any(others):
        raise InputError(
            "--resume",
            expected="--data and --trainer options at most beside it: recipe and model are those of the run",
            got=", ".join(other for other in others if other),
            fix="for another model begin a new run, with --model.init_from to start from this one",
        )

    from rnnzoo.cli.imports import refuse_unnamed
    from rnnzoo.cli.resume import resume

    folder = Path(arguments.own["resume"])
    refuse_unnamed(folder / "config.yaml", f"--resume {folder}", arguments.overrides)
    return resume(folder)


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


def is_question(word: str) -> bool:
    """Return whether a word of the command line asks for help or the configuration, not for a training."""
    name = word.partition("=")[0]
    return name in BARE or name.endswith(".help")


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


def fit_and_report(cli: ZooCLI, folder: Path, *, title: str, command: list[str], allow_changed: bool = False) -> None:
    """Train, pick the best checkpoint, evaluate it, and write everything that a run folder holds."""
    from rnnzoo.checkpoints import FOLDER, LAST
    from rnnzoo.cli.evaluation import evaluate, load_best
    from rnnzoo.cli.inputs import check_inputs
    from rnnzoo.cli.resume import TITLE

    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    if trainer.is_global_zero:
        echo(describe(cli))
    if cli.config.trainer.fast_dev_run:
        trainer.fit(model, datamodule=data)
        return
    inputs = check_inputs(cli, folder, allow=allow_changed)
    if cli.resumed is not None:
        cli.resumed.check(model, epochs=trainer.max_epochs, steps=trainer.max_steps)
    model.configure_optimizers()  # what cannot be is refused before anything is written
    if trainer.is_global_zero:
        write_atomically(folder / "config.yaml", f"{TITLE}{' '.join(escape(title).split())}\n{cli.resolved()}")
        inputs.write(folder)
    try:
        checkpoint = None if cli.resumed is None else cli.resumed.checkpoint
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        load_best(model, trainer)
        results = evaluate(model, data, trainer)
    except BaseException:
        if trainer.is_global_zero and (folder / FOLDER / LAST).is_file():
            echo(f"\nto go on from the last checkpoint: rnnzoo fit --resume {shlex.quote(str(folder))}")
        raise
    if not trainer.is_global_zero:
        return
    from rnnzoo.cli.run_report import write_run

    write_run(cli, folder, results, changes=inputs.changes, title=title, command=shlex.join(command))


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
    lines = [", ".join(parts), f"data: {data.source} ({sizes})"]
    if data.inputs:
        left_out = f" (left out: {shown_names(data.left_out)})" if data.left_out else ""
        lines.append(f"inputs: {shown_names(data.inputs)}{left_out}")
    lines += [f"note: {note}" for note in data.notes]
    if cli.warm_start is not None and model.origin is not None:
        lines += [f"started from {model.origin['path']} ({model.origin['class']}):", cli.warm_start.table()]
    return "\n".join(lines)


def shown_names(names: Collection[str], most: int = 30) -> str:
    """Return the names of columns with commas between; of many only the first.

    >>> shown_names(["x", "y", "z"], most=2)
    'x, y, … (3 in all)'
    """
    shown = [name or "''" for name in list(names)[:most]]
    return ", ".join([*shown, f"… ({len(names)} in all)"] if len(names) > most else shown)
