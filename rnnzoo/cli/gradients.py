"""``rnnzoo gradients``: how far gradients reach back in time, at initialisation and after training."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.cli.arguments import Arguments, sort_arguments
from rnnzoo.cli.cells import chosen_cells
from rnnzoo.cli.fit import PREFIXES, named_recipe
from rnnzoo.cli.imports import import_named
from rnnzoo.cli.output import print_note
from rnnzoo.cli.run_folder import claim_run_folder, run_name
from rnnzoo.errors import InputError
from rnnzoo.files import write_atomically
from rnnzoo.report import finite
from rnnzoo.terminal import echo

if TYPE_CHECKING:
    from rnnzoo.batches import Batch
    from rnnzoo.cli.engine import ZooCLI
    from rnnzoo.cli.gradient_report import Measured
    from rnnzoo.models.base import ZooModel

SUMMARY = "show how far gradients reach back in time, and what gates do, for one cell or several"
HELP = """usage: rnnzoo gradients RECIPE [--cells A,B,...] [--model RUN_OR_MODEL] [--KEY VALUE ...]
       rnnzoo gradients RECIPE --by_step [--model RUN_OR_MODEL] [--KEY VALUE ...]

Show why a cell learns or not: for one batch of the recipe's training data, the norm of the gradient by time lag and
layer with the factor of one step back (below 1 it vanishes, above 1 it explodes), the norm of all gradients before and
after clipping, and how many gate activations are saturated; at initialisation, and after some training. Tables go to
the terminal; gradients.json, gradients.md, gradients.png and gates.png into a folder.

With --by_step: the loss of each step and its gradient, and the gradient through each step's use of the recurrent
weights, with the largest differences between their sums and the gradient of the whole loss; by_step.json and
by_step.png.

