"""Beam and greedy search against exhaustive search and plain searches in lists."""

import dataclasses
import itertools

import pytest
import torch
from toy_decoder import END, Oracle, ToyDecoder, make_context, pick

from rnnzoo.decoding import SearchOptions, Step, score, search
from rnnzoo.errors import InputError

PENALTIES = ("none", "gnmt", "power", "mean")
WIDE = 200  # more than there are sequences of three tokens


def facts(hypothesis):
    return hypothesis.tokens, hypothesis.finished


def search_row(decoder, context, row, options, **arguments):
    return search(decoder, pick(context, row), options, **arguments)[0]


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("alpha", [0.6, 1.5])
@pytest.mark.parametrize("coverage", [0.0, 0.4])
def test_a_wide_beam_finds_what_exhaustive_search_finds(penalty, alpha, coverage):
    options = SearchOptions(
        beam_size=WIDE, n_best=7, length_penalty=penalty, alpha=alpha, coverage_penalty=coverage, max_length=3
    )
    decoder, context = ToyDecoder(), make_context(3)
    for row, found in enumerate(search(decoder, context, options)):
        expected = Oracle(decoder, context, row).everything(options)[:7]
        assert [each.tokens for each in found] == [tokens for _, tokens in expected]
        assert [each.score for each in found] == pytest.approx([score for score, _ in expected], abs=1e-9)
        assert all(each.finished for each in found)


def test_length_penalties_change_what_is_best():
    decoder, context = ToyDecoder(), make_context(8)
    best = [
        [found[0].tokens for found in search(decoder, context, SearchOptions(beam_size=WIDE, **each, max_length=3))]
        for each in ({"length_penalty": "none"}, {"length_penalty": "mean"}, {"coverage_penalty": 3.0})
    ]
    assert best[0] != best[1] != best[2] != best[0]


@pytest.mark.parametrize(("beam_size", "n_best"), [(1, 1), (2, 1), (3, 2), (3, 3), (8, 3)])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_beam_is_the_plain_one(beam_size, n_best, penalty):
    for coverage, end_bonus, max_length in itertools.product([0.0, 0.3], [-6.0, -2.0, 1.0], [1, 5]):
        options = SearchOptions(
            beam_size=beam_size,
            n_best=n_best,
            length_penalty=penalty,
            alpha=0.7,
            coverage_penalty=coverage,
            max_length=max_length,
        )
        decoder, context = ToyDecoder(end_bonus=end_bonus), make_context(4)
        for row, found in enumerate(search(decoder, context, options)):
            expected = Oracle(decoder, context, row).beam(options)
            assert [facts(each) for each in found] == [(tokens, finished) for _, tokens, finished in expected]
            assert [each.score for each in found] == pytest.approx([score for score, _, _ in expected], abs=1e-9)


@pytest.mark.parametrize("end_bonus", [-6.0, 0.0, 2.0])
def test_greedy_is_a_beam_of_one_and_the_plain_loop(end_bonus):
    decoder, context = ToyDecoder(end_bonus=end_bonus), make_context(12)
    for max_length in (1, 9):
        options = SearchOptions(method="greedy", beam_size=3, max_length=max_length)
        found = search(decoder, context, options)
        beam = search(decoder, context, dataclasses.replace(options, method="beam", beam_size=1))
        assert found == [
            [dataclasses.replace(each, weights=own.weights) for own in row]
            for row, (each,) in zip(found, beam, strict=True)
        ]
        assert [facts(each) for (each,) in found] == [
            Oracle(decoder, context, row).greedy(options) for row in range(12)
        ]


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize(
    "more",
    [{}, {"length_penalty": "mean"}, {"coverage_penalty": 0.5}, {"block_ngrams": 2}, {"min_length": 4}],
    ids=lambda more: next(iter(more), "plain"),
)
def test_a_row_does_not_depend_on_the_batch(method, more):
    decoder, context = ToyDecoder(), make_context(6)
    options = SearchOptions(
        method=method, beam_size=3, n_best={"beam": 3, "greedy": 1, "sample": 2}[method], max_length=8, **more
    )
    prefixes, limits = [[], [1], [2, 3, 1], [], [0], [1, 1]], [8, 8, 2, 0, 5, 7]

    def run(*rows):
        return search(
            decoder,
            pick(context, *rows),
            options,
            suppressed=[3],
            prefixes=[prefixes[row] for row in rows],
            max_lengths=torch.tensor([limits[row] for row in rows]),
            seeds=rows,
        )

    alone = [run(row)[0] for row in range(6)]
    for rows in [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (2, 0, 2, 2), (3, 3, 3)]:
        for row, found in zip(rows, run(*rows), strict=True):
            assert [facts(each) for each in found] == [facts(each) for each in alone[row]]
            for each, own in zip(found, alone[row], strict=True):
                assert (each.score, each.log_probability) == pytest.approx((own.score, own.log_probability), abs=1e-9)
                torch.testing.assert_close(each.weights, own.weights)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize("end_bonus", [-3.0, 1.0])
