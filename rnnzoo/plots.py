"""Plots of a run as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnzoo.documents import read_metrics
from rnnzoo.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES_PER_ROW = 6
MOST_MARKED = 100  # points of a curve up to which each is marked
DARKEST = 0.15  # how bright a place is that the decoder did not look at
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito: for all eyes
MARKERS = "os^Dv*X"
LARGEST_WITH_NUMBERS = 20  # classes up to which the cells of a confusion matrix carry their counts


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that needs no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, target: Path) -> None:
    """Write a figure as a PNG file."""
    with atomic_file(target) as file:
        figure.savefig(file, format="png", dpi=120)


def learning_curves(metrics: Path, target: Path, selection: str) -> bool:
    """Draw losses and the selection metric over epochs.

    Args:
        metrics: the ``metrics.csv`` of the run.
        target: the PNG file.
        selection: name of the validation metric that picked the best checkpoint.

    Returns:
        Whether there was anything to draw.
    """
    rows = [row for row in read_metrics(metrics) if row.get("epoch")]
    trained = [float(row["epoch"]) for row in rows if row.get("train/loss") or row.get("train/objective")]
    rows = [row for row in rows if float(row["epoch"]) <= max(trained, default=0)]  # no final test
    panels = [["train/loss", "val/loss"], [f"val/{selection}"], ["train/penalty"], ["train/objective"]]
    rates = [name for name in dict.fromkeys(chain(*rows)) if str(name).startswith("train/learning_rate")]
    panels += [["train/gradient_norm"], ["train/clipped"], rates]
    panels = [panel for panel in panels if any(row.get(name) for name in panel for row in rows)]
    panels = [panel for place, panel in enumerate(panels) if place == 0 or panel[0] not in panels[0]]
    if not panels:
        return False
    figure = new_figure(3.6 * len(panels), 3.2)
    for place, panel in enumerate(panels):
        axes: Any = figure.add_subplot(1, len(panels), place + 1)
        for name in panel:
            points = curve_points(rows, name)
            if points:
                marker = "o" if len(points) <= MOST_MARKED else ""
                axes.plot(*zip(*points, strict=True), marker=marker, markersize=3, label=name)
        axes.set_xlabel("epoch")
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    save(figure, target)
    return True


def curve_points(rows: Sequence[Mapping[str, str]], name: str) -> list[tuple[float, float]]:
    """Return the points (epoch, value) of a column of ``metrics.csv``.

    A value of a whole epoch is at the number of that epoch. Where an epoch has several, each is at the share of the
    steps that were done: the last step of epoch 3 is at 3.
    """
    found = [row for row in rows if row.get(name)]
    epochs = [float(row["epoch"]) for row in found]
    if len(set(epochs)) < len(epochs):
        steps_of_epoch = max((float(row["step"]) + 1) / (float(row["epoch"]) + 1) for row in rows if row.get("step"))
        epochs = [(float(row["step"]) + 1) / steps_of_epoch - 1 for row in found]
    return [(epoch, float(row[name])) for epoch, row in zip(epochs, found, strict=True)]


def confusion_matrix(matrix: Sequence[Sequence[float]], labels: Sequence[str], target: Path) -> None:
    """Draw a confusion matrix: gold labels down, predicted ones across; colour is the share of the gold label.

    Args:
        matrix: counts [C gold, C predicted].
        labels: names of the C classes.
        target: the PNG file.
    """
    size = max(3.5, 0.45 * len(labels) + 1.5)
    figure = new_figure(size + 0.8, size)
    axes: Any = figure.add_subplot()
    shares = [[count / max(1.0, sum(row)) for count in row] for row in matrix]
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    places = range(len(labels))
    font = 8 if len(labels) <= LARGEST_WITH_NUMBERS else 5
    axes.set_xticks(places, labels, rotation=90, fontsize=font)
    axes.set_yticks(places, labels, fontsize=font)
    axes.set_xlabel("predicted")
    axes.set_ylabel("gold")
    if len(labels) <= LARGEST_WITH_NUMBERS:
        for row in places:
            for column in places:
                if matrix[row][column]:
                    colour = "white" if shares[row][column] > 0.5 else "black"
                    text = f"{matrix[row][column]:.0f}"
                    axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(image, fraction=0.046, label="share of the gold label")
    save(figure, target)


def attention_matrix(
    weights: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], target: Path
) -> None:
    """Draw attention weights: a row for each token written, a column for each token read; dark is much.

    Args:
        weights: [T, S], each row summing to one.
        rows: T tokens written.
        columns: S tokens read.
        target: the PNG file.
    """
    figure = new_figure(1.8 + 0.28 * len(columns), 1.4 + 0.28 * len(rows))
    axes: Any = figure.add_subplot()
    image = axes.imshow([row[: len(columns)] for row in weights], vmin=0, vmax=1, cmap="Greys", aspect="auto")
    axes.set_xticks(range(len(columns)), [visible(column) for column in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), [visible(row) for row in rows], fontsize=8)
    axes.set_xlabel("read")
    axes.set_ylabel("written")
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    figure.colorbar(image, fraction=0.046, label="attention")
    save(figure, target)


def attention_over_image(
    image: Any, words: Sequence[str], weights: Sequence[Sequence[float]], grid: tuple[int, int], target: Path
) -> None:
    """Draw an image once as it is, and once for each word, bright where the decoder looked when it wrote the word.

    Args:
        image: [Y, X, 3] of 0 … 255.
        words: T words.
        weights: [T, L], the weights of the places of the grid row by row; each row is scaled to its own largest.
        grid: rows and columns of the grid.
        target: the PNG file.
    """
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image, dtype=np.float32)
    height, width = pixels.shape[:2]
    columns = min(IMAGES_PER_ROW, len(words) + 1)
    rows = -(-(len(words) + 1) // columns)
    figure = new_figure(1.7 * columns, 1.95 * rows)
    for place, word in enumerate(["", *words]):
        axes: Any = figure.add_subplot(rows, columns, place + 1)
        shown = pixels
        if place > 0:
            map_ = np.asarray(weights[place - 1], dtype=np.float32).reshape(grid)
            map_ = map_ / max(float(map_.max()), 1e-9)
            smooth = Image.fromarray(map_).resize((width, height), Image.Resampling.BILINEAR)
            light = np.asarray(smooth, dtype=np.float32)[..., None]  # [Y, X, 1]
            shown = pixels * (DARKEST + (1 - DARKEST) * light)
        axes.imshow(shown.clip(0, 255).astype(np.uint8))
        largest = f" {max(weights[place - 1]):.2f}" if place > 0 else ""
        axes.set_title(f"{word}{largest}", fontsize=9)
        axes.set_axis_off()
    save(figure, target)


def visible(token: str) -> str:
    """Return a token whose blanks can be seen.

    >>> visible(" the")
    '␣the'
    """
    return token.replace(" ", "␣").replace("\n", "⏎")


def comparison(summaries: Sequence[Any], metric: str, target: Path, key: str | None = None) -> None:
    """Draw the metric of each variant and what it costs, with deviations over seeds.

    Args:
        summaries: `rnnzoo.comparison.Summary` of each variant.
        metric: the name of the metric.
        target: the PNG file.
        key: the key that is varied, if its values are numbers and `summaries` are in their order: metric, time, memory
            and gradient norm are then drawn over it. Otherwise the metric is drawn over speed, parameters and memory.
    """
    if key is None:
        compare_costs(summaries, metric, target)
        return
    split = drawn_split(summaries)
    panels = {
        f"{split} {metric}": [summary.metrics.get(split) for summary in summaries],
        "seconds of a run": [summary.seconds for summary in summaries],
        "peak memory, MiB": [summary.memory for summary in summaries],
        "largest gradient norm": [summary.gradient_norm for summary in summaries],
    }
    panels = {label: spreads for label, spreads in panels.items() if any(spreads)}
    figure = new_figure(3.1 * len(panels), 3.2)
    for index, (label, spreads) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(1, len(panels), index + 1)
        points = [(x, spread.mean, spread.deviation or 0.0) for x, spread in enumerate(spreads) if spread is not None]
        positions, means, deviations = zip(*points, strict=True)
        axes.errorbar(positions, means, yerr=deviations, color=COLOURS[index], marker="o", capsize=3)
        axes.set_xticks(range(len(summaries)), [summary.settings[key] for summary in summaries])
        axes.set_xlabel(key)
        axes.set_title(label, fontsize=10)
        axes.margins(0.15)
        axes.grid(alpha=0.3)
        if min(means) > 0 and max(means) > 20 * min(means):
            axes.set_yscale("log")
        elif index > 0:  # what a variant costs: small differences must look small
            axes.set_ylim(0, 1.15 * max(mean + deviation for _, mean, deviation in points) or 1.0)
    save(figure, target)


def compare_costs(summaries: Sequence[Any], metric: str, target: Path) -> None:
    """Draw the metric of each variant over speed, parameters and memory; see `comparison`."""
    split = drawn_split(summaries)
    panels = {"speed": "items per second while training", "parameters": "parameters", "memory": "peak memory, MiB"}
    figure = new_figure(3.9 * len(panels), 3.6)
    for index, (name, label) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(1, len(panels), index + 1)
        for number, summary in enumerate(summaries):
            found, value = summary.metrics.get(split), getattr(summary, name)
            if found is None or value is None:
                continue
            mean, deviation = (value.mean, value.deviation) if hasattr(value, "mean") else (value, None)
            colour = COLOURS[number % len(COLOURS)]
            axes.errorbar(mean, found.mean, xerr=deviation, yerr=found.deviation, color=colour, marker="o", capsize=3)
            axes.annotate(summary.label, (mean, found.mean), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(label)
        axes.margins(0.18)
        axes.grid(alpha=0.3)
        if index == 0:
            axes.set_ylabel(f"{split} {metric}")
    save(figure, target)


def drawn_split(summaries: Sequence[Any]) -> str:
    """Return the split whose metric is drawn."""
    return "test" if any("test" in summary.metrics for summary in summaries) else "validation"


def compared_curves(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], metric: str, target: Path
) -> bool:
    """Draw the learning curves of several variants: loss, selection metric and gradient norm over epochs.

    Args:
        curves: variant → name in ``metrics.csv`` → points (epoch, value).
        metric: name of the selection metric.
        target: the PNG file.

    Returns:
        Whether there was anything to draw.
    """
    panels = {
        "training loss": "train/loss",
        "validation loss": "val/loss",
        f"validation {metric}": f"val/{metric}",
        "largest gradient norm, before clipping": "train/largest_gradient_norm",
    }
    panels = {title: name for title, name in panels.items() if any(name in curve for curve in curves.values())}
    if not panels:
        return False
    figure = new_figure(3.6 * len(panels), 3.4)
    for index, (title, name) in enumerate(panels.items()):
        axes: Any = figure.add_subplot(1, len(panels), index + 1)
        for number, (label, curve) in enumerate(curves.items()):
            points = curve.get(name, [])
            if points:
                style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
                axes.plot(*zip(*points, strict=True), markersize=3.5, label=label, **style)
        values = [value for curve in curves.values() for _, value in curve.get(name, []) if value > 0]
        if values and max(values) > 20 * min(values):
            axes.set_yscale("log")
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if index == 0:
            axes.legend(fontsize=8)
    save(figure, target)
    return True


def gate_maps(values: Mapping[str, Any], tokens: Sequence[str], title: str, target: Path) -> None:
    """Draw what each gate does over a text: a panel for each gate, a row for each unit, a column for each token.

    Args:
        values: gate → [H, T] activations; what can be below 0 has a scale from -1 to 1.
        tokens: T tokens.
        title: of the figure.
        target: the PNG file.
    """
    units = len(next(iter(values.values())))
    figure = new_figure(max(6.0, 1.8 + 0.19 * len(tokens)), 0.9 + len(values) * max(1.3, 0.045 * units))
    panels: Any = figure.subplots(len(values), 1, sharex=True, squeeze=False)
    for index, (name, activations) in enumerate(values.items()):
        axes, signed = panels[index][0], activations.min() < 0
        scale = {"vmin": -1, "vmax": 1, "cmap": "PuOr"} if signed else {"vmin": 0, "vmax": 1, "cmap": "cividis"}
        image = axes.imshow(activations, aspect="auto", interpolation="nearest", **scale)
        axes.set_ylabel(f"{name}\nunits", fontsize=10)
        axes.set_yticks([])
        bar = figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, ticks=[-1, 0, 1] if signed else [0, 0.5, 1])
        if not signed:
            bar.ax.set_yticklabels(["0 shut", "0.5", "1 open"])
    panels[-1][0].set_xticks(range(len(tokens)), [visible(token) for token in tokens], fontsize=9)
    if max(map(len, tokens)) > 1:
        panels[-1][0].tick_params(axis="x", rotation=90)
    panels[-1][0].set_xlabel("token that is read")
    figure.suptitle(title, fontsize=10)
    save(figure, target)


def token_probabilities(
    probabilities: Any, tokens: Sequence[str], chosen: Sequence[int], title: str, target: Path
) -> None:
    """Draw the distribution of the next token at each step of sampling, with the token that was chosen.

    Args:
        probabilities: [T, V] at each of T steps.
        tokens: V tokens.
        chosen: T indices of what was chosen.
        title: of the figure.
        target: the PNG file.
    """
    figure = new_figure(max(6.0, 2.2 + 0.22 * len(chosen)), max(3.2, 1.5 + 0.19 * len(tokens)))
    axes: Any = figure.add_subplot()
    image = axes.imshow(probabilities.T, vmin=0, vmax=1, cmap="Blues", aspect="auto", interpolation="nearest")
    axes.scatter(range(len(chosen)), chosen, s=26, facecolors="none", edgecolors=COLOURS[1], linewidths=1.4)
    axes.set_yticks(range(len(tokens)), [visible(token) for token in tokens], fontsize=8)
    names = [visible(tokens[index]) for index in chosen]
    axes.set_xticks(range(len(chosen)), names, fontsize=8, rotation=90 if max(map(len, names)) > 1 else 0)
    axes.set_xlabel("chosen token, step by step")
    axes.set_ylabel("possible next token")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, fraction=0.03, pad=0.01, label="probability (softmax)")
    save(figure, target)