options, in any order:
  --by_step                take the gradient apart by step
  --cells A,B,...          cells that `rnnzoo cells` lists (default: the recipe's own)
  --steps N                train each for N steps before the second measurement; 0 leaves it out (default 100)
  --model RUN_OR_MODEL     measure a trained model instead: a run folder that `rnnzoo fit` left, or a model folder
  --lags K                 the largest time lag (default: that of the longest sequence of the batch)
  --run_dir FOLDER         where the files go; a new one, runs/RECIPE/TIME by default
  --config FILE, --data.KEY VALUE, --model.KEY VALUE, --trainer.KEY VALUE, --seed_everything N   as for `rnnzoo fit`
  --help                   this text
"""
OWN = ("cells", "steps", "model", "lags", "run_dir")


def run(argv: list[str]) -> int:
    """Measure, print and write; return the exit code."""
    by_step = "--by_step" in argv
    arguments = sort_arguments([word for word in argv if word != "--by_step"], own=OWN, prefixes=PREFIXES)
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    own = arguments.own
    recipe, configs = named_recipe(arguments, "gradients")
    import_named([*(f"--config={config}" for config in configs), *arguments.overrides])
    cells = chosen_cells(own["cells"]) if "cells" in own else (None,)
    steps = whole(own, "steps", 100, least=0)
    lags = whole(own, "lags", 1, least=1) if "lags" in own else None
    for other in ("cells", "steps"):
        if "model" in own and other in own:
            raise InputError("rnnzoo gradients", expected=f"--model or --{other}", got="both")
    for other in ("cells", "steps", "lags"):
        if by_step and other in own:
            raise InputError("rnnzoo gradients", expected=f"--by_step or --{other}", got="both")

    from rnnzoo.cli.engine import quiet_lightning
    from rnnzoo.cli.gradient_report import write

    quiet_lightning()
    if by_step:
        with claim_run_folder(own.get("run_dir"), recipe) as folder:
            take_apart(build(configs, arguments, None, 0), own.get("model"), folder, title=run_name(recipe))
        return 0
    measured: list[Measured] = []
    with claim_run_folder(own.get("run_dir"), recipe) as folder:
        for cell in cells:
            cli = build(configs, arguments, cell, steps)
            if "model" in own:
                measured += measure_trained(cli, own["model"], lags)
            else:
                measured += measure_recipe(cli, lags, steps)
        write(measured, folder, title=run_name(recipe), lags=lags, command=shlex.join(["rnnzoo", "gradients", *argv]))
    return 0


def whole(own: dict[str, str], name: str, usual: int, *, least: int) -> int:
    """Return an option as a whole number of at least `least`."""
    text = own.get(name, str(usual))
    if not text.isdigit() or int(text) < least:
        raise InputError(f"--{name}", expected=f"a whole number of at least {least}", got=repr(text))
    return int(text)


def build(configs: list[str], arguments: Arguments, cell: str | None, steps: int) -> ZooCLI:
    """Build the recipe's data and model, with `cell` in the place of its own, and a Trainer of so many steps."""
    import sys

    from rnnzoo.cli.engine import ZooCLI

    given = {word.split("=")[0] for word in arguments.overrides}
    words = [f"--trainer.max_steps={max(1, steps)}", "--trainer.max_epochs=-1", "--trainer.num_sanity_val_steps=0"]
    if "--trainer.enable_progress_bar" not in given and not sys.stderr.isatty():
        words.append("--trainer.enable_progress_bar=false")
    if cell is not None:
        words.append(f"--model.cell={cell}")
    return ZooCLI([*(f"--config={config}" for config in configs), *arguments.overrides, *words], run_folder=None)


def measure_recipe(cli: ZooCLI, lags: int | None, steps: int) -> list[Measured]:
    """Measure the recipe's model as it begins and, if `steps` is above 0, after so many steps of training."""
    from rnnzoo.cli.gradient_report import INITIAL

    batch = first_batch(cli, cli.model)
    results = [measure(cli, cli.model, batch, lags, INITIAL)]
    if steps > 0:
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        results.append(measure(cli, cli.model, batch, lags, f"after {cli.trainer.global_step} steps"))
    return results


def measure_trained(cli: ZooCLI, path: str, lags: int | None) -> list[Measured]:
    """Measure a trained model on the recipe's data, and the same model with the weights that it may have begun with."""
    import torch

    from rnnzoo.cli.gradient_report import INITIAL

    model = load_trained(cli, path)
    arguments = {name: value for name, value in dict(model.hparams).items() if name != "processor"}
    torch.manual_seed(cli.config.seed_everything)
    fresh = type(model)(processor=model.processor, **arguments)
    batch = first_batch(cli, model)
    return [measure(cli, fresh, batch, lags, INITIAL), measure(cli, model, batch, lags, f"trained ({Path(path).name})")]


def load_trained(cli: ZooCLI, path: str) -> ZooModel:
    """Load a trained model, whose processor then makes the batches.

    Raises:
        InputError: if it reads other data than the recipe's.
    """
    from rnnzoo.bundle import load

    model = load(path, note=print_note)
    if type(model.processor) is not type(cli.datamodule.processor):
        raise InputError(
            f"--model {path}",
            expected=f"a model of the recipe's data, such as a {type(cli.model).__name__}",
            got=f"a {type(model).__name__}",
        )
    cli.datamodule.processor = model.processor
    return model


def take_apart(cli: ZooCLI, path: str | None, folder: Path, *, title: str) -> None:
    """Take the gradient of a batch apart by step: print what it shows, write ``by_step.json`` and ``by_step.png``."""
    from rnnzoo.cli.gradient_plots import draw_steps
    from rnnzoo.diagnostics.step_gradients import step_gradients

    model = cli.model if path is None else load_trained(cli, path)
    batch = first_batch(cli, model)
    result = step_gradients(model.to(cli.trainer.strategy.root_device), batch)
    sentences = result.sentences()
    document = {"title": title, "conclusions": sentences, **asdict(result)}
    write_atomically(folder / "by_step.json", json.dumps(finite(document), indent=2, ensure_ascii=False) + "\n")
    draw_steps(result, str(dict(model.hparams).get("cell")), folder / "by_step.png")
    echo("\n".join(sentences))
    echo(f"\nreport: {folder / 'by_step.json'}\nplots:  {folder / 'by_step.png'}")


def first_batch(cli: ZooCLI, model: ZooModel) -> Batch:
    """Return the first training batch of the recipe, on the Trainer's device."""
    batch = next(iter(cli.datamodule.train_dataloader()))
    return model.transfer_batch_to_device(batch, cli.trainer.strategy.root_device, 0)


def measure(cli: ZooCLI, model: ZooModel, batch: Batch, lags: int | None, when: str) -> Measured:
    """Measure a model."""
    from rnnzoo.cli.gradient_report import Measured
    from rnnzoo.diagnostics.gradient_flow import measure_flow

    trainer: Any = cli.trainer
    flow = measure_flow(
        model.to(trainer.strategy.root_device),
        batch,
        lags=lags,
        clip=trainer.gradient_clip_val,
        by_value=str(trainer.gradient_clip_algorithm or "norm").lower().endswith("value"),
    )
    return Measured(str(dict(model.hparams).get("cell")), when, len(batch.ids), flow)
