"""Samples follow the distribution that was asked for, and belong to their row and seed."""

import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from toy_decoder import END, SIZE, Oracle, ToyDecoder, make_context, pick

from rnnzoo.decoding import SearchOptions, Step, sampling, search, stream

DRAWS = 2000


def truncated(log_probabilities, options):
    """The distribution that one step is drawn from, by the definition of the options."""
    logits = [value / options.temperature for value in log_probabilities]
    order = sorted(range(len(logits)), key=lambda token: -logits[token])
    kept = order[: options.top_k or len(order)]
    weights = {token: torch.tensor(logits[token]).exp().item() for token in kept}
    total, sum_so_far, nucleus = sum(weights.values()), 0.0, {}
    for token in kept:
        if sum_so_far < options.top_p:
            nucleus[token] = weights[token]
        sum_so_far += weights[token] / total
    return {token: weight / sum(nucleus.values()) for token, weight in nucleus.items()}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0, "top_k": 3},
        {"top_p": 0.8},
        {"top_p": 0.01},
        {"top_p": 0.7, "temperature": 4.0, "top_k": 4},
        {"top_k": 99},
    ],
    ids=str,
)
def test_frequencies(values):
    decoder, context = ToyDecoder(scale=0.7), make_context(2)
    options = SearchOptions(method="sample", n_best=DRAWS, max_length=2, **values)
    for row, found in enumerate(search(decoder, context, options)):
        oracle = Oracle(decoder, context, row)
        counts = Counter((*each.tokens, END) if each.finished else tuple(each.tokens) for each in found)
        # A sequence of two that does not end at once is one of two tokens that may or may not end then.
        counts = Counter({key: sum(n for k, n in counts.items() if k[:2] == key) for key in {k[:2] for k in counts}})
        expected = {}
        for first, chance in truncated(oracle.after(())[0], options).items():
            if first == END:
                expected[(END,)] = chance
                continue
            for second, more in truncated(oracle.after((first,))[0], options).items():
                expected[(first, second)] = chance * more
        assert set(counts) <= set(expected)
        surprise = sum((counts[key] - DRAWS * p) ** 2 / (DRAWS * p) for key, p in expected.items() if DRAWS * p > 5)
        freedom = len(expected)
        assert surprise < freedom + 4 * (2 * freedom) ** 0.5 + 4, (surprise, freedom)


def test_steps_rows_and_samples_are_independent():
    class Fair:
        vocabulary_size = 3

        def initial_state(self, context):
            return context

        def step(self, tokens, state, context):
            return Step(torch.tensor([[0.0, 0.0, float("-inf")]]).expand(len(tokens), -1), state)

    steps = 300
    options = SearchOptions(method="sample", n_best=3, max_length=steps)
    found = search(Fair(), torch.empty(4, 0), options)
    bits = torch.tensor([each.tokens for row in found for each in row]).float()  # [12, 300]
    assert (bits.mean(1) - 0.5).abs().max() < 0.1
    signs = 2 * bits - 1
    assert ((signs @ signs.T / steps) - torch.eye(12)).abs().max() < 0.25
    for lag in (1, 2, sampling.BLOCK):
        assert (signs[:, lag:] * signs[:, :-lag]).mean(1).abs().max() < 0.25


