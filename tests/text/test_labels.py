"""Names of classes and their numbers."""

import random

import pytest

from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.text.labels import LabelMap


def test_labels_keep_the_order_given():
    labels = LabelMap(["z", "a", "m"])
    assert list(labels) == labels.labels == ["z", "a", "m"]
    assert len(labels) == 3
    assert [labels.id(label) for label in labels] == [0, 1, 2]


def test_labels_that_training_never_saw():
    labels = LabelMap(["a"])
    assert labels.id("b") == labels.id("A") == UNSEEN
    assert labels.id("") == IGNORED
    assert LabelMap([]).id("a") == UNSEEN
    assert len(LabelMap([])) == 0


def test_labels_are_learnt_sorted_and_once():
    assert LabelMap.learn(iter(["pos", "neg", "pos", "neutral"])).labels == ["neg", "neutral", "pos"]


def test_numbers_are_sorted_by_value_and_come_before_names():
    found = LabelMap.learn(["10", "9", "x", "-1", "2.5", "1e1", "Y"])
    assert found.labels == ["-1", "2.5", "9", "10", "1e1", "Y", "x"]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_learnt_does_not_depend_on_the_order_seen(seed):
    names = [*map(str, range(20)), *"abcxyz", "1.0", "01", "inf", "-inf", "é", ""]
    shuffled = random.Random(seed).sample(names, len(names))
    assert LabelMap.learn(shuffled).labels == LabelMap.learn(names).labels


def test_the_name_nan_is_a_name_and_breaks_no_order():
    # float("nan") compares with nothing, so as a sort key it would leave the order to the hash of the strings.
    for size in range(2, 30):
        numbers = list(map(str, range(size)))
        assert LabelMap.learn(["nan", *numbers, "b"]).labels == [*numbers, "b", "nan"]
