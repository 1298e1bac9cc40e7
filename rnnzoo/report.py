"""The report of a run: numbers with their definitions, and all that is needed to make them again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rnnzoo.files import write_atomically
from rnnzoo.terminal import escape, to_json


@dataclass
class Report:
    """What a run did and how good the result is.

    Args:
        title: the recipe.
        model: class, cell and arguments of the model.
        metrics: split → metric → ``{"value", "definition"}``, and ``best_possible`` where it is known.
        data: source, revision or checksums, split sizes, notes.
        training: epochs, wall time in seconds, items per second, peak memory in MiB, parameters, seed.
        versions: package → version.
        command: the command line.
        samples: some samples with the model's answers.
        plots: file names of plots in the same folder.
    """

    title: str
    model: dict[str, Any]
    metrics: dict[str, dict[str, dict[str, Any]]]
    data: dict[str, Any]
    training: dict[str, Any]
    versions: dict[str, str]
    command: str
    samples: list[dict[str, Any]] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.md`` into a folder, each whole or not at all."""
        text = to_json(finite(asdict(self)), indent=2) + "\n"
        write_atomically(folder / "report.json", text)
        write_atomically(folder / "report.md", escape(self.markdown()))

    def markdown(self) -> str:
        """Return the report as Markdown."""
        lines = [f"# {self.title}", ""]
        for split, values in self.metrics.items():
            lines += [f"## {split}", "", "| metric | value | best possible | definition |", "| --- | --- | --- | --- |"]
            for name, entry in values.items():
                best = number(entry["best_possible"]) if "best_possible" in entry else ""
                lines.append(table_row(name, number(entry["value"]), best, entry["definition"]))
            lines.append("")
        for heading, facts in (
            ("Model", self.model),
            ("Data", self.data),
            ("Training", self.training),
            ("Versions", self.versions),
        ):
            lines += [
                f"## {heading}",
                "",
                *(f"- {name}: {one_line(plain(value))}" for name, value in facts.items()),
                "",
            ]
        lines += ["## Command", "", "```", self.command, "```", ""]
        if self.samples:
            lines += ["## Samples", ""]
            lines += ["```json", *(json.dumps(sample, ensure_ascii=False) for sample in self.samples), "```", ""]
        lines += [f"![{name}]({name})" for name in self.plots]
        return "\n".join(lines).rstrip() + "\n"


def metric_entries(
    values: Mapping[str, Mapping[str, float]],
    definitions: Mapping[str, Mapping[str, str]],
    best: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, dict[str, Any]]]:
    """Join values, definitions and best possible values: each is split → metric → value."""
    entries: dict[str, dict[str, dict[str, Any]]] = {}
    for split, found in values.items():
        entries[split] = {}
        for name, value in found.items():
            entry: dict[str, Any] = {"value": value, "definition": definitions[split][name]}
            if name in best.get(split, {}):
                entry["best_possible"] = best[split][name]
            entries[split][name] = entry
    return entries


def finite(value: Any) -> Any:
    """Return a tree of JSON values with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(name): finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float) -> str:
    """Return a number for people.

    >>> number(94.12345), number(3.0)
    ('94.1235', '3')
    """
    return f"{value:.4f}".rstrip("0").rstrip(".") if math.isfinite(value) else str(value)


def one_line(text: str) -> str:
    """Return a text without line breaks, so that it stays in the line of Markdown that it is put in."""
    return " ".join(text.splitlines())


def table_row(*cells: str) -> str:
    r"""Return a row of a Markdown table; a vertical bar in a cell does not end it.

    >>> table_row("bleu", "33.96", "nrefs:1|case:mixed")
    '| bleu | 33.96 | nrefs:1\\|case:mixed |'
    """
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def plain(value: Any) -> str:
    """Return a value for people: JSON for what has parts."""
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(finite(value), ensure_ascii=False)
