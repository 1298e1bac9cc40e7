"""Cells side by side: what the reports of several runs say, over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from rnnzoo.report import number


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
class CellSummary:
    """One cell over its seeds.

    Args:
        cell: its name.
        metrics: split → `Spread` of the selection metric, of the runs in which it is a number.
        undefined: split → in how many runs it is none, but infinite or undefined.
        speed: items per second while training, the median over batches: compiling, which comes once, is not in it.
        seconds: wall time of a run.
        epochs: that were trained, the last one perhaps in part.
        steps: of the optimizer.
        memory: peak memory in MiB.
        parameters: of the model.
        errors: seed → the last line of a run that failed.
    """

    cell: str
    metrics: dict[str, Spread]
    undefined: dict[str, int]
    speed: Spread | None
    seconds: Spread | None
    epochs: Spread | None
    steps: Spread | None
    memory: Spread | None
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
    cell: str, reports: Mapping[int, Mapping[str, Any]], errors: Mapping[int, str], metric: str
) -> CellSummary:
    """Sum up the reports of one cell, by seed."""
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
    return CellSummary(
        cell=cell,
        metrics=metrics,
        undefined=undefined,
        speed=over("steady_items_per_second") or over("items_per_second"),
        seconds=over("wall_seconds"),
        epochs=over("epochs"),
        steps=over("steps"),
        memory=over("peak_memory_mib"),
        parameters=known[0]["training"]["parameters"] if known else None,
        errors=dict(errors),
    )


def has(report: Mapping[str, Any], split: str, metric: str) -> bool:
    """Return whether a report tells of a metric."""
    return metric in report["metrics"].get(split, {})


def splits_of(summaries: Sequence[CellSummary]) -> list[str]:
    """Return the splits of which there are metrics, the one first by which cells are ordered."""
    found = dict.fromkeys(split for each in summaries for split in (*each.metrics, *each.undefined))
    return sorted(found, key="validation".__ne__)


def order(summaries: Sequence[CellSummary], mode: str) -> list[CellSummary]:
    """Return the cells from the best validation metric to the worst.

    Below them are those of which a run has no such number, for its others alone would be chosen by their luck; those
    without any come last.
    """
    sign = 1.0 if mode == "min" else -1.0
    split = next(iter(splits_of(summaries)), "")

    def rank(summary: CellSummary) -> tuple[bool, bool, float]:
        found = summary.metrics.get(split)
        return (found is None, split in summary.undefined, 0.0 if found is None else sign * found.mean)

    return sorted(summaries, key=rank)


def undefined_notes(summaries: Sequence[CellSummary], metric: str) -> list[str]:
    """Return a note on each cell and split in which a metric is no number in some run."""
    notes = []
    for each in summaries:
        for split, count in each.undefined.items():
            found = each.metrics.get(split)
            runs = count + (found.count if found else 0)
            rest = "; the mean is of the others" if found else ""
            notes.append(
                f"{each.cell}: {split} {metric} is no number (infinite or undefined) in {count} of {runs} runs{rest}"
            )
    return notes


def rows(summaries: Sequence[CellSummary], metric: str) -> list[dict[str, str]]:
    """Return the table, a dict for each cell."""
    splits = splits_of(summaries)
    return [
        {
            "cell": summary.cell,
            **{
                f"{split} {metric}": shown(summary.metrics.get(split), summary.undefined.get(split, 0))
                for split in splits
            },
            "runs": str(0 if summary.seconds is None else summary.seconds.count),
            "items/s": rounded(summary.speed),
            "parameters": "-" if summary.parameters is None else f"{summary.parameters:,}",
            "peak MiB": rounded(summary.memory),
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
    lines = [f"# {title}", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(row[name] for name in names) + " |" for row in table]
    lines += ["", *(f"- {note}" for note in notes)]
    if errors:
        lines += ["", "## Runs that failed", "", *(f"- {error}" for error in errors)]
    return "\n".join([*lines, "", "![metric against speed, parameters and memory](compare.png)", ""])
