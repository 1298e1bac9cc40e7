"""A stream in lanes: every token predicted once, contiguous, equal on all processes, whatever the cuts."""

from __future__ import annotations

import itertools

import datasets
import numpy as np
import pytest

from rnnzoo.data.lanes import LaneSampler, Span, TokenStream

END = 9


def stream(documents, joined=False, chunk_length=4):
    rows = [
        {"tokens": tokens, "characters": [1] * len(tokens), "words": [0] * len(tokens), "length": len(tokens)}
        for tokens in documents
    ]
    return TokenStream(datasets.Dataset.from_list(rows), joined=joined, end_id=END, chunk_length=chunk_length)


def test_each_document_is_read_from_the_end_token_on():
    found = stream([[2, 3, 4], [5], [6, 7]])
    assert found.tokens.tolist() == [2, 3, 4, 5, 6, 7]
    assert found.inputs.tolist() == [END, 2, 3, END, END, 6]
    assert found.resets.nonzero()[0].tolist() == [0, 3, 4]
    assert found.lengths.tolist() == [3, 1, 2]


def test_documents_that_are_one_are_read_through():
    found = stream([[2, 3], [4], [5]], joined=True)
    assert found.inputs.tolist() == [END, 2, 3, 4]
    assert found.resets.nonzero()[0].tolist() == [0]


def test_whole_numbers_are_chunks_of_the_usual_length():
    found = stream([[2, 3, 4, 5, 6, 7]])
    assert len(found) == 2
    rows = found.__getitems__([0, 1])
    assert [row["tokens"].tolist() for row in rows] == [[2, 3, 4, 5], [6, 7]]
    assert [row["inputs"].tolist() for row in rows] == [[END, 2, 3, 4], [5, 6]]
    assert [row["begins"] for row in rows] == [True, False]
    assert [row["id"] for row in rows] == [0, 4]


def test_empty_documents_at_the_end_begin_nothing():
    assert stream([[2], [], [3], []]).resets.tolist() == [True, True]


@pytest.mark.parametrize(
    ("length", "lanes", "size", "world"), list(itertools.product([1, 7, 40, 41], [1, 2, 5], [1, 3, 100], [1, 2, 3]))
)
def test_every_token_is_in_a_chunk_and_lanes_go_on_where_they_ended(length, lanes, size, world):
    lanes = min(lanes, length)
    samplers = [
        LaneSampler(length, lanes=lanes, chunk_length=size, rank=rank, world_size=world) for rank in range(world)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert len({len(each) for each in batches}) == 1, "all processes have as many batches"
    assert all(len(each) == len(sampler) for each, sampler in zip(batches, samplers, strict=True))
    seen = set()
    for each in batches:
        assert len({len(batch) for batch in each}) == 1
        for lane in zip(*each, strict=True):
            assert [span.begins for span in lane] == [True] + [False] * (len(lane) - 1)
            assert all(one.stop == two.start for one, two in itertools.pairwise(lane))
            assert all(span.stop - span.start <= size for span in lane)
            seen.update(itertools.chain.from_iterable(range(span.start, span.stop) for span in lane))
    assert seen == set(range(length))


def test_training_lanes_are_read_once_and_each_process_has_neighbours():
    parts = [list(LaneSampler(60, lanes=6, chunk_length=4, rank=rank, world_size=3)) for rank in range(3)]
    firsts = [[span.start for span in batches[0]] for batches in parts]
    assert firsts == [[0, 10], [20, 30], [40, 50]]


def test_lanes_differ_by_one_token_at_most():
    spans = next(iter(LaneSampler(1003, lanes=10, chunk_length=2000)))
    assert {span.stop - span.start for span in spans} == {100, 101}


def test_chunks_of_varied_length_are_another_each_epoch_and_the_same_on_all_processes():
    def sizes(epoch, rank=0, seed=0):
        sampler = LaneSampler(40000, lanes=4, chunk_length=70, vary=True, seed=seed, rank=rank, world_size=2)
        sampler.set_epoch(epoch)
        assert sampler.sampler is sampler
        return [batch[0].stop - batch[0].start for batch in sampler]

    assert sizes(0) == sizes(0, rank=1) == sizes(0)
    assert sizes(0) != sizes(1)
    assert sizes(0) != sizes(0, seed=1)
    found = np.array(list(itertools.chain.from_iterable(sizes(epoch)[:-1] for epoch in range(20))))
    usual = found[found > 52]
    assert found.min() >= 5
    assert abs(usual.mean() - 70) < 1
    assert abs(usual.std() - 5) < 0.5
    assert 0.02 < (found <= 52).mean() < 0.09
    assert {len(sizes(epoch)) for epoch in range(20)} == {round(10000 / (0.975 * 70))}


@pytest.mark.parametrize("length", [1, 7, 30, 400])
def test_varied_chunks_are_as_many_in_each_epoch_and_hold_every_token_once(length):
    sampler = LaneSampler(length, lanes=1, chunk_length=8, vary=True)
    counts = set()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        spans = [span for batch in sampler for span in batch]
        assert [place for span in spans for place in range(span.start, span.stop)] == list(range(length))
        assert len(spans) == len(sampler)
        counts.add(len(spans))
    assert len(counts) == 1


def test_varied_chunks_say_their_length_over_the_usual():
    for batch in LaneSampler(400, lanes=2, chunk_length=20, vary=True):
        assert all(span.scale == pytest.approx((batch[0].stop - batch[0].start) / 20) for span in batch) or (
            batch[0].stop == 200
        )
    assert {span.scale for batch in LaneSampler(50, lanes=1, chunk_length=20) for span in batch} == {1.0}


def test_a_span_is_read_as_it_is():
    row = stream([[2, 3, 4], [5, 6]])[Span(1, 4, begins=True, scale=0.5)]
    assert row["tokens"].tolist() == [3, 4, 5]
    assert row["inputs"].tolist() == [2, 3, END]
    assert row["resets"].tolist() == [False, False, True]
    assert (row["id"], row["begins"], row["scale"]) == (1, True, 0.5)
