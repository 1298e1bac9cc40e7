"""Variants of a recipe side by side: what the reports of several runs say, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rnnzoo.documents import read_metrics
from rnnzoo.report import number, table_row


@dataclass(frozen=True)
class Spread:
    """A number over several runs.

    Args:
        mean: the mean.
        deviation: the standard deviation of a sample (divided by n - 1); None of a single run.
        count: n.
    """

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds.

    Args:
        label: its name.
        settings: key → value of what differs from the other variants.
        metrics: split → `Spread` of the selection metric, of the runs in which it is a number.
        undefined: split → in how many runs it is none, but infinite or undefined.
        speed: items per second while training, the median over batches: compiling, which comes once, is not in it.
        seconds: wall time of a run.
        epochs: that were trained, the last one perhaps in part.
        steps: of the optimizer.
        memory: peak memory in MiB.
        gradient_norm: the largest norm of all gradients before clipping in any step.
        parameters: of the model.
        errors: seed → the last line of a run that failed.
    """

    label: str
    settings: dict[str, str]
    metrics: dict[str, Spread]
    undefined: dict[str, int]
    speed: Spread | None
    seconds: Spread | None
    epochs: Spread | None
    steps: Spread | None
    memory: Spread | None
    gradient_norm: Spread | None
    parameters: int | None
    errors: dict[int, str]


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and deviation of some numbers, None of none.

    >>> spread([1.0, 3.0])
    Spread(mean=2.0, deviation=1.4142135623730951, count=2)
    """
    if not values:
        return None
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def summarise(
    label: str,
    settings: Mapping[str, str],
    reports: Mapping[int, Mapping[str, Any]],
    errors: Mapping[int, str],
    metric: str,
    gradient_norms: Sequence[float] = (),
) -> Summary:
    """Sum up the reports of one variant by seed, and the largest gradient norm of each of its runs."""
    known = list(reports.values())

    def over(name: str) -> Spread | None:
        values = [report["training"].get(name) for report in known]
        return spread([float(value) for value in values if value is not None])

    metrics, undefined = {}, {}
    for split in dict.fromkeys(split for report in known for split in report["metrics"]):
        values = [report["metrics"][split][metric]["value"] for report in known if has(report, split, metric)]
        found = spread([float(value) for value in values if value is not None])
        if found is not None:
            metrics[split] = found
        if None in values:
            undefined[split] = values.count(None)
    return Summary(
        label=label,
        settings=dict(settings),
        metrics=metrics,
        undefined=undefined,
        speed=over("steady_items_per_second") or over("items_per_second"),
        seconds=over("wall_seconds"),
        epochs=over("epochs"),
        steps=over("steps"),
        memory=over("peak_memory_mib"),
        gradient_norm=spread(gradient_norms),
        parameters=known[0]["training"]["parameters"] if known else None,
        errors=dict(errors),
    )


def has(report: Mapping[str, Any], split: str, metric: str) -> bool:
    """Return whether a report tells of a metric."""
    return metric in report["metrics"].get(split, {})


def splits_of(summaries: Sequence[Summary]) -> list[str]:
    """Return the splits of which there are metrics, first the one by which variants are ordered."""
    found = dict.fromkeys(split for each in summaries for split in (*each.metrics, *each.undefined))
    return sorted(found, key="validation".__ne__)


def order(summaries: Sequence[Summary], mode: str) -> list[Summary]:
    """Return the variants from the best validation metric to the worst.

    Below them are those of which a run has no such number, for its others alone would be chosen by their luck; those
    without any come last.
    """
    sign = 1.0 if mode == "min" else -1.0
    split = next(iter(splits_of(summaries)), "")

    def rank(summary: Summary) -> tuple[bool, bool, float]:
        found = summary.metrics.get(split)
        return (found is None, split in summary.undefined, 0.0 if found is None else sign * found.mean)

    return sorted(summaries, key=rank)


def undefined_notes(summaries: Sequence[Summary], metric: str) -> list[str]:
    """Return a note on each cell and split in which a metric is no number in some run."""
    notes = []
    for each in summaries:
        for split, count in each.undefined.items():
            found = each.metrics.get(split)
            runs = count + (found.count if found else 0)
            rest = "; the mean is of the others" if found else ""
            notes.append(
                f"{each.label}: {split} {metric} is no number (infinite or undefined) in {count} of {runs} runs{rest}"
            )
    return notes


def rows(summaries: Sequence[Summary], metric: str) -> list[dict[str, str]]:
    """Return the table, a dict for each variant."""
    splits = splits_of(summaries)
    names = short_names(list(summaries[0].settings)) if summaries else {}
    return [
        {
            **{names[key]: value for key, value in summary.settings.items()},
            **{
                f"{split} {metric}": shown(summary.metrics.get(split), summary.undefined.get(split, 0))
                for split in splits
            },
            "runs": str(0 if summary.seconds is None else summary.seconds.count),
            "items/s": rounded(summary.speed),
            "parameters": "-" if summary.parameters is None else f"{summary.parameters:,}",
            "peak MiB": rounded(summary.memory),
            "largest gradient": "-" if summary.gradient_norm is None else f"{summary.gradient_norm.mean:.3g}",
            "epochs": "-" if summary.epochs is None else number(round(summary.epochs.mean, 1)),
            "steps": rounded(summary.steps),
            "seconds": rounded(summary.seconds),
        }
        for summary in summaries
    ]


def shown(value: Spread | None, undefined: int) -> str:
    """Return a metric as mean ± deviation, with the number of runs where some have none."""
    count = 0 if value is None else value.count
    part = f" ({count} of {count + undefined})" if undefined else ""
    if value is None:
        return f"-{part}"
    deviation = "" if value.deviation is None else f" ± {value.deviation:.2g}"
    return f"{value.mean:.4g}{deviation}{part}"


def rounded(value: Spread | None) -> str:
    """Return the mean as a whole number."""
    return "-" if value is None else f"{value.mean:,.0f}"


def markdown(title: str, table: Sequence[Mapping[str, str]], notes: Sequence[str], errors: Sequence[str]) -> str:
    """Return the comparison as Markdown."""
    names = list(table[0])
    lines = [f"# {title}", "", table_row(*names), "|" + " --- |" * len(names)]
    lines += [table_row(*(row[name] for name in names)) for row in table]
    lines += ["", *(f"- {note}" for note in notes)]
    if errors:
        lines += ["", "## Runs that failed", "", *(f"- {error}" for error in errors)]
    return "\n".join(
        [*lines, "", "![the metric and what it costs](compare.png)", "", "![learning curves](curves.png)", ""]
    )


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each key, or the whole key where two would have the same name.

    >>> short_names(["model.num_layers", "trainer.gradient_clip_val"])
    {'model.num_layers': 'num_layers', 'trainer.gradient_clip_val': 'gradient_clip_val'}
    >>> short_names(["model.words.size", "model.characters.size"])
    {'model.words.size': 'model.words.size', 'model.characters.size': 'model.characters.size'}
    """
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def numeric_key(variants: Sequence[Mapping[str, str]]) -> str | None:
    """Return the one key that is varied if all its values are numbers, else None.

    >>> numeric_key([{"model.num_layers": "1"}, {"model.num_layers": "2"}]), numeric_key([{"model.cell": "gru"}])
    ('model.num_layers', None)
    """
    keys = {key for settings in variants for key in settings}
    if len(keys) != 1 or len(variants) < 2:
        return None
    try:
        [float(value) for settings in variants for value in settings.values()]
    except ValueError:
        return None
    return keys.pop()


