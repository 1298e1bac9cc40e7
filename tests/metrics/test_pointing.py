"""Pointing: words count once, whatever batches they come in, and only what is written and attended to is a hit."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.data import CaptionData
from rnnzoo.data.synthetic_scenes import Scenes
from rnnzoo.errors import InputError
from rnnzoo.metrics import Pointing
from rnnzoo.models import Captioner
from rnnzoo.processors.base import load_processor

UPPER_LEFT, LOWER_RIGHT = [0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9]
WORDS = ["a", "red", "circle"]


def on(*cells):
    """Return weights [T, 4] whose largest is at a cell of a 2 × 2 grid for each word."""
    return torch.full((len(cells), 4), 0.1).scatter(1, torch.tensor(cells)[:, None], 0.7)


def measure(words, weights, grounding, grid=(2, 2), reference=WORDS):
    metric = Pointing(grid=grid)
    metric.update(torch.tensor([3]), [words], [weights], [reference], [grounding])
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(
    ("words", "cells", "expected"),
    [
        (WORDS, (3, 0, 0), 100),  # the article names nothing
        (WORDS, (0, 0, 3), 50),
        (WORDS, (0, 1, 2), 0),  # 1 is the upper right, 2 the lower left
        (["a", "red", "square"], (0, 0, 0), 50),  # a wrong word is no hit
        (["red", "circle"], (0, 0), 0),  # nor is a word elsewhere
        (["a", "red"], (0, 0), 50),  # nor one that is not written
        ([*WORDS, "left"], (0, 0, 0, 0), 100),
    ],
)
def test_a_hit_is_a_right_word_with_its_largest_weight_in_the_box(words, cells, expected):
    assert measure(words, on(*cells), [[], UPPER_LEFT, UPPER_LEFT]) == {"pointing": expected}


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        ([0.6, 0.1, 0.9, 0.4], {1}),  # cells go row by row
        ([0.0, 0.0, 0.5, 0.5], {0}),  # cells that touch it do not overlap it
        ([0.0, 0.0, 0.51, 0.5], {0, 1}),
        ([0.4, 0.6, 0.6, 0.9], {2, 3}),
        ([0.4, 0.4, 0.6, 0.6], {0, 1, 2, 3}),
    ],
)
def test_cells_that_overlap_the_box_are_hits(box, cells):
    assert {cell for cell in range(4) if measure(WORDS, on(cell, cell, cell), [[], box, []])["pointing"]} == cells


def test_rows_and_columns_of_a_grid_are_not_mixed_up():
    weights = torch.zeros(1, 8)  # 2 rows of 4
    weights[0, 6] = 1.0  # second row, third column: x from 0.5 to 0.75, y from 0.5 to 1
    assert measure(["red"], weights, [[0.6, 0.7, 0.65, 0.8]], (2, 4), ["red"])["pointing"] == 100
    assert measure(["red"], weights, [[0.8, 0.6, 0.9, 0.7]], (2, 4), ["red"])["pointing"] == 0


def test_regions_are_hit_by_their_index():
    assert measure(WORDS, on(0, 2, 1), [[], [2.0], [2.0]], grid=None) == {"pointing": 50.0}


def test_without_named_words_there_is_no_value():
    assert measure(WORDS, on(0, 0, 0), [[], [], []]) == {}


def test_each_sample_counts_once():
    metric = Pointing(grid=(2, 2))
    for cells in ((0, 0, 0), (0, 0, 0)):
        metric.update(torch.tensor([5]), [WORDS], [on(*cells)], [WORDS], [[[], UPPER_LEFT, LOWER_RIGHT]])
    metric.update(torch.tensor([6]), [WORDS], [on(0, 3, 3)], [WORDS], [[[], LOWER_RIGHT, LOWER_RIGHT]])
    assert float(metric.compute()["pointing"]) == 75
    assert metric.latest_sums.tolist() == [3, 4]


# In the captioner


@pytest.fixture
def data(monkeypatch):
    monkeypatch.setattr(Scenes, "default_sizes", {"train": 40, "validation": 4, "test": 5})
    return CaptionData(synthetic="scenes", batch_size=5)


@pytest.mark.parametrize("attention", ["none", "soft", "hard", "top_down"])
def test_a_captioner_that_attends_measures_it_where_the_data_say_what_words_name(data, attention):
    torch.manual_seed(0)
    model = Captioner(processor=data.processor, hidden_size=8, attention=attention, image={"channels": [8, 8]}).eval()
    assert ("pointing" in model.split_metrics("test")) == (attention != "none")
    (batch,) = data.test_dataloader()
    with torch.inference_mode():
        model.update_metrics(model.split_metrics("test"), model(batch), batch)
    if attention != "none":
        metric = model.split_metrics("test")["pointing"]
        assert set(metric.compute()) == {"pointing"}
        assert metric.latest_sums[1] == 5 * 4  # words for colours and shapes
        assert "overlaps the bounding box" in model.definitions()["pointing"]


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # nothing is added, which is the point
def test_a_captioner_that_was_grounded_is_measured_on_data_without_it(data):
    model = Captioner(processor=data.processor, hidden_size=8, image={"channels": [8, 8]}).eval()
    (batch,) = data.test_dataloader()
    with torch.inference_mode():
        model.update_metrics(model.split_metrics("test"), model(batch), batch._replace(grounding=None))
    assert model.split_metrics("test")["pointing"].compute() == {}


def test_grounding_needs_a_token_for_each_word(data):
    sample = {**data.raw("test")[0], "captions": ["a red circle left of a green"]}
    with pytest.raises(InputError, match="grounding: expected an entry for each of the 7 tokens"):
        data.processor.encode(sample)


def test_a_stored_processor_of_before_knows_no_grounding(data):
    values = data.processor.to_json()
    assert load_processor(values).grounded
    del values["grounded"]
    assert not load_processor(values).grounded
