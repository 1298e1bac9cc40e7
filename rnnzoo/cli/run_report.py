"""Everything that a finished run leaves in its folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnzoo import bundle, plots
from rnnzoo.callbacks.throughput import Throughput, peak_memory
from rnnzoo.cli.engine import ZooCLI
from rnnzoo.cli.evaluation import Evaluation, format_table
from rnnzoo.data.description import DataDescription
from rnnzoo.metrics import ClassificationCounts
from rnnzoo.report import Report, metric_entries
from rnnzoo.terminal import echo, to_json
from rnnzoo.text.tokenizer import UNKNOWN_ID
from rnnzoo.version import __version__

SAMPLES_SHOWN = 3
MOST_CLASSES_DRAWN = 50


def write_run(
    cli: ZooCLI, folder: Path, results: Evaluation, *, title: str, command: str, changes: Sequence[str] = ()
) -> None:
    """Write model, plots and report, and print where they are; `changes` are of the data of a resumed run."""
    model, data, trainer = cli.model, cli.datamodule, cli.trainer
    best = data.best_scores
    split = "test" if "test" in results.values else "validation"
    samples = [dict(data.raw(split)[place]) for place in range(min(SAMPLES_SHOWN, len(data.raw(split))))]
    answers = model.show(samples)
    facts = {"data": as_json(cli.config.data.as_dict()), "init_from": model.origin}
    resumed = cli.resumed is not None  # then there may be a model of fewer epochs
    bundle.save(model, folder / "model", facts=facts, replace=resumed)
    report = Report(
        title=title,
        model=describe_model(cli),
        metrics=metric_entries(results.values, results.definitions, best),
        data={
            "source": data.describe().source,
            "revision": data.describe().revision,
            "split_sizes": data.describe().split_sizes,
            **described_inputs(data.describe()),
            "notes": [*data.describe().notes, *changes, *cut_notes(cli)],
            "unknown_tokens": unknown_tokens(cli),
        },
        training={
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "wall_seconds": round(cli.throughput.wall_seconds(), 1),
            **({"resumed_after_epochs": cli.throughput.epochs_before} if cli.throughput.epochs_before else {}),
            "items_per_second": Throughput.rate(cli.throughput.items, cli.throughput.seconds, trainer.world_size),
            "steady_items_per_second": cli.throughput.steady_rate(trainer.world_size),
            "item": "token or frame, padding excluded; a sample where there are no lengths",
            "peak_memory_mib": round(peak_memory(trainer.strategy.root_device), 1),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "frozen_parameters": model.parameter_counts()[1],
            "seed": cli.config.seed_everything,
            "processes": trainer.world_size,
            "threads": torch.get_num_threads(),
            "device": str(trainer.strategy.root_device),
        },
        versions=versions(),
        command=command,
        samples=[{"input": shown(sample), "answer": answer} for sample, answer in zip(samples, answers, strict=True)],
        plots=draw(cli, folder, split) + model.draw(samples, folder),
    )
    report.write(folder)
    echo(format_table(results))
    for name, value in best.get(split, {}).items():
        echo(f"best possible {name} ({split}): {value:.4f}")
    echo("\nsamples:")
    for sample in report.samples:
        echo(f"  {to_json(sample['input'])}\n    → {shorten(sample['answer'])}")
    echo(f"\nreport: {folder / 'report.md'}  ({folder / 'report.json'})")
    echo("plots:  " + ", ".join(str(folder / name) for name in report.plots))
    echo(f"model:  {folder / 'model'}")


def describe_model(cli: ZooCLI) -> dict[str, Any]:
    """Return class, cell and arguments of the model, the processor left out."""
    arguments = {name: value for name, value in dict(cli.model.hparams).items() if name != "processor"}
    return {
        "class": type(cli.model).__name__,
        "cell": arguments.get("cell"),
        "selection": dict(zip(("metric", "mode"), cli.model.selection, strict=True)),
        "arguments": arguments,
        "init_from": cli.model.origin,
        "frozen": list(cli.model.frozen),
        "optimizer": plain(cli.config.model.init_args.get("optimizer")),
        "lr_scheduler": plain(cli.config.model.init_args.get("lr_scheduler")),
        "lr_scheduler_interval": cli.model.scheduler_interval,
    }


def described_inputs(description: DataDescription) -> dict[str, Any]:
    """Return which columns of a table of numbers are inputs, and why others are not."""
    return {"inputs": description.inputs, "left_out": description.left_out} if description.inputs else {}


def plain(value: Any) -> Any:
    """Return a part of the configuration as JSON values."""
    return value.as_dict() if hasattr(value, "as_dict") else value if isinstance(value, dict | None) else str(value)


def cut_notes(cli: ZooCLI) -> list[str]:
    """Return a note for each split some of whose texts were longer than the longest allowed."""
    notes = []
    for split in cli.datamodule.describe().split_sizes:
        table = cli.datamodule.encoded(split).table
        if "cut" in table.column_names:
            cut = [count for count in table["cut"] if count]
            if cut:
                notes.append(f"{split}: {len(cut)} texts were longer than max_length; {sum(cut)} tokens were left out")
    return notes


def unknown_tokens(cli: ZooCLI) -> dict[str, str]:
    """Return for each split but the training how many tokens (words, characters) training never saw; for text only."""
    found = {}
    for split in cli.datamodule.describe().split_sizes:
        table = cli.datamodule.encoded(split).table
        kinds = (("source", "target"), ("tokens",), ("words",), ("captions",))  # the first that there is: ids of tokens
        columns = next((names for names in kinds if names[0] in table.column_names), ())
        for column in columns if split != "train" else ():
            rows = chain.from_iterable(table[column]) if column == "captions" else table[column]
            ids = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
            count = int((ids == UNKNOWN_ID).sum())
            name = split if len(columns) == 1 else f"{split} {column}"
            found[name] = f"{count} of {len(ids)} ({100 * count / max(1, len(ids)):.2f} %)"
    return found


def draw(cli: ZooCLI, folder: Path, split: str) -> list[str]:
    """Draw the plots that fit the model and return their file names."""
    drawn = []
    metrics = folder / "metrics.csv"
    if metrics.is_file() and plots.learning_curves(metrics, folder / "learning_curves.png", cli.model.selection[0]):
        drawn.append("learning_curves.png")
    for metric in cli.model.split_metrics({"validation": "val"}.get(split, split)).values():
        if isinstance(metric, ClassificationCounts) and len(metric.labels) <= MOST_CLASSES_DRAWN:
            plots.confusion_matrix(metric.matrix()[:-1].tolist(), metric.labels, folder / "confusion_matrix.png")
            drawn.append("confusion_matrix.png")
    return drawn


def as_json(section: dict[str, Any]) -> dict[str, Any]:
    """Return the data section of a configuration as JSON values: what `rnnzoo test` reads the data by."""
    return json.loads(json.dumps(section, default=str))


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {name: version(name) for name in ("torch", "lightning", "torchmetrics", "datasets", "tokenizers", "numpy")}
    return {"rnnzoo": __version__, "python": platform.python_version(), **found}


def shown(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a raw sample cut to a size that can be read."""
    sample = {name: f"{len(value):,} bytes" if isinstance(value, bytes) else value for name, value in sample.items()}
    return {name: value if len(str(value)) < 400 else f"{str(value)[:400]}…" for name, value in sample.items()}


def shorten(answer: dict[str, Any]) -> str:
    """Return an answer as JSON of at most a few hundred characters."""
    text = to_json(answer)
    return text if len(text) < 400 else f"{text[:400]}…"
