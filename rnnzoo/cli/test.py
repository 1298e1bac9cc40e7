"""``rnnzoo test``: measure a trained model on data."""

from __future__ import annotations

import json
import re
from pathlib import Path

from rnnzoo.cli.arguments import sort_arguments
from rnnzoo.cli.output import check_file, print_note
from rnnzoo.errors import InputError
from rnnzoo.files import write_atomically
from rnnzoo.report import metric_entries
from rnnzoo.terminal import echo

SUMMARY = "measure a trained model on the test split of its data, or of other data"
HELP = """usage: rnnzoo test RUN_OR_MODEL [--KEY VALUE ...]

Measure a trained model: a run folder that `rnnzoo fit` left, or a model folder. Of a run that was interrupted or still
runs, its best checkpoint is measured. The data are those of the training unless options say otherwise; tokenizers,
labels and normalisation are always the model's own.

options, in any order:
  --data.KEY VALUE         an argument of the data, such as --data.path FOLDER or --data.test FILE
  --trainer.KEY VALUE      an argument of Lightning's Trainer, such as --trainer.devices 2
  --split NAME             validation or test (default test)
  --output FILE            write metrics and definitions to a new JSON file
  --help                   this text
"""
OWN = ("split", "output")
PREFIXES = ("data", "trainer")
SPLITS = ("validation", "test")


def run(argv: list[str]) -> int:
    """Measure and print; return the exit code."""
    arguments = sort_arguments(argv, own=OWN, prefixes=PREFIXES)
    if {"--help", "-h"} & set(arguments.overrides):
        echo(HELP)
        return 0
    if arguments.positional is None:
        raise InputError("rnnzoo test", expected="a run folder or a model folder", got="none")
    split = arguments.own.get("split", "test")
    if split not in SPLITS:
        raise InputError("--split", expected=f"one of {', '.join(SPLITS)}", got=repr(split))
    output = Path(arguments.own["output"]) if "output" in arguments.own else None
    if output is not None:
        check_file("--output", output)

    from rnnzoo.bundle import data_section, load
    from rnnzoo.cli.engine import build_for_test, quiet_lightning
    from rnnzoo.cli.evaluation import evaluate, format_table
    from rnnzoo.cli.stored_data import check_stored_data
    from rnnzoo.data.named_files import split_of_set

    quiet_lightning()
    recipe = check_stored_data(*data_section(arguments.positional))
    model = load(arguments.positional, note=print_note)
    data, trainer = build_for_test(recipe, arguments.configs, arguments.overrides)
    data.processor = model.processor
    data.for_testing = any(word.startswith("--data.path=") for word in arguments.overrides)
    if data.for_testing:  # files that the recipe names are those of its own folder
        given = {word.partition("=")[0] for word in arguments.overrides}
        data.named = {
            name: file if f"--data.{split_of_set(name)}" in given else None for name, file in data.named.items()
        }
    sizes = data.describe().split_sizes
    if split in data.unlabelled:
        raise InputError(
            f"--split {split}",
            expected="samples with a label",
            got="none",
            fix="answer them with `rnnzoo predict`",
        )
    if not sizes.get(split):
        raise InputError(
            f"--split {split}", expected=f"a split of {data.describe().source}", got=f"splits {', '.join(sizes)}"
        )
    found = evaluate(model, data, trainer, splits=(split,))
    if not trainer.is_global_zero:
        return 0
    description = data.describe()
    echo(f"data: {description.source} ({sizes[split]:,} in {split})")
    for note in description.notes:
        if re.search(rf"\b{split}\b", note):  # others are of training data
            echo(f"note: {note}")
    echo(format_table(found))
    if output is not None:
        metrics = metric_entries(found.values, found.definitions, {})
        write_atomically(output, json.dumps({"metrics": metrics}, indent=2, ensure_ascii=False) + "\n")
    return 0
