"""Evaluating a model on the splits of its data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from lightning.pytorch import Trainer

from rnnzoo.callbacks.exact_resume import BestCheckpoint
from rnnzoo.checkpoints import read_checkpoint
from rnnzoo.data.base import ZooData
from rnnzoo.data.named_files import in_order
from rnnzoo.models.base import ZooModel


@dataclass
class Evaluation:
    """What was measured.

    Args:
        values: split → metric → value.
        definitions: split → metric → what exactly it is on this split.
    """

    values: dict[str, dict[str, float]]
    definitions: dict[str, dict[str, str]]


def load_best(model: ZooModel, trainer: Trainer) -> None:
    """Load the weights of the best checkpoint of this training into the model, on every process."""
    own = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, BestCheckpoint)]
    best = own[0].best_model_path if own else ""
    best = trainer.strategy.broadcast(best)
    if best and Path(best).is_file():
        model.load_state_dict(read_checkpoint(Path(best))["state_dict"])


def evaluate(
    model: ZooModel, data: ZooData, trainer: Trainer, splits: tuple[str, ...] = ("validation", "test")
) -> Evaluation:
    """Measure the model on `splits`, and on the named test sets of the test split; what the data lacks is left out."""
    sizes = data.describe().split_sizes
    named = [name for name in sizes if name.startswith("test/")]
    values: dict[str, dict[str, float]] = {}
    definitions: dict[str, dict[str, str]] = {}
    # Test sets come before the whole split: the model keeps the counts of what was measured last, which are drawn.
    for split in chain.from_iterable([*named, split] if split == "test" else [split] for split in splits):
        if not sizes.get(split):
            continue
        short = {"validation": "val"}.get(split, "test")
        run = trainer.validate if split == "validation" else trainer.test
        data.tested = split if short == "test" else data.tested
        run(model, datamodule=data, verbose=False)
        if short not in model.results:  # the Trainer was told to leave it out
            continue
        values[split] = dict(model.results[short])
        definitions[split] = model.definitions(short)
    return Evaluation({split: values[split] for split in in_order(values)}, definitions)


def format_table(evaluation: Evaluation) -> str:
    """Return the values as an aligned table: a row a metric, a column a split."""
    splits = list(evaluation.values)
    names = list(dict.fromkeys(name for values in evaluation.values.values() for name in values))
    width = max([len(name) for name in names] + [6])
    widths = [max(14, len(split) + 2) for split in splits]
    lines = ["metric".ljust(width) + "".join(map(str.rjust, splits, widths))]
    for name in names:
        cells = [evaluation.values[split].get(name) for split in splits]
        shown = ["-" if value is None else f"{value:.4f}" if abs(value) < 1e7 else f"{value:.4g}" for value in cells]
        lines.append(name.ljust(width) + "".join(map(str.rjust, shown, widths)))
    return "\n".join(lines)
