"""Drawn scenes: the caption is a function of the image, or of the regions, and the grounding is where things are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rnnzoo.data import CaptionData
from rnnzoo.data.synthetic_scenes import (
    COLOURS,
    NOISE,
    RELATIONS,
    SHAPES,
    SIZE,
    Scene,
    SceneRegions,
    Scenes,
    Thing,
    draw_scene,
    mask,
    shape_of,
)

IMAGES = Scenes(sizes={"train": 600}).sample("train")
REGIONS = SceneRegions(sizes={"train": 600}).sample("train")
TASKS = {"image": (Scenes, IMAGES), "regions": (SceneRegions, REGIONS)}
SCENES = [draw_scene(np.random.default_rng(seed)) for seed in range(400)]


def parse(caption):
    """Return the first thing, the relation, and the other."""
    for relation in RELATIONS:
        first, separator, second = caption.partition(f" {relation} ")
        if separator:
            return Thing(*first.split()[1:]), relation, Thing(*second.split()[1:])
    raise AssertionError(caption)


# The caption is a function of the input


@pytest.mark.parametrize("kind", list(TASKS))
def test_the_caption_follows_from_the_input_by_rules_in_every_sample(kind):
    task, samples = TASKS[kind][0](), TASKS[kind][1]
    read = [task.read({kind: sample[kind]}) for sample in samples]  # nothing but the input is given
    assert read == [sample["captions"][0] for sample in samples]
    assert task.best(samples) == {"exact_match": 100.0, "bleu4": 100.0}


@pytest.mark.parametrize("kind", list(TASKS))
def test_the_best_score_is_measured_and_not_claimed(kind):
    task, samples = TASKS[kind][0](), TASKS[kind][1][:4]
    wrong = [{**samples[0], "captions": ["a red circle"]}, *samples[1:]]
    assert task.best(wrong) == {"exact_match": 75.0}


def test_no_noise_turns_a_colour_into_another():
    means = np.array([(128, 128, 128), *COLOURS.values()])
    distances = abs(means[:, None] - means).max(-1) + 1000 * np.eye(len(means))
    assert distances.min() > 2 * NOISE
    assert means.min() >= 0
    assert means.max() + NOISE <= 260  # a clipped pixel is no further from its colour than NOISE


def test_one_thing_is_clearly_left_of_or_above_the_other():
    for scene in SCENES:
        (x, y), (other_x, other_y) = scene.centres
        along, across = (other_x - x, other_y - y) if scene.relation == "left of" else (other_y - y, other_x - x)
        assert along > 10
        assert abs(across) <= 4
        first, second = scene.masks()
        assert not (first & second).any()
        axis = 0 if scene.relation == "left of" else 1
        first_end, second_start = np.nonzero(first.any(axis))[0].max(), np.nonzero(second.any(axis))[0].min()
        assert second_start - first_end > 1  # background between them


def test_shapes_are_whole_and_differ():
    for scene in SCENES:
        for thing, pixels in zip(scene.things, scene.masks(), strict=True):
            assert pixels[1:-1, 1:-1].sum() == pixels.sum()  # nothing is cut off by the border
            assert shape_of(pixels) == thing.shape
    assert len({mask(shape, 16, 16, 5).tobytes() for shape in SHAPES}) == 3


@pytest.mark.parametrize("samples", [IMAGES, REGIONS], ids=list(TASKS))
def test_everything_occurs_and_both_things_differ(samples):
    seen = [parse(sample["captions"][0]) for sample in samples]
    assert {relation for _, relation, _ in seen} == set(RELATIONS)
    for side in (0, 2):
        assert {tuple(parts[side]) for parts in seen} == {(colour, shape) for colour in COLOURS for shape in SHAPES}
    assert all(first != second for first, _, second in seen)


# What words name


def test_words_for_colour_and_shape_name_a_thing_and_no_others_do():
    for relation in RELATIONS:
        scene = Scene((Thing("red", "circle"), Thing("blue", "square")), relation, ((8, 16), (24, 16)), (5, 5))
        words = scene.caption.split()
        named = dict(zip(range(len(words)), scene.grounding([[1.0], [2.0]]), strict=True))
        assert {words[index]: target for index, target in named.items() if target} == {
            "red": [1.0], "circle": [1.0], "blue": [2.0], "square": [2.0],
        }  # fmt: skip


def test_boxes_of_images_are_around_the_pixels_of_the_colour_that_is_named():
    for sample in IMAGES:
        pixels = np.asarray(Image.open(io.BytesIO(sample["image"]))).astype(int)
        for word, box in zip(sample["captions"][0].split(), sample["grounding"], strict=True):
            if word in COLOURS:
                left, top, right, bottom = (np.array(box) * SIZE).astype(int)
                inside = abs(pixels[top:bottom, left:right] - COLOURS[word]).max(-1) <= NOISE
                assert all(inside[side].any() for side in (0, -1, (slice(None), 0), (slice(None), -1)))
                assert inside.mean() > 0.4


def test_regions_are_a_shuffled_set_with_both_things_and_background():
    positions = set()
    counts = set()
    task = SceneRegions()
    for sample in REGIONS:
        regions = np.array(sample["regions"])
        counts.add(len(regions))
        assert regions.shape[1] == 28
        boxes = regions[:, -4:]
        assert (abs(boxes) <= 1).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        for word, target in zip(sample["captions"][0].split(), sample["grounding"], strict=True):
            if word in SHAPES:
                positions.add(target[0])
                others = [thing for thing, kind in enumerate(task.things) if kind.shape == word]
                distances = np.linalg.norm(task.appearances - regions[int(target[0]), :24], axis=1)
                assert distances.argmin() in others
    assert counts == {3, 4, 5, 6}
    assert positions == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}


# As data


def test_scenes_are_captioned_images(monkeypatch):
    monkeypatch.setattr(Scenes, "default_sizes", {"train": 300, "validation": 8, "test": 9})
    data = CaptionData(synthetic="scenes", limit=8, batch_size=8)
    (batch,) = data.train_dataloader()
    assert batch.images.shape == (8, 3, SIZE, SIZE)
    assert batch.captions.shape[0] == 8
    full = CaptionData(synthetic="scenes").processor.tokenizer
    assert set(full.vocabulary[2:]) == {*SHAPES, *COLOURS, "a", "left", "of", "above"}
    assert data.best_scores["test"] == pytest.approx({"exact_match": 100.0, "bleu4": 100.0})


def test_regions_are_padded_and_grounded(monkeypatch):
    monkeypatch.setattr(SceneRegions, "default_sizes", {"train": 30, "validation": 8, "test": 9})
    data = CaptionData(synthetic="scenes_regions", batch_size=9)
    (batch,) = data.test_dataloader()
    assert batch.images is None
    assert batch.regions.shape == (9, batch.region_counts.max(), 28)
    assert len(batch.grounding) == 9
    for row, count in enumerate(batch.region_counts.tolist()):
        assert (batch.regions[row, count:] == 0).all()
        assert all(target[0] < count for target in batch.grounding[row] if target)
