"""What a search must keep to: lengths, prefixes, n-grams, suppressed ids; and what it refuses."""

import dataclasses

import pytest
import torch
from toy_decoder import END, SIZE, Oracle, ToyDecoder, make_context, pick

from rnnzoo.decoding import SearchOptions, Step, search, stream
from rnnzoo.errors import InputError

METHODS = pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
WIDE = SearchOptions(beam_size=400, n_best=5, max_length=4)


def tokens_of(found):
    return [each.tokens for each in found]


def repeats(tokens, size, start=0):
    """Whether an n-gram that ends past the first `start` tokens was there before."""
    grams = [tuple(tokens[place : place + size]) for place in range(len(tokens) - size + 1)]
    return any(gram in grams[:place] for place, gram in enumerate(grams) if place + size > start)


@pytest.mark.parametrize("row", range(3))
def test_wide_beams_find_the_best_that_is_allowed(row):
    decoder, context = ToyDecoder(), make_context(3)
    oracle, own = Oracle(decoder, context, row), pick(context, row)

    def check(options, suppressed=(), prefix=(), allowed=lambda tokens: True):
        expected = oracle.everything(
            options,
            prefix=prefix,
            allowed=lambda tokens: allowed(tokens) and not {*tokens[len(prefix) :]} & {*suppressed},
        )
        (found,) = search(decoder, own, options, suppressed=suppressed, prefixes=[prefix])
        assert tokens_of(found) == [tokens for _, tokens in expected[:5]]
        assert [each.score for each in found] == pytest.approx([score for score, _ in expected[:5]], abs=1e-9)

    check(dataclasses.replace(WIDE, min_length=3))
    check(dataclasses.replace(WIDE, min_length=4))
    check(WIDE, suppressed=[0, 2])
    check(dataclasses.replace(WIDE, max_length=2), suppressed=[0, 1, 2, 3])
    check(dataclasses.replace(WIDE, max_length=3), prefix=(1,))
    check(dataclasses.replace(WIDE, max_length=2, length_penalty="mean"), prefix=(3, 3, 0), suppressed=[3])
    for size in (1, 2, 3):
        check(dataclasses.replace(WIDE, block_ngrams=size), allowed=lambda tokens, size=size: not repeats(tokens, size))
    for size in (1, 2):
        check(
            dataclasses.replace(WIDE, block_ngrams=size, max_length=3),
            prefix=(1, 0, 1, 0),
            allowed=lambda tokens, size=size: not repeats(tokens, size, start=4),
        )


@METHODS
def test_lengths(method):
    for least, most, end_bonus in [(0, 3, -9.0), (3, 3, 30.0), (2, 5, 30.0), (0, 1, -9.0)]:
        decoder, context = ToyDecoder(end_bonus=end_bonus), make_context(5)
        options = SearchOptions(method=method, min_length=least, max_length=most)
        for (found,) in search(decoder, context, options):
            assert least <= len(found.tokens) <= most
        for (found,) in search(decoder, context, options, prefixes=[[1, 1]] * 5):
            assert found.tokens[:2] == [1, 1]
            assert least <= len(found.tokens) - 2 <= most
        limits = torch.tensor([0, 1, 2, 50, 3])
        for (found,), limit in zip(search(decoder, context, options, max_lengths=limits), limits, strict=True):
            assert min(least, limit) <= len(found.tokens) <= min(most, limit)
            assert found.finished or end_bonus < 0


@METHODS
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_twice(method, size):
    decoder, context = ToyDecoder(end_bonus=-4.0), make_context(5)
    options = SearchOptions(method=method, beam_size=3, max_length=30)
    free = [found.tokens for (found,) in search(decoder, context, options)]
    assert any(repeats(tokens, size) for tokens in free)
    prefixes = [[], [1], [2, 2, 2, 2], [0, 1, 0, 1], [3, 2, 1, 0]]
    blocked = search(decoder, context, dataclasses.replace(options, block_ngrams=size), prefixes=prefixes)
    for (found,), prefix in zip(blocked, prefixes, strict=True):
        assert found.tokens[: len(prefix)] == prefix
        assert not repeats(found.tokens, size, start=len(prefix))


@METHODS
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_of_what_was_read_comes_again(method, size):
    decoder, context = ToyDecoder(end_bonus=-4.0), make_context(5)
    options = SearchOptions(method=method, beam_size=3, max_length=12, block_ngrams=size)
    read = [[], [1], [2, 2, 2, 2], [0, 1, 0, 1], [3, 2, 1, 0]]
    found = [row[0].tokens for row in search(decoder, context, options, read=read)]
    assert found != [row[0].tokens for row in search(decoder, context, options)]
    for tokens, before in zip(found, read, strict=True):
        assert not repeats([*before, *tokens], size, start=len(before))
    for row, before in enumerate(read):  # alone as in the batch
        ((alone,),) = search(decoder, pick(context, row), options, read=[before], seeds=[row])
        assert alone.tokens == found[row]


