"""Drawn scenes: what the captions say is what is in the picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rnnzoo.data import CaptionData
from rnnzoo.data.synthetic_scenes import COLOURS, RELATIONS, SHAPES, SIZE, Scenes, Thing, captions, mask

SAMPLES = Scenes(sizes={"train": 300}).sample("train")


def parse(caption):
    """Return what stands left or above, the relation, and the other, from the first way to say it."""
    for relation in RELATIONS:
        first, found, second = caption.partition(f" {relation} ")
        if found:
            return Thing(*first.split()[1:]), relation, Thing(*second.split()[1:])
    raise AssertionError(caption)


def places(sample, colour):
    """Return where the pixels of a colour are, as rows and columns."""
    pixels = np.asarray(Image.open(io.BytesIO(sample["image"]))).astype(float)
    distances = np.stack([np.linalg.norm(pixels - np.array(value), axis=2) for value in COLOURS.values()])
    near = (distances.argmin(0) == list(COLOURS).index(colour)) & (distances.min(0) < 70)
    return np.nonzero(near)


def test_what_stands_left_or_above_is_what_the_caption_says():
    checked = 0
    for sample in SAMPLES:
        first, relation, second = parse(sample["captions"][0])
        if first.colour == second.colour:
            continue
        axis = 1 if relation == "left of" else 0
        here, there = places(sample, first.colour), places(sample, second.colour)
        assert here[axis].max() < there[axis].min()
        other = abs(here[1 - axis].mean() - there[1 - axis].mean())
        assert other < there[axis].mean() - here[axis].mean()
        checked += 1
    assert checked > 200


def test_shapes_are_whole_and_differ():
    for sample in SAMPLES:
        first, _, second = parse(sample["captions"][0])
        if first.colour != second.colour:
            for thing in (first, second):
                rows, columns = places(sample, thing.colour)
                assert min(rows.min(), columns.min()) >= 0
                assert max(rows.max(), columns.max()) < SIZE
                assert len(rows) > 20
    assert len({mask(shape, 16, 16, 5).tobytes() for shape in SHAPES}) == 3
    boxes = [mask(shape, 16, 16, 5).any(axis).sum() for shape in ("circle", "square") for axis in (0, 1)]
    assert boxes == [11, 11, 9, 9]


def test_all_four_captions_say_the_same():
    assert captions(Thing("red", "circle"), "left of", Thing("blue", "square")) == [
        "a red circle left of a blue square",
        "a blue square right of a red circle",
        "there is a red circle left of a blue square",
        "a red circle stands left of a blue square",
    ]
    for sample in SAMPLES:
        assert sample["captions"] == captions(*parse(sample["captions"][0]))
        assert len(set(sample["captions"])) == 4


def test_everything_is_seen():
    seen = [parse(sample["captions"][0]) for sample in SAMPLES]
    assert {relation for _, relation, _ in seen} == set(RELATIONS)
    for side in (0, 2):
        assert {tuple(each[side]) for each in seen} == {(colour, shape) for colour in COLOURS for shape in SHAPES}
    assert all(first != second for first, _, second in seen)


def test_a_model_that_writes_a_reference_has_the_best_scores():
    best = Scenes().best(SAMPLES)
    exact = np.mean([sample["captions"][1] in sample["captions"] for sample in SAMPLES])
    assert best["exact_match"] == 100 * exact


def test_scenes_are_captioned_data(monkeypatch):
    monkeypatch.setattr(Scenes, "default_sizes", {"train": 300, "validation": 8, "test": 9})
    data = CaptionData(synthetic="scenes", limit=8, batch_size=8)
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (8, 3, SIZE, SIZE)
    assert batch.captions.shape[0] == 32
    words = {word for thing in (*SHAPES, *COLOURS) for word in [thing]} | {"a", "left", "right", "of", "above", "below"}
    full = CaptionData(synthetic="scenes").processor.tokenizer
    assert set(full.vocabulary[2:]) == words | {"there", "is", "stands"}
    assert data.best_scores["test"] == pytest.approx({"exact_match": 100.0, "bleu4": 100.0})
