"""What `rnnzoo gradients` found, as tables, JSON, Markdown and plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnzoo.cli.listing import show
from rnnzoo.cli.run_report import versions
from rnnzoo.files import write_atomically
from rnnzoo.models.gradient_flow import GradientFlow
from rnnzoo.plots import new_figure, save
from rnnzoo.report import finite, table_row

SHOWN_LAGS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
INITIAL = "at initialisation"
DEFINITIONS = {
    "gradient by time lag": "norm of the gradient of a row's loss with respect to the state of the layer (h, and c "
    "where there is one) so many steps before the last step at which the loss reaches the layer; only what enters the "
    "layer at that last step, carried back through its own recurrence; median over the rows of one batch that are long "
    "enough, as far as a quarter of them is, without dropout. `per step` is the factor of one step back: below 1 "
    "gradients vanish, above 1 they explode",
    "norm of all gradients": "of the mean loss of the batch, with respect to the parameters, before and after clipping "
    "as the recipe clips",
    "gate saturation": "percent of the activations of each gate below 0.05 and above 0.95, over units, rows and steps; "
    "gates that are no sigmoids are not listed",
}


@dataclass(frozen=True)
class Measured:
    """One look at one model.

    Args:
        cell: its cell.
        when: at initialisation, or after what.
        rows: of the batch.
        flow: what was found.
    """

    cell: str
    when: str
    rows: int
    flow: GradientFlow


def write(measured: Sequence[Measured], folder: Path, *, title: str, lags: int, command: str) -> None:
    """Print the tables and write ``gradients.json``, ``gradients.md``, ``gradients.png`` and ``gates.png``."""
    tables = {
        "gradient by time lag": lag_table(measured),
        "norm of all gradients": norm_table(measured),
        "gate saturation": gate_table(measured),
    }
    tables = {name: table for name, table in tables.items() if table}
    draw_curves(measured, folder / "gradients.png")
    drawn = ["gradients.png"]
    if "gate saturation" in tables:
        draw_gates(measured, folder / "gates.png")
        drawn.append("gates.png")
    document = {
        "title": title,
        "lags": lags,
        "definitions": {name: DEFINITIONS[name] for name in tables},
        "measured": [asdict(each) for each in measured],
        "versions": versions(),
        "command": command,
    }
    write_atomically(folder / "gradients.json", json.dumps(finite(document), indent=2, ensure_ascii=False) + "\n")
    lines = [f"# Gradients of {title}", ""]
    for name, table in tables.items():
        lines += [f"## {name.capitalize()}", "", *markdown_table(table), "", f"{DEFINITIONS[name]}.", ""]
    lines += ["## Command", "", "```", command, "```", "", *(f"![{name}]({name})" for name in drawn)]
    write_atomically(folder / "gradients.md", "\n".join(lines) + "\n")
    for name, table in tables.items():
        print(f"{name}:")
        show(table, as_json=False)
        print()
    print(f"report: {folder / 'gradients.md'}  ({folder / 'gradients.json'})")
    print("plots:  " + ", ".join(str(folder / name) for name in drawn))


def lag_table(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Return the median gradient norm at some lags, a row for each look and layer."""
    longest = max((len(curve.median) for each in measured for curve in each.flow.curves.values()), default=0)
    lags = [lag for lag in SHOWN_LAGS if lag <= longest]
    lags += [longest] * (longest > lags[-1] if lags else False)
    return [
        {
            "cell": each.cell,
            "when": each.when,
            "layer": layer,
            **{f"lag {lag}": f"{curve.median[lag - 1]:.1e}" if lag <= len(curve.median) else "-" for lag in lags},
            "per step": "-" if curve.per_step is None else f"{curve.per_step:.3f}",
        }
        for each in measured
        for layer, curve in each.flow.curves.items()
    ]


def norm_table(measured: Sequence[Measured]) -> list[dict[str, str]]:
    """Return the norm of gradients before and after clipping, a row for each look and group of parameters."""
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
    """Return the use of each gate, a row for each look, layer and gate."""
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


def draw_curves(measured: Sequence[Measured], target: Path) -> None:
    """Draw the gradient norm by lag: a row of panels before and one after training, a column for each layer."""
    places = list(dict.fromkeys(place for each in measured for place in each.flow.curves))
    cells = list(dict.fromkeys(each.cell for each in measured))
    stages = [[each for each in measured if (each.when == INITIAL) is first] for first in (True, False)]
    stages = [stage for stage in stages if stage]
    figure = new_figure(max(4.2, 3.2 * len(places)), 2.9 * len(stages))
    for row, stage in enumerate(stages):
        for column, place in enumerate(places):
            axes: Any = figure.add_subplot(len(stages), len(places), row * len(places) + column + 1)
            for each in stage:
                curve = each.flow.curves.get(place)
                if curve is not None and any(curve.median):
                    lags = range(1, len(curve.median) + 1)
                    colour = f"C{cells.index(each.cell)}"
                    axes.plot(lags, positive(curve.median), color=colour, label=each.cell)
                    axes.fill_between(lags, positive(curve.low), positive(curve.high), color=colour, alpha=0.15)
                    axes.set_yscale("log")
            axes.set_title(f"{place}\n{stage[0].when}", fontsize=8)
            axes.set_xlabel("time lag, steps")
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel("gradient norm")
            if axes.lines:
                axes.legend(fontsize=7)
    save(figure, target)


def positive(values: Sequence[float]) -> list[float]:
    """Return values with NaN for what a logarithmic axis cannot show."""
    return [value if value > 0 else float("nan") for value in values]


def draw_gates(measured: Sequence[Measured], target: Path) -> None:
    """Draw a bar for each gate: the share that is shut, between, and open."""
    bars = [
        (f"{layer}, {each.cell} {each.when}: {gate.gate}", gate)
        for layer in dict.fromkeys(layer for each in measured for layer in each.flow.gates)
        for each in measured
        for gate in each.flow.gates.get(layer, [])
    ]
    figure = new_figure(8.0, 1.0 + 0.24 * len(bars))
    axes: Any = figure.add_subplot()
    places = range(len(bars))
    below, above = ([getattr(gate, name) for _, gate in bars] for name in ("below", "above"))
    between = [1 - low - high for low, high in zip(below, above, strict=True)]
    axes.barh(places, below, color="#3b6fb6", label="below 0.05")
    axes.barh(places, between, left=below, color="#d9d9d9", label="between")
    axes.barh(places, above, left=[1 - high for high in above], color="#c0504d", label="above 0.95")
    axes.set_yticks(places, [name for name, _ in bars], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the activations")
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    save(figure, target)
