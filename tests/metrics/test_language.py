"""The loss of running text: one total over counts, whatever the chunks, order and processes."""

from __future__ import annotations

import math

import pytest
import torch

from rnnzoo.metrics.language import LanguageModelLoss

# place, nats, tokens, characters, words, begins
CHUNKS = [(0, 9.0, 3, 7, 1, True), (3, 1.0, 2, 2, 1, False), (5, 4.0, 3, 5, 2, True), (8, 2.0, 1, 6, 1, False)]


def measure(chunks, cuts=(slice(None),)):
    metric = LanguageModelLoss()
    for cut in cuts:
        rows = chunks[cut]
        if rows:
            metric.update(*(torch.tensor(column) for column in zip(*rows, strict=True)))
    return metric, {name: float(value) for name, value in metric.compute().items()}


def test_totals_are_divided_once():
    _, values = measure(CHUNKS)
    assert values["loss"] == pytest.approx(16 / 9)
    assert values["perplexity"] == pytest.approx(math.exp(16 / 9))
    assert values["bits_per_character"] == pytest.approx(16 / 20 / math.log(2))
    assert values["word_perplexity"] == pytest.approx(math.exp(16 / 5))


def test_neither_batches_nor_order_nor_repetition_change_the_values():
    _, whole = measure(CHUNKS)
    assert measure(CHUNKS, (slice(2, 4), slice(0, 1), slice(1, 2)))[1] == pytest.approx(whole)
    assert measure(CHUNKS + CHUNKS[1:3])[1] == pytest.approx(whole)


def test_an_empty_chunk_does_not_hide_the_one_at_its_place():
    empty = (5, 0.0, 0, 0, 0, False)
    assert measure([CHUNKS[0], CHUNKS[1], empty, *CHUNKS[2:]])[1] == measure(CHUNKS)[1]


def test_definitions_name_the_counts_and_lanes():
    metric, values = measure(CHUNKS)
    assert set(metric.definitions) == set(values)
    assert "9 tokens" in metric.definitions["loss"]
    assert "2 lanes" in metric.definitions["loss"]
    assert "20 characters" in metric.definitions["bits_per_character"]
    assert "5 words" in metric.definitions["word_perplexity"]
    assert "in one lane" in measure(CHUNKS[:2])[0].definitions["loss"]


def test_nothing_measured_is_not_a_number():
    assert all(math.isnan(value) for value in measure([(0, 0.0, 0, 0, 0, True)])[1].values())
