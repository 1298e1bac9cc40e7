"""The report: every number with its definition, as JSON that any program reads and as Markdown."""

from __future__ import annotations

import json
import math
import re

import pytest

from rnnzoo.report import Report, finite, metric_entries, number, plain

VALUES = {"validation": {"accuracy": 90.0, "loss": 0.25}, "test": {"accuracy": 89.5, "loss": math.nan}}
DEFINITIONS = {"accuracy": "percent of words whose tag is right", "loss": "mean loss per word in nats"}
BY_SPLIT = {"validation": DEFINITIONS, "test": {**DEFINITIONS, "loss": "mean loss per word of 12"}}
BEST = {"test": {"accuracy": 91.25}}


@pytest.fixture
def report():
    return Report(
        title="SequenceTagger on a task",
        model={"class": "SequenceTagger", "cell": "gru", "arguments": {"hidden_size": 64}},
        metrics=metric_entries(VALUES, BY_SPLIT, BEST),
        data={
            "source": "folder",
            "revision": {"train.conllu": "ab12"},
            "split_sizes": {"train": 10, "test": 3},
            "notes": ["no validation split"],
        },
        training={"epochs": 3, "wall_seconds": 1.5, "parameters": 1234, "seed": 7},
        versions={"torch": "2.13.0"},
        command="rnnzoo fit 'my recipe.yaml'",
        samples=[{"input": {"tokens": ["Größe"]}, "answer": {"tags": ["NOUN"]}}],
        plots=["learning_curves.png"],
    )


def refuse_constants(name):
    raise AssertionError(f"{name} is no JSON")


def read_json(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse_constants)


def test_metrics_are_values_with_definitions_split_by_split(report, tmp_path):
    report.write(tmp_path)
    metrics = read_json(tmp_path)["metrics"]
    assert metrics["validation"]["accuracy"] == {"value": 90.0, "definition": DEFINITIONS["accuracy"]}
    assert {name: set(entries) for name, entries in metrics.items()} == {
        "validation": {"accuracy", "loss"},
        "test": {"accuracy", "loss"},
    }


def test_the_best_possible_value_stands_where_it_is_known_and_nowhere_else(report, tmp_path):
    report.write(tmp_path)
    metrics = read_json(tmp_path)["metrics"]
    assert metrics["test"]["accuracy"]["best_possible"] == 91.25
    found = [(split, name) for split in metrics for name in metrics[split] if "best_possible" in metrics[split][name]]
    assert found == [("test", "accuracy")]


def test_a_metric_without_a_definition_is_an_error():
    with pytest.raises(KeyError, match="loss"):
        metric_entries({"test": {"loss": 1.0}}, {"test": {}}, {})


def test_json_holds_everything_and_is_strict(report, tmp_path):
    report.write(tmp_path)
    found = read_json(tmp_path)
    assert found["metrics"]["test"]["loss"]["value"] is None  # NaN is no JSON
    assert found["data"]["revision"] == {"train.conllu": "ab12"}
    assert found["model"]["cell"] == "gru"
    assert found["training"]["seed"] == 7
    assert found["command"] == report.command
    assert found["versions"] == {"torch": "2.13.0"}
    assert found["samples"][0]["input"] == {"tokens": ["Größe"]}
    assert "Größe" in (tmp_path / "report.json").read_text(encoding="utf-8")


def test_markdown_shows_every_number_with_its_definition(report):
    text = report.markdown()
    assert text.startswith("# SequenceTagger on a task\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert ["accuracy", "89.5", "91.25", DEFINITIONS["accuracy"]] in rows
    assert ["accuracy", "90", "", DEFINITIONS["accuracy"]] in rows
    assert ["loss", "nan", "", "mean loss per word of 12"] in rows
    assert ["loss", "0.25", "", DEFINITIONS["loss"]] in rows


TEXTS = [
    "sacreBLEU signature nrefs:1|case:mixed|tok:13a",
    "two\nlines",
    "a\r\nb | c",
    "|",
    "line\u2028separator",
    "| --- |",
]


@pytest.mark.parametrize("text", TEXTS)
def test_no_text_breaks_a_table_or_a_line(report, text):
    """Cells are read as GitHub reads them: a bar ends one unless a backslash is before it."""
    report.metrics = {"test": {text: {"value": 1.0, "definition": text}}}
    report.data = {"source": text, "notes": [text]}
    lines = report.markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    shown = " ".join(text.splitlines())
    assert len(rows) == 3
    assert [cell.replace("\\|", "|") for cell in rows[2]] == [shown, "1", "", shown]
    assert f"- source: {shown}" in lines
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == ["## test", "## Model", "## Data", "## Training", "## Versions", "## Command", "## Samples"]


@pytest.mark.parametrize(
    "line",
    [
        "## validation",
        "## test",
        "- cell: gru",
        "- source: folder",
        "- seed: 7",
        "- wall_seconds: 1.5",
        "- torch: 2.13.0",
        '- revision: {"train.conllu": "ab12"}',
        '- notes: ["no validation split"]',
        "rnnzoo fit 'my recipe.yaml'",
        "![learning_curves.png](learning_curves.png)",
    ],
)
def test_markdown_has_the_line(report, line):
    assert line in report.markdown().splitlines()


def test_sections_without_content_are_left_out(report):
    report.samples, report.plots = [], []
    assert "## Samples" not in report.markdown()
    assert "![" not in report.markdown()


def test_nothing_but_the_two_files_is_left_behind(report, tmp_path):
    report.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_finite_replaces_numbers_that_json_cannot_hold_all_the_way_down():
    assert finite({1: [math.inf, (1.0, math.nan)], "b": "text"}) == {"1": [None, [1.0, None]], "b": "text"}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (100.0, "100"), (-2.5, "-2.5"), (0.12345, "0.1235"), (math.inf, "inf")]
)
def test_numbers_are_short(value, shown):
    assert number(value) == shown


def test_plain_values_are_text_or_json():
    assert [plain(value) for value in ("text", 2.50, [1], {"a": math.nan}, None)] == [
        "text", "2.5", "[1]", '{"a": null}', "null",
    ]  # fmt: skip