@pytest.mark.parametrize("values", [{}, {"top_p": 0.9}, {"top_k": 3, "temperature": 1.5}], ids=str)
def test_a_sample_belongs_to_its_seeds(values):
    decoder, context = ToyDecoder(scale=0.5, end_bonus=-1.0), make_context(3, seed=1)
    options = SearchOptions(method="sample", max_length=30, **values)

    def run(seeds, rows=(0, 0, 0), **more):
        found = search(decoder, pick(context, *rows), dataclasses.replace(options, **more), seeds=seeds)
        return [[each.tokens for each in row] for row in found]

    a, b, c = run([5, 6, 7])
    assert len({tuple(each[0]) for each in (a, b, c)}) == 3
    assert run([7, 5, 5]) == [c, a, a]
    assert run([5, 6, 7], seed=1) != [a, b, c]
    more = run([5, 6, 7], n_best=3)
    assert [each[:1] for each in more] == [a, b, c]
    assert len({tuple(each) for each in more[0]}) == 3
    assert run(None) == run([0, 1, 2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_noise_is_the_same_whatever_type_torch_makes(dtype):
    """Trainers of narrow models set it."""
    expected = sampling.noise(1, 2, 3)
    assert expected.dtype == torch.float32
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        assert torch.equal(sampling.noise(1, 2, 3), expected)
    finally:
        torch.set_default_dtype(before)


def test_top_k_of_one_is_greedy():
    decoder, context = ToyDecoder(), make_context(8)
    greedy = search(decoder, context, SearchOptions(method="greedy", max_length=9))
    for values in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        found = search(decoder, context, SearchOptions(method="sample", max_length=9, **values))
        assert [(each.tokens, each.finished) for (each,) in found] == [(e.tokens, e.finished) for (e,) in greedy]
        assert [each.score for (each,) in found] == pytest.approx([each.score for (each,) in greedy])


@pytest.mark.parametrize("top_p", [0.2, 0.6, 0.95, 0.9999])
def test_a_nucleus_is_the_same_however_it_is_found(top_p, monkeypatch):
    decoder, context = ToyDecoder(), make_context(8)
    options = SearchOptions(method="sample", max_length=9, n_best=20, top_p=top_p)
    found = search(decoder, context, options)
    for few in (1, 2, SIZE - 1):
        monkeypatch.setattr(sampling, "NUCLEUS", few)
        again = search(decoder, context, options)
        for row, other in zip(found, again, strict=True):
            assert [each.tokens for each in row] == [each.tokens for each in other]


@pytest.mark.parametrize("method", ["greedy", "sample"])
@pytest.mark.parametrize("end_bonus", [-9.0, 0.0])
def test_a_stream_is_the_search(method, end_bonus):
    decoder, context = ToyDecoder(end_bonus=end_bonus, scale=0.7), make_context(3)
    for row, seed, prefix in itertools.product(range(3), (0, 3), ((), (1, 1, 2))):
        options = SearchOptions(method=method, max_length=12, block_ngrams=3, seed=8)
        own = pick(context, row)
        ((expected,),) = search(decoder, own, options, prefixes=[prefix], seeds=[seed], suppressed=[3])
        found = list(stream(decoder, own, options, prefix=prefix, seed=seed, suppressed=[3]))
        assert [*prefix, *found] == expected.tokens


def test_a_stream_yields_at_once():
    decoder, context = ToyDecoder(end_bonus=-99.0), make_context(1)
    tokens = stream(decoder, context, SearchOptions(method="sample", max_length=50), prefix=[1, 2])
    for step in range(1, 6):
        next(tokens)
        assert len(decoder.calls) == 2 + step


class Silent(ToyDecoder):
    """Knows nothing to say after the end."""

    def step(self, tokens, state, context):
        logits, after, weights = super().step(tokens, state, context)
        logits[(tokens == END) & (state.steps > 0)] = float("nan")
        return Step(logits, after, weights)


@pytest.mark.parametrize("method", ["beam", "sample"])
def test_what_comes_after_the_end_is_not_looked_at(method):
    context = make_context(4)
    options = SearchOptions(method=method, beam_size=6, n_best=6, max_length=8)
    found, expected = search(Silent(), context, options), search(ToyDecoder(), context, options)
    for row, other in zip(found, expected, strict=True):
        assert [(each.tokens, each.score) for each in row] == [(each.tokens, each.score) for each in other]


def test_a_sample_that_cannot_go_on_leaves_the_others_alone():
    class Fork:
        vocabulary_size = 3

        def initial_state(self, context):
            return context

        def step(self, tokens, state, context):
            logits = torch.tensor([[0.0, 1.0, float("-inf")]]).repeat(len(tokens), 1)
            logits[tokens == 0] = float("-inf")
            return Step(logits, state)

    (found,) = search(Fork(), torch.empty(1, 0), SearchOptions(method="sample", n_best=30, max_length=6))
    assert len(found) == 30
    for each in found:
        ones = len(each.tokens) - (0 in each.tokens)
        assert each.tokens in ([1] * ones + [0], [1] * 6)
        assert not each.finished
    assert {len(each.tokens) for each in found} >= {1, 2, 3, 6}
