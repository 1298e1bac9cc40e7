"""What `rnnzoo gradients` measured, as sentences, tables, JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rnnzoo.cli.gradient_plots import draw_curves, draw_gates
from rnnzoo.cli.listing import show
from rnnzoo.cli.run_report import versions
from rnnzoo.diagnostics.gradient_flow import GradientFlow
from rnnzoo.files import write_atomically
from rnnzoo.report import finite, table_row
from rnnzoo.terminal import echo

SHOWN_LAGS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHRUNK = 0.1  # below this share of its size a gradient is called smaller
INITIAL = "at initialisation"
DEFINITIONS = {
    "gradient by time lag": "norm of the gradient of a row's loss with respect to the state of the layer (h, and c "
    "where there is one) so many steps before the last step at which the loss reaches the layer; only what enters the "
    "layer at that last step, carried back through its own recurrence; median over the rows of one batch that are long "
    "enough, as far as a quarter of them is, without dropout. `per step` is the factor of one step back: below 1 "
    "gradients vanish, above 1 they explode. Clipping by norm multiplies the gradients of all lags by one number "
    "(`clipping`), so the factor per step stays what it was: it bounds a step of training, and brings nothing back "
    "that has vanished",
    "norm of all gradients": "of the mean loss of the batch, with respect to the parameters, before and after clipping "
    "as the recipe clips",
    "gate saturation": "percent of the activations of each gate below 0.05 and above 0.95, over units, rows and steps; "
    "gates that are no sigmoids are not listed",
}


@dataclass(frozen=True)
class Measured:
    """One measurement of one model.

    Args:
        cell: its cell.
        when: at initialisation, or after what.
        rows: of the batch.
        flow: the result.
    """

    cell: str
    when: str
    rows: int
    flow: GradientFlow


def write(measured: Sequence[Measured], folder: Path, *, title: str, lags: int | None, command: str) -> None:
    """Print the tables and write ``gradients.json``, ``gradients.md``, ``gradients.png`` and ``gates.png``."""
    tables = {
        "gradient by time lag": lag_table(measured),
        "norm of all gradients": norm_table(measured),
        "gate saturation": gate_table(measured),
    }
    tables = {name: table for name, table in tables.items() if table}
    draw_curves([(row.cell, row.when, row.flow) for row in measured], folder / "gradients.png")
    drawn = ["gradients.png"]
    if "gate saturation" in tables:
        draw_gates([(row.cell, row.when, row.flow) for row in measured], folder / "gates.png")
        drawn.append("gates.png")
    sentences = [sentence for row in measured for sentence in conclusions(row)]
    document = {
        "title": title,
        "lags": lags,
        "conclusions": sentences,
        "definitions": {name: DEFINITIONS[name] for name in tables},
        "measured": [asdict(row) for row in measured],
        "versions": versions(),
        "command": command,
    }
    write_atomically(folder / "gradients.json", json.dumps(finite(document), indent=2, ensure_ascii=False) + "\n")
    lines = [f"# Gradients of {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    for name, table in tables.items():
        lines += [f"## {name.capitalize()}", "", *markdown_table(table), "", f"{DEFINITIONS[name]}.", ""]
    lines += ["## Command", "", "```", command, "```", "", *(f"![{name}]({name})" for name in drawn)]
    write_atomically(folder / "gradients.md", "\n".join(lines) + "\n")
    for name, table in tables.items():
        echo(f"{name}:")
        show(table, as_json=False)
        echo()
    echo("\n".join([*sentences, ""]))
    echo(f"report: {folder / 'gradients.md'}  ({folder / 'gradients.json'})")
    echo("plots:  " + ", ".join(str(folder / name) for name in drawn))


def lag_table(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Return the median gradient norm at some lags, a row for each measurement and layer."""
    longest = max((len(curve.median) for each in measured for curve in each.flow.curves.values()), default=0)
    lags = [lag for lag in SHOWN_LAGS if lag <= longest]
    lags += [longest] * (longest > lags[-1] if lags else False)
    return [
        {
            "cell": each.cell,
            "when": each.when,
            "layer": layer,
            **{f"lag {lag}": f"{curve.median[lag - 1]:.1e}" if lag <= len(curve.median) else "-" for lag in lags},
            "per step": factor(curve.per_step),
            "clipping": "-" if each.flow.scale is None else f"× {each.flow.scale:.3g}",
            "per step, clipped": "-" if each.flow.scale is None else factor(curve.per_step),
        }
        for each in measured
        for layer, curve in each.flow.curves.items()
    ]


def factor(per_step: float | None) -> str:
    """Return the factor of one step back as text."""
    return "-" if per_step is None else f"{per_step:.3f}"


def conclusions(measured: Measured) -> list[str]:
    """Return a sentence on each layer: what is left of the gradient at the largest lag."""
    sentences = []
    for layer, curve in measured.flow.curves.items():
        if curve.per_step is not None:
            steps = max(lag for lag, value in enumerate(curve.median) if value > 0)
            left = curve.per_step**steps
            verb = "shrinks" if left < SHRUNK else "grows" if left > 1 / SHRUNK else "keeps its size"
            sentences.append(
                f"{measured.cell} {measured.when}, {layer}: over {steps} steps back the gradient {verb} "
                f"(× {left:.1e}, {curve.per_step:.3f} a step)."
            )
    return sentences


def norm_table(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Return the norm of gradients before and after clipping, a row for each measurement and group of parameters."""
    return [
        {
            "cell": each.cell,
            "when": each.when,
            "loss": f"{each.flow.loss:.4f}",
            "parameters": group,
            "norm": f"{norm:.3g}",
            "after clipping": f"{each.flow.clipped[group]:.3g}",
        }
        for each in measured
        for group, norm in each.flow.norms.items()
    ]


def gate_table(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Return the use of each gate, a row for each measurement, layer and gate."""
    return [
        {
            "cell": each.cell,
            "when": each.when,
            "layer": layer,
            "gate": gate.gate,
            "below 0.05": f"{100 * gate.below:.1f} %",
            "above 0.95": f"{100 * gate.above:.1f} %",
            "mean": f"{gate.mean:.2f}",
        }
        for each in measured
        for layer, gates in each.flow.gates.items()
        for gate in gates
    ]


def markdown_table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return rows as the lines of a Markdown table."""
    names = list(rows[0])
    lines = [table_row(*names), "|" + " --- |" * len(names)]
    return [*lines, *(table_row(*(row[name] for name in names)) for row in rows)]