@METHODS
def test_suppressed_ids_never_come(method):
    decoder, context = ToyDecoder(), make_context(20)
    options = SearchOptions(method=method, max_length=20)
    found = [token for (each,) in search(decoder, context, options, suppressed=[1, 3]) for token in each.tokens]
    assert {*found} == {0, 2}
    for (each,) in search(decoder, context, options, suppressed=[END]):
        assert (len(each.tokens), each.finished) == (20, False)


@METHODS
def test_a_prefix_longer_than_all_others_changes_nothing_for_them(method):
    decoder, context = ToyDecoder(), make_context(3)
    options = SearchOptions(method=method, max_length=6)
    plain = search(decoder, context, options)
    mixed = search(decoder, context, options, prefixes=[[], [1, 2, 3, 0] * 5, []])
    assert [tokens_of(mixed[row]) for row in (0, 2)] == [tokens_of(plain[row]) for row in (0, 2)]
    assert mixed[1][0].tokens[:20] == [1, 2, 3, 0] * 5
    whole = [found[0].tokens for found in plain]
    again = search(decoder, context, options, prefixes=[tokens[:2] for tokens in whole])
    if method == "greedy":
        assert [found[0].tokens[:6] for found in again] == whole


class Sure(ToyDecoder):
    """Token 1 never comes."""

    def step(self, tokens, state, context):
        logits, state, weights = super().step(tokens, state, context)
        logits[:, 1] = float("-inf")
        return Step(logits, state, weights)


@METHODS
def test_a_prefix_that_cannot_be_is_refused(method):
    options = SearchOptions(method=method)
    with pytest.raises(InputError, match=r"prefix of row 1: expected tokens .* got a probability of 0 for token 2"):
        search(Sure(), make_context(3), options, prefixes=[[0, 0, 0], [0, 1], []])


BAD = [
    ({"method": "beem"}, "did you mean 'beam'"),
    ({"length_penalty": "gnm"}, "did you mean 'gnmt'"),
    ({"beam_size": 0}, "search.beam_size: expected an integer of at least 1, got 0"),
    ({"beam_size": 2.0}, "search.beam_size: .* got 2.0"),
    ({"max_length": True}, "search.max_length: .* got True"),
    ({"max_length": 0}, "search.max_length"),
    ({"min_length": -1}, "search.min_length"),
    ({"min_length": 9, "max_length": 8}, "search.min_length: expected at most max_length, 8, got 9"),
    ({"block_ngrams": -1}, "search.block_ngrams"),
    ({"top_k": -1}, "search.top_k"),
    ({"seed": "1"}, "search.seed: .* got '1'"),
    ({"alpha": -0.1}, "search.alpha: expected a number of at least 0, got -0.1"),
    ({"coverage_penalty": float("nan")}, "search.coverage_penalty"),
    ({"temperature": 0.0}, "search.temperature: expected a number above 0, got 0.0; .*greedy"),
    ({"temperature": float("inf")}, "search.temperature"),
    ({"top_p": 0}, "search.top_p: expected a number above 0, at most 1, got 0"),
    ({"top_p": 1.1}, "search.top_p"),
    ({"n_best": 6}, "search.n_best: expected at most 5 with method beam, got 6; give a larger beam_size"),
    ({"n_best": 2, "method": "greedy"}, "search.n_best: expected at most 1 with method greedy"),
]


@pytest.mark.parametrize(("values", "message"), BAD, ids=str)
def test_bad_options_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        SearchOptions(**values)


def test_greedy_options_keep_the_rest():
    options = SearchOptions(beam_size=9, n_best=3, max_length=7, block_ngrams=2)
    assert options.as_greedy() == SearchOptions(method="greedy", beam_size=9, n_best=1, max_length=7, block_ngrams=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefixes": [[0]]}, "prefixes: expected one for each of 2 rows, got 1"),
        ({"prefixes": [[0], [0, END]]}, f"prefix of row 1: expected ids from 0 to {SIZE - 2}, got {END}"),
        ({"prefixes": [[-1], []]}, "prefix of row 0: .* got -1"),
        ({"max_lengths": torch.ones(3)}, "max_lengths: expected one for each of 2 rows, got 3"),
        ({"seeds": [1, 2, 3]}, "seeds: expected one for each of 2 rows, got 3"),
        ({"suppressed": [SIZE]}, f"suppressed: expected ids from 0 to {SIZE - 1}, got {SIZE}"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        search(ToyDecoder(), make_context(2), SearchOptions(), **arguments)


def test_a_coverage_penalty_needs_attention():
    with pytest.raises(InputError, match=r"search.coverage_penalty: expected 0 for a decoder without attention"):
        search(ToyDecoder(attention=False), make_context(2), SearchOptions(coverage_penalty=0.1))


def test_streams_are_of_one_row_and_no_beam():
    for options in (SearchOptions(), SearchOptions(method="sample", n_best=2)):
        with pytest.raises(InputError, match=r"search.method: expected greedy or sample"):
            next(stream(ToyDecoder(), make_context(1), options))
    with pytest.raises(InputError, match="a context of one row, got 2 rows"):
        next(stream(ToyDecoder(), make_context(2), SearchOptions(method="greedy")))
    with pytest.raises(InputError, match="context: expected at least one tensor"):
        search(ToyDecoder(), (), SearchOptions())
