"""Plots of `rnnzoo gradients`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rnnzoo.diagnostics.gradient_flow import GradientFlow
from rnnzoo.diagnostics.step_gradients import StepGradients
from rnnzoo.plots import COLOURS, MARKERS, new_figure, save

Row = tuple[str, str, GradientFlow]  # cell, when it was measured, result


def draw_curves(measured: Sequence[Row], target: Path) -> None:
    """Draw the gradient norm by lag on common axes: a row of panels for each time of measuring, a column a layer."""
    layers = list(dict.fromkeys(layer for _, _, flow in measured for layer in flow.curves))
    cells = list(dict.fromkeys(cell for cell, _, _ in measured))
    stages = list(dict.fromkeys(when for _, when, _ in measured))
    figure = new_figure(max(6.0, 3.6 * len(layers)), 3.1 * len(stages) + 0.5)
    grid: Any = figure.subplots(len(stages), len(layers), sharex=True, sharey=True, squeeze=False)
    for row, stage in enumerate(stages):
        for column, layer in enumerate(layers):
            axes = grid[row][column]
            for cell, when, flow in measured:
                if when == stage and layer in flow.curves:
                    draw_curve(axes, cell, cells.index(cell), flow, layer)
            axes.set_title(f"{layer}, {stage}" if len(layers) == 1 else f"{layer}\n{stage}", fontsize=9)
            axes.grid(alpha=0.3)
            if row == len(stages) - 1:
                axes.set_xlabel("time lag k, steps back")
            if column == 0:
                axes.set_ylabel("gradient norm")
            if axes.lines:
                axes.set_yscale("log")
                axes.legend(fontsize=7, loc="lower left")
    figure.suptitle(
        "How far the gradient reaches back: ‖∂L/∂s‖ k steps before the loss\n"
        "line: median over the sequences of one batch; band: 10th to 90th percentile\n"
        "dashed: after clipping by norm, where anything is clipped",
        fontsize=9,
    )
    save(figure, target)


def draw_curve(axes: Any, cell: str, number: int, flow: GradientFlow, layer: str) -> None:
    """Draw the curve of one cell and layer, and the same after clipping where anything is clipped."""
    curve = flow.curves[layer]
    if not any(curve.median):
        return
    lags, colour = range(1, len(curve.median) + 1), COLOURS[number % len(COLOURS)]
    label = cell if curve.per_step is None else f"{cell}: × {curve.per_step:.3f} a step"
    every = max(1, len(lags) // 12)
    style = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "markevery": every}
    axes.plot(lags, positive(curve.median), color=colour, label=label, **style)
    axes.fill_between(lags, positive(curve.low), positive(curve.high), color=colour, alpha=0.15)
    if flow.scale is not None and flow.scale < 1:
        axes.plot(lags, positive([flow.scale * value for value in curve.median]), color=colour, linestyle="--")


def positive(values: Sequence[float]) -> list[float]:
    """Return values with NaN for what a logarithmic axis cannot show."""
    return [value if value > 0 else float("nan") for value in values]


def draw_gates(measured: Sequence[Row], target: Path) -> None:
    """Draw a bar for each gate: the share that is shut, between, and open."""
    bars = [
        (f"{layer}, {cell} {when}: {gate.gate}", gate)
        for layer in dict.fromkeys(layer for _, _, flow in measured for layer in flow.gates)
        for cell, when, flow in measured
        for gate in flow.gates.get(layer, [])
    ]
    figure = new_figure(8.0, 1.0 + 0.24 * len(bars))
    axes: Any = figure.add_subplot()
    rows = range(len(bars))
    below, above = ([getattr(gate, name) for _, gate in bars] for name in ("below", "above"))
    between = [1 - low - high for low, high in zip(below, above, strict=True)]
    axes.barh(rows, below, color=COLOURS[0], label="shut: below 0.05")
    axes.barh(rows, between, left=below, color="#d9d9d9", label="between")
    axes.barh(rows, above, left=[1 - high for high in above], color=COLOURS[1], label="open: above 0.95")
    axes.set_yticks(rows, [name for name, _ in bars], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the activations")
    axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    save(figure, target)


def draw_steps(result: StepGradients, cell: str, target: Path) -> None:
    """Draw the loss of each step, the gradient of each, and the gradient through each use of the weights."""
    count = 3 if result.losses else 1
    figure = new_figure(8.5, 2.3 * count + 0.4)
    panels: Any = figure.subplots(count, 1, sharex=True, squeeze=False)
    panels = [row[0] for row in panels]
    if result.losses:
        steps = range(1, len(result.losses) + 1)
        panels[0].bar(steps, result.losses, color=COLOURS[2])
        panels[0].set_title(f"The loss is a sum over steps: L = L₁ + L₂ + … = {result.loss:.4g}", fontsize=10)
        panels[0].set_ylabel("loss $L_t$")
        panels[1].bar(steps, result.loss_norms, color=COLOURS[1])
        panels[1].set_title(
            "So its gradient is the sum of the gradients of the steps' losses: dL/dW = dL₁/dW + dL₂/dW + …\n"
            f"largest difference {result.loss_difference:.1e}, the largest number being {result.largest:.1e}",
            fontsize=10,
        )
        panels[1].set_ylabel("norm of $dL_t/dW$")
    for number, (layer, norms) in enumerate(result.use_norms.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)], "markersize": 3}
        panels[-1].plot(range(1, len(norms) + 1), norms, label=f"{layer} ({cell})", **style)
    panels[-1].set_title(
        "The same weights act at every step: dL/dW = ∂L/∂W₁ + ∂L/∂W₂ + …  ($W_t$: W as step t uses it)\n"
        f"largest difference {result.use_difference:.1e}, the largest number being {result.largest:.1e}",
        fontsize=10,
    )
    panels[-1].set_ylabel("norm of $∂L/∂W_t$")
    panels[-1].set_xlabel("step t (a backward direction counts from the end)")
    panels[-1].legend(fontsize=8)
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    save(figure, target)