def by_value(summaries: Sequence[Summary], key: str) -> list[Summary]:
    """Return the variants in the order of the values of a numeric key."""
    return sorted(summaries, key=lambda summary: float(summary.settings[key]))


def sentence(summaries: Sequence[Summary], metric: str) -> str:
    """Return in one sentence what the comparison shows.

    Args:
        summaries: best first.
        metric: by which.
    """
    known = [summary for summary in summaries if summary.seconds is not None]
    split = next(iter(splits_of(summaries)), "")
    key = numeric_key([summary.settings for summary in known])
    if key is not None:
        ends = by_value(known, key)
        parts = [
            f"{name} {' → '.join(value(summary) for summary in ends)}"
            for name, value in (
                (f"{split} {metric}", lambda each: shown(each.metrics.get(split), each.undefined.get(split, 0))),
                ("seconds", lambda each: rounded(each.seconds)),
                ("peak MiB", lambda each: rounded(each.memory)),
                (
                    "largest gradient norm",
                    lambda each: "-" if each.gradient_norm is None else f"{each.gradient_norm.mean:.3g}",
                ),
            )
        ]
        return f"{short_names([key])[key]} {' → '.join(each.settings[key] for each in ends)}: {', '.join(parts)}."
    parts = []
    if known and split in known[0].metrics:
        parts.append(f"best {split} {metric}: {known[0].label} ({shown(known[0].metrics[split], 0)})")
    speeds = {each.label: each.speed.mean for each in known if each.speed is not None}
    if speeds:
        fastest = max(speeds, key=speeds.__getitem__)
        parts.append(f"fastest: {fastest} ({speeds[fastest]:,.0f} items/s)")
    return ("; ".join(parts) or "no run was finished") + "."


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return name → points (epoch, value) of the ``metrics.csv`` of a run; epochs count from 1, when they are over.

    Nothing if there is no such file. The evaluation after the last epoch, of the best checkpoint, is left out.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for row in read_metrics(path):
        for name, text in row.items():
            if text and row.get("epoch") and name not in ("epoch", "step"):
                found.setdefault(name, []).append((float(row["epoch"]) + 1, float(text)))
    last = max((epoch for epoch, _ in found.get("train/loss", [])), default=float("inf"))
    return {name: [point for point in points if point[0] <= last] for name, points in found.items()}
