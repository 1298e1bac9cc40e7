"""Plots: PNG files with something on them, drawn without a screen and without touching pyplot."""

from __future__ import annotations

import sys

import pytest

from rnnzoo import plots

HEADER = "epoch,step,train/loss,val/loss,val/accuracy,train/gradient_norm,train/clipped"
METRICS = f"{HEADER}\n0,9,,1.5,50.0,,\n0,9,2.0,,,3.0,0.5\n1,19,,1.2,60.0,,\n1,19,1.0,,,2.0,0.25\n"


def size_of_png(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.fixture
def drawn(monkeypatch):
    """Collect the figures that are drawn."""
    figures = []
    original = plots.new_figure

    def collect(*arguments):
        figures.append(original(*arguments))
        return figures[-1]

    monkeypatch.setattr(plots, "new_figure", collect)
    return figures


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS, encoding="utf-8")
    return path


def lines_of(axes):
    return {line.get_label(): [list(map(float, part)) for part in line.get_data()] for line in axes.get_lines()}


def test_learning_curves_show_every_value_at_its_epoch(metrics, tmp_path, drawn):
    target = tmp_path / "curves.png"
    assert plots.learning_curves(metrics, target, "accuracy")
    width, height = size_of_png(target)
    assert width > height > 100
    (figure,) = drawn
    panels = [lines_of(axes) for axes in figure.axes]
    assert panels == [
        {"train/loss": [[0, 1], [2.0, 1.0]], "val/loss": [[0, 1], [1.5, 1.2]]},
        {"val/accuracy": [[0, 1], [50.0, 60.0]]},
        {"train/gradient_norm": [[0, 1], [3.0, 2.0]]},
        {"train/clipped": [[0, 1], [0.5, 0.25]]},
    ]


def test_a_model_selected_by_its_loss_has_no_panel_twice(metrics, tmp_path, drawn):
    assert plots.learning_curves(metrics, tmp_path / "curves.png", "loss")
    labels = [label for axes in drawn[0].axes for label in lines_of(axes)]
    assert len(labels) == len(set(labels))


def test_what_is_minimised_beside_the_loss_has_a_panel_of_its_own(tmp_path, drawn):
    metrics = tmp_path / "metrics.csv"
    header = "epoch,train/loss,val/loss,train/penalty,train/objective"
    metrics.write_text(f"{header}\n0,2.0,,0.5,\n0,,2.5,,\n1,,,,-0.25\n1,,2.25,,\n", encoding="utf-8")
    assert plots.learning_curves(metrics, tmp_path / "curves.png", "loss")
    assert [lines_of(axes) for axes in drawn[0].axes] == [
        {"train/loss": [[0], [2.0]], "val/loss": [[0, 1], [2.5, 2.25]]},
        {"train/penalty": [[0], [0.5]]},
        {"train/objective": [[1], [-0.25]]},
    ]


def test_learning_rates_are_drawn_by_groups_and_within_epochs(tmp_path, drawn):
    metrics = tmp_path / "metrics.csv"
    header = "epoch,step,train/loss,train/learning_rate,train/learning_rate_encoder"
    steps = [(0, 1, 0.5), (0, 3, 1.0), (1, 5, 0.5), (1, 7, 0.25)]
    rows = [f"{epoch},{step},,{rate},{rate / 2}" for epoch, step, rate in steps]
    metrics.write_text("\n".join([header, *rows[:2], "0,3,2.0,,", *rows[2:], "1,7,1.5,,", ""]), encoding="utf-8")
    assert plots.learning_curves(metrics, tmp_path / "curves.png", "loss")
    assert [lines_of(axes) for axes in drawn[0].axes] == [
        {"train/loss": [[0, 1], [2.0, 1.5]]},
        {
            "train/learning_rate": [[-0.5, 0, 0.5, 1], [0.5, 1.0, 0.5, 0.25]],
            "train/learning_rate_encoder": [[-0.5, 0, 0.5, 1], [0.25, 0.5, 0.25, 0.125]],
        },
    ]


def test_a_run_without_values_draws_nothing(tmp_path):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("epoch,step\n", encoding="utf-8")
    assert not plots.learning_curves(metrics, tmp_path / "curves.png", "accuracy")
    assert not (tmp_path / "curves.png").exists()


def test_a_metrics_file_with_losses_alone_is_enough(tmp_path, drawn):
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("epoch,train/loss\n0,1.0\n1,0.5\n", encoding="utf-8")
    assert plots.learning_curves(metrics, tmp_path / "curves.png", "accuracy")
    assert [lines_of(axes) for axes in drawn[0].axes] == [{"train/loss": [[0, 1], [1.0, 0.5]]}]


def test_confusion_matrix_shows_counts_and_shares(tmp_path, drawn):
    target = tmp_path / "matrix.png"
    plots.confusion_matrix([[3, 1], [0, 0]], ["cat", "dog"], target)
    size_of_png(target)
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0.0, 0.0]]  # a class without samples is no error
    assert [(text.get_position(), text.get_text()) for text in axes.texts] == [((0, 0), "3"), ((1, 0), "1")]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "gold")


def test_large_matrices_leave_the_counts_out_and_grow(tmp_path, drawn):
    few, many = 3, plots.LARGEST_WITH_NUMBERS + 1
    for count in (few, many):
        matrix = [[1.0] * count for _ in range(count)]
        plots.confusion_matrix(matrix, [f"label {place}" for place in range(count)], tmp_path / f"{count}.png")
    assert [len(figure.axes[0].texts) for figure in drawn] == [few * few, 0]
    assert size_of_png(tmp_path / f"{many}.png") > size_of_png(tmp_path / f"{few}.png")


def test_pyplot_and_its_global_state_stay_out(metrics, tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.learning_curves(metrics, tmp_path / "curves.png", "accuracy")
    plots.confusion_matrix([[1]], ["one"], tmp_path / "matrix.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
