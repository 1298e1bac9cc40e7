"""Synthetic tasks: samples are reproducible, and the best score is that of the posterior, checked by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rnnzoo.data.frames import FrameData
from rnnzoo.data.synthetic import (
    SPLITS,
    SYNTHETIC,
    Adding,
    Gaussians,
    HiddenMarkov,
    TopicChains,
    normalise_logs,
    posterior_scores,
    state_posterior,
)
from rnnzoo.errors import InputError

SMALL = {"train": 30, "validation": 20, "test": 25}
PREDICTABLE = ("gaussians", "topic_chains", "hidden_markov")


def small(name, seed=0):
    return SYNTHETIC[name](seed=seed, sizes=SMALL)


def distribution(random, *shape):
    numbers = random.random(shape) + 0.01
    return numbers / numbers.sum(-1, keepdims=True)


# Samples


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_samples_depend_on_seed_and_split_alone(name):
    first = {split: repr(small(name).sample(split)) for split in SPLITS}
    assert first == {split: repr(small(name).sample(split)) for split in SPLITS}
    assert len(set(first.values())) == len(SPLITS), "splits share their samples"
    assert repr(small(name, seed=1).sample("train")) != first["train"]


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_samples_have_the_columns_and_sizes_that_the_task_promises(name):
    task = small(name)
    for split, size in SMALL.items():
        samples = task.sample(split)
        assert len(samples) == size
        assert all(tuple(sample) == task.columns for sample in samples)


@pytest.mark.parametrize("name", list(SYNTHETIC))
def test_default_test_split_is_odd_so_that_processes_share_it_unevenly(name):
    assert SYNTHETIC[name]().sizes["test"] % 2 == 1


def test_lengths_stay_within_the_limits():
    for name, count in (("hidden_markov", "tokens"), ("adding", "frames")):
        task = SYNTHETIC[name](sizes={"train": 300})
        lengths = [len(sample[count]) for sample in task.sample("train")]
        assert (min(lengths), max(lengths)) == task.lengths
    chains = TopicChains(sizes={"train": 300})
    lengths = [len(sample["text"].split()) for sample in chains.sample("train")]
    assert (min(lengths), max(lengths)) == chains.lengths


def test_adding_marks_a_number_in_each_half_and_asks_for_their_sum_at_the_end():
    for sample in small("adding").sample("train"):
        frames, labels = sample["frames"], sample["labels"]
        half = len(frames) // 2
        marked = [place for place, (_, mark) in enumerate(frames) if mark == 1.0]
        assert len(marked) == 2
        assert marked[0] < half <= marked[1]
        assert all(math.isnan(label) for (label,) in labels[:-1])
        assert labels[-1][0] == pytest.approx(sum(frames[place][0] for place in marked), abs=1e-12)


# Exact posteriors


@pytest.mark.parametrize("length", [1, 2, 5])
def test_state_posterior_equals_the_sum_over_all_paths(length):
    random = np.random.default_rng(length)
    states, words = 3, 4
    initial, transition = distribution(random, states), distribution(random, states, states)
    emission = distribution(random, states, words)
    observed = random.integers(words, size=length).tolist()
    totals = np.zeros((length, states))
    for path in itertools.product(range(states), repeat=length):
        weight = initial[path[0]] * math.prod(transition[a, b] for a, b in itertools.pairwise(path))
        weight *= math.prod(emission[state, word] for state, word in zip(path, observed, strict=True))
        for step, state in enumerate(path):
            totals[step, state] += weight
    expected = totals / totals.sum(1, keepdims=True)
    np.testing.assert_allclose(state_posterior(initial, transition, emission, observed), expected, atol=1e-12)


def test_state_posterior_does_not_underflow():
    task = HiddenMarkov()
    found = task.posterior([task.words[0]] * 5000)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(1), 1.0)


def test_topic_posterior_equals_bayes_rule_on_plain_products():
    task = TopicChains(sizes=SMALL)
    for sample in task.sample("test"):
        words = [task.words.index(word) for word in sample["text"].split()]
        weights = [
            task.prior[topic]
            * task.initial[topic, words[0]]
            * math.prod(task.transitions[topic, a, b] for a, b in itertools.pairwise(words))
            for topic in range(task.class_count)
        ]
        expected = np.array(weights) / sum(weights)
        np.testing.assert_allclose(np.exp(task.log_posterior(sample["text"])), expected, atol=1e-10)


def test_gaussian_posterior_equals_the_textbook_density():
    task = Gaussians(sizes=SMALL)
    points = np.array([sample["vector"] for sample in task.sample("test")])
    weights = []
    for label in range(task.class_count):
        covariance = task.factors[label] @ task.factors[label].T
        shifted = points - task.means[label]
        exponent = -0.5 * np.einsum("ni,ij,nj->n", shifted, np.linalg.inv(covariance), shifted)
        scale = math.sqrt((2 * math.pi) ** task.input_size * np.linalg.det(covariance))
        weights.append(task.prior[label] * np.exp(exponent) / scale)
    expected = np.stack(weights, axis=1) / np.sum(weights, axis=0)[:, None]
    np.testing.assert_allclose(np.exp(task.log_posterior(points)), expected, atol=1e-9)


def test_log_weights_are_normalised_without_overflow():
    np.testing.assert_allclose(normalise_logs(np.array([[1000.0, 1000.0]])), math.log(0.5))


# Best scores


def test_posterior_decoding_reaches_the_best_accuracy():
    task = HiddenMarkov(sizes=SMALL)
    samples = task.sample("test")
    right = total = 0
    for sample in samples:
        words = [task.words.index(token) for token in sample["tokens"]]
        forward = [task.initial * task.emission[:, words[0]]]
        for word in words[1:]:
            forward.append((forward[-1] @ task.transition) * task.emission[:, word])
        backward = [np.ones(task.state_count)]
        for word in reversed(words[1:]):
            backward.append(task.transition @ (task.emission[:, word] * backward[-1]))
        for before, after, tag in zip(forward, reversed(backward), sample["tags"], strict=True):
            right += task.tags[int((before * after).argmax())] == tag
            total += 1
    assert task.best(samples)["accuracy"] == pytest.approx(100 * right / total)


@pytest.mark.parametrize("name", ["gaussians", "topic_chains"])
def test_the_true_posterior_reaches_the_best_accuracy_and_loss(name):
    task = small(name)
    samples = task.sample("test")
    if name == "gaussians":
        logs = task.log_posterior(np.array([sample["vector"] for sample in samples]))
    else:
        logs = np.stack([task.log_posterior(sample["text"]) for sample in samples])
    gold = [task.labels.index(sample["label"]) for sample in samples]
    right = sum(int(row.argmax()) == target for row, target in zip(logs, gold, strict=True))
    best = task.best(samples)
    assert best["accuracy"] == pytest.approx(100 * right / len(samples))
    assert best["loss"] == pytest.approx(-sum(row[target] for row, target in zip(logs, gold, strict=True)) / len(gold))


@pytest.mark.parametrize("name", PREDICTABLE)
def test_no_better_than_expected_and_far_from_chance_and_from_certainty(name):
    task = SYNTHETIC[name](seed=3)
    samples = task.sample("test")
    if name == "gaussians":
        shares = np.exp(task.log_posterior(np.array([sample["vector"] for sample in samples]))).max(1)
    elif name == "topic_chains":
        shares = np.array([np.exp(task.log_posterior(sample["text"])).max() for sample in samples])
    else:
        shares = np.array([task.posterior(sample["tokens"]).max(1).mean() for sample in samples])
    expected, error = 100 * shares.mean(), 100 * shares.std() / math.sqrt(len(shares))
    accuracy = task.best(samples)["accuracy"]
    noise = 100 * 0.5 / math.sqrt(len(shares))  # of right and wrong answers, at most
    assert abs(accuracy - expected) < 4 * (noise + error)
    assert 60 < accuracy < 97


def test_a_model_that_sees_one_word_at_a_time_is_far_below_the_best_tagger():
    task = HiddenMarkov()
    counts = np.zeros((task.word_count, task.state_count))
    for sample in task.sample("train"):
        for token, tag in zip(sample["tokens"], sample["tags"], strict=True):
            counts[task.words.index(token), task.tags.index(tag)] += 1
    samples = task.sample("test")
    pairs = [pair for sample in samples for pair in zip(sample["tokens"], sample["tags"], strict=True)]
    right = sum(task.tags[counts[task.words.index(token)].argmax()] == tag for token, tag in pairs)
    assert task.best(samples)["accuracy"] > 100 * right / len(pairs) + 10


def test_posterior_scores_are_accuracy_in_percent_and_loss_in_nats():
    scores = posterior_scores(np.log([[0.8, 0.2], [0.6, 0.4]]), [0, 1])
    assert scores == {"accuracy": 50.0, "loss": pytest.approx(-(math.log(0.8) + math.log(0.4)) / 2)}


def test_adding_can_be_answered_without_error():
    assert small("adding").best([]) == {"mae": 0.0, "rmse": 0.0, "r2": 1.0}


# Bad input


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"seed": -1}, "at least 0"),
        ({"sizes": {"tset": 3}}, "did you mean 'test'"),
        ({"sizes": {"test": 0}}, "at least 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        Gaussians(**arguments)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="did you mean 'hidden_markov'"):
        SYNTHETIC["hidden_markow"]
    with pytest.raises(InputError, match="did you mean 'validation'"):
        small("adding").sample("validatoin")


def test_adding_takes_lengths_and_any_task_sizes():
    samples = Adding(lengths=[50, 52], sizes={"train": 60}).sample("train")
    assert {len(sample["frames"]) for sample in samples} == {50, 51, 52}
    for lengths in ([1, 5], [5, 4], [5], "ab", [2.0, 3.0], 7):
        with pytest.raises(InputError, match="lengths of adding: expected the shortest and the longest"):
            Adding(lengths=lengths)


@pytest.mark.parametrize("sizes", [7, [3], {"train": "9"}, {"train": 2.5}, {"train": None}, {"train": 0}])
def test_sizes_that_are_none_are_refused(sizes):
    with pytest.raises(InputError, match=r"sizes of a synthetic task|size of split train"):
        Adding(sizes=sizes)


def test_options_of_a_task_reach_it_and_unknown_ones_are_refused():
    data = FrameData(synthetic="adding", synthetic_options={"lengths": [30, 30], "sizes": {"train": 9}})
    assert data.describe().split_sizes["train"] == 9
    assert "lengths [30, 30]" in data.describe().source
    assert len(data.raw("train")[0]["frames"]) == 30
    with pytest.raises(InputError, match=r"expected one of lengths, sizes, got 'length'; did you mean 'lengths'"):
        FrameData(synthetic="adding", synthetic_options={"length": [30, 30]}).describe()