def test_scores_and_weights_are_the_teacher_forced_ones(method, end_bonus):
    decoder, context = ToyDecoder(end_bonus=end_bonus), make_context(5)
    options = SearchOptions(
        method=method,
        beam_size=4,
        n_best={"beam": 4, "greedy": 1, "sample": 3}[method],
        max_length=5,
        min_length=1,
        block_ngrams=2,
        coverage_penalty=0.2,
        temperature=2.0,
        top_k=3,
    )
    prefixes = [[], [1], [3, 3], [], [0, 1, 2]]
    seen = set()
    for row, found in enumerate(search(decoder, context, options, suppressed=[2], prefixes=prefixes)):
        oracle = Oracle(decoder, context, row)
        for each in found:
            targets = torch.tensor([each.tokens + [END] * each.finished])
            forced = float(score(decoder, pick(context, row), targets))
            assert each.log_probability == pytest.approx(forced, abs=1e-9)
            assert each.log_probability == pytest.approx(
                oracle.log_probability(each.tokens, finished=each.finished), abs=1e-9
            )
            assert each.score == pytest.approx(oracle.score(options, each.tokens, finished=each.finished), abs=1e-9)
            assert each.weights.shape == (len(each.tokens), 4)
            weights = oracle.weights(each.tokens, finished=False)
            torch.testing.assert_close(each.weights.tolist(), weights)
            seen.add(each.finished)
    assert seen == {False, True} or method == "greedy" or end_bonus > 0


def test_the_n_best_are_sorted_and_distinct():
    for max_length in (1, 2, 5):
        options = SearchOptions(beam_size=9, n_best=9, max_length=max_length)
        for found in search(ToyDecoder(), make_context(6), options):
            assert len({tuple(each.tokens) for each in found}) == len(found)
            keys = [(each.finished, each.score) for each in found]
            assert keys == sorted(keys, reverse=True)


def test_finished_hypotheses_leave_and_done_rows_too():
    decoder, context = ToyDecoder(), make_context(6)
    found = search(decoder, context, SearchOptions(beam_size=3, max_length=20))
    lengths = [len(each[0].tokens) for each in found]
    contexts = [rows for _, rows in decoder.calls]
    assert contexts[0] == 6
    assert contexts == sorted(contexts, reverse=True)
    assert contexts[-1] < 6
    assert len(contexts) >= max(lengths) + 1
    assert {rows // contexts for rows, contexts in decoder.calls} <= {1, 3}
    assert decoder.calls[0] == (6, 6)


def test_a_row_is_done_when_nothing_can_become_better():
    context = make_context(1)
    steps = {}
    for penalty in PENALTIES:
        decoder = ToyDecoder(end_bonus=6.0)
        ((found,),) = search(decoder, context, SearchOptions(length_penalty=penalty, max_length=40))
        assert found.tokens == []
        steps[penalty] = len(decoder.calls)
    assert steps["none"] == 1, "all others are less probable already"
    assert steps["mean"] > 1, "a longer one may have a better mean"


def test_a_prefix_is_read_by_one_hypothesis():
    decoder, context = ToyDecoder(), make_context(3)
    search(decoder, context, SearchOptions(beam_size=4), prefixes=[[1, 2, 3], [0, 0, 0, 0], [3, 2, 1]])
    assert [rows // contexts for rows, contexts in decoder.calls[:6]] == [1, 1, 1, 1, 4, 4]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_beam_wider_than_the_vocabulary(size):
    decoder, context = ToyDecoder(size=size), make_context(3, size=size)
    options = SearchOptions(beam_size=50, n_best=50, max_length=3)
    for row, found in enumerate(search(decoder, context, options)):
        expected = Oracle(decoder, context, row).everything(options)
        assert [each.tokens for each in found] == [tokens for _, tokens in expected]


class Coin:
    """Two tokens and the end, with the logits given for each step; no attention, a bare tensor as the state."""

    vocabulary_size = 3

    def __init__(self, *logits):
        self.logits = torch.tensor(logits)

    def initial_state(self, context):
        return torch.zeros(len(context), dtype=torch.long)

    def step(self, tokens, state, context):
        return Step(self.logits[state.clamp(max=len(self.logits) - 1)], state + 1)


NONE = float("-inf")
EMPTY = torch.empty(2, 0)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_the_end(method):
    options = SearchOptions(method=method, max_length=3)
    (first, _) = search(Coin([0.0, -20.0, NONE]), EMPTY, options)
    assert facts(first[0]) == ([0, 0, 0], False)
    assert first[0].weights is None
    (first, _) = search(Coin([0.0, -20.0, -20.0], [-20.0, 0.0, -20.0], [-20.0, -20.0, 0.0]), EMPTY, options)
    assert facts(first[0]) == ([0, 1], True)
    (first, _) = search(Coin([0.0, -20.0, -20.0], *[[-20.0, 0.0, -20.0]] * 2, [-20.0, -20.0, 0.0]), EMPTY, options)
    assert facts(first[0]) == ([0, 1, 1], True), "the end may follow the greatest length"
    (first, _) = search(Coin([-20.0, -20.0, 0.0]), EMPTY, options)
    assert facts(first[0]) == ([], True)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_nothing_may_follow(method):
    options = SearchOptions(method=method, max_length=3, min_length=2)
    for stuck in (Coin([0.0, NONE, NONE], [NONE, NONE, NONE]), Coin([0.0, NONE, NONE], [NONE, NONE, 0.0])):
        for (found,) in search(stuck, EMPTY, options):
            assert facts(found) == ([0], False)
            assert found.log_probability == pytest.approx(0.0)


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_logits_are_refused(method, broken):
    with pytest.raises(InputError, match=r"step 2: expected finite logits, got NaN or infinity in rows \[0, 1\]"):
        search(Coin([0.0, 0.0, NONE], [0.0, broken, 0.0]), EMPTY, SearchOptions(method=method))


def test_no_rows():
    assert search(Coin([0.0, 0.0, 0.0]), torch.empty(0, 0), SearchOptions()) == []
