"""Laws of the sampler: which samples make which batch, on every process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rnnzoo.data.sampler import LengthBucketSampler
from rnnzoo.errors import InputError

COUNTS = (0, 1, 2, 5, 31, 64, 101, 1001)
WORLDS = (1, 2, 3)
SIZES = ({"batch_size": 1}, {"batch_size": 4}, {"batch_size": 200}, {"max_tokens": 40}, {"max_tokens": 1000})


def lengths_of(count):
    return np.random.default_rng(count).integers(0, 60, count).tolist()


def ranks(count, world, *, epoch=0, seed=0, shuffle, **size):
    """Return the batches of each process."""
    lengths = lengths_of(count)
    found = []
    for rank in range(world):
        sampler = LengthBucketSampler(lengths, shuffle=shuffle, seed=seed, rank=rank, world_size=world, **size)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(sampler) == len(batches), "the length is what is handed out"
        found.append(batches)
    return found


def flat(batches):
    return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", COUNTS)
def test_evaluation_hands_out_every_sample_exactly_once_where_there_are_batches_for_all(count, world, size):
    found = ranks(count, world, shuffle=False, **size)
    batches = list(dict.fromkeys(tuple(batch) for part in found for batch in part))
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(count))
    assert sum(map(len, found)) == (max(len(batches), world) if count else 0), "an empty process gets the first again"
    assert all(found) == (count > 0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("count", COUNTS)
def test_training_hands_out_every_sample_and_equally_many_batches(count, world, size):
    found = ranks(count, world, shuffle=True, **size)
    assert len({len(batches) for batches in found}) == 1, "a process that lacks a batch hangs the others"
    everything = [tuple(batch) for batches in found for batch in batches]
    assert set(itertools.chain.from_iterable(everything)) == set(range(count))
    once = set(everything)
    assert len(list(itertools.chain.from_iterable(once))) == count, "a sample is in two different batches"
    assert len(everything) - len(once) < world, "more batches are repeated than the last round needs"


@pytest.mark.parametrize("world", WORLDS)
def test_the_batches_of_all_processes_are_those_of_one(world):
    alone = [tuple(batch) for batch in ranks(1001, 1, shuffle=True, batch_size=8)[0]]
    shared = ranks(1001, world, shuffle=True, batch_size=8)
    for step, batch in enumerate(alone):
        assert tuple(shared[step % world][step // world]) == batch


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_are_a_function_of_seed_epoch_and_rank(shuffle, size):
    first = ranks(301, 2, epoch=3, seed=5, shuffle=shuffle, **size)
    np.random.seed(1)  # the global state plays no part
    assert ranks(301, 2, epoch=3, seed=5, shuffle=shuffle, **size) == first


def test_a_sampler_that_went_through_other_epochs_gives_the_same_batches():
    fresh = LengthBucketSampler(lengths_of(301), batch_size=4, shuffle=True, seed=2)
    fresh.set_epoch(4)
    used = LengthBucketSampler(lengths_of(301), batch_size=4, shuffle=True, seed=2)
    for epoch in (0, 1, 4):
        used.set_epoch(epoch)
        last = list(used)
    assert last == list(fresh) == list(fresh)


@pytest.mark.parametrize("size", [{"batch_size": 4}, {"max_tokens": 200}], ids=str)
def test_another_epoch_or_seed_has_another_order_in_training(size):
    orders = [ranks(301, 1, epoch=epoch, seed=seed, shuffle=True, **size)[0] for epoch in (0, 1) for seed in (0, 1)]
    sets = [{frozenset(batch) for batch in batches} for batches in orders]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert all(one != other for one, other in itertools.combinations(sets, 2)), "the same batches in another order"


def test_evaluation_is_in_order_of_length_whatever_the_epoch_and_seed():
    lengths = lengths_of(101)
    (batches,) = ranks(101, 1, shuffle=False, batch_size=4)
    assert [lengths[sample] for sample in flat(batches)] == sorted(lengths)
    assert ranks(101, 1, epoch=7, seed=9, shuffle=False, batch_size=4) == [batches]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("limit", [1, 10, 59, 100, 1000])
def test_padded_tokens_stay_within_the_limit(shuffle, limit):
    lengths = lengths_of(1001)
    for batch in ranks(1001, 1, shuffle=shuffle, max_tokens=limit)[0]:
        longest = max(1, *(lengths[sample] for sample in batch), 1)
        assert len(batch) == 1 or len(batch) * longest <= limit


@pytest.mark.parametrize(("count", "limit"), [(1, 9), (5, 12), (60, 40), (3000, 300), (3000, 45)])
@pytest.mark.parametrize("world", [1, 2])
def test_each_epoch_has_as_many_batches_of_limited_size(count, limit, world):
    lengths = np.random.default_rng(count).integers(1, 40, count)
    sampler = LengthBucketSampler(lengths, max_tokens=limit, shuffle=True, world_size=world)
    counts = set()
    for epoch in range(12):
        sampler.set_epoch(epoch)
        batches = sampler.batches()
        assert sorted(sample for batch in batches for sample in batch) == list(range(count))
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= limit for batch in batches)
        counts.add((len(batches), len(sampler), len(list(sampler))))
    assert len(counts) == 1


def test_max_tokens_takes_the_place_of_batch_size():
    sampler = LengthBucketSampler([2] * 10, batch_size=1, max_tokens=10, shuffle=False)
    assert [len(batch) for batch in sampler] == [5, 5]


@pytest.mark.parametrize("shuffle", [True, False])
def test_batch_size_is_kept(shuffle):
    sizes = sorted(len(batch) for batch in ranks(101, 1, shuffle=shuffle, batch_size=4)[0])
    assert sizes == [1] + [4] * 25


def test_training_batches_pad_little_and_are_in_no_order_of_length():
    lengths = lengths_of(1001)
    batches = ranks(1001, 1, shuffle=True, batch_size=8)[0]
    padded = sum(len(batch) * max(lengths[sample] for sample in batch) for batch in batches)
    assert padded < 1.15 * sum(lengths)
    longest = [max(lengths[sample] for sample in batch) for batch in batches]
    assert longest != sorted(longest)
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3


@pytest.mark.parametrize(("size", "got"), [({"batch_size": 0}, "0"), ({"batch_size": -2}, "-2"), ({}, "None")])
def test_sizes_below_one_are_refused(size, got):
    with pytest.raises(InputError, match=rf"at least 1.*got {got}$"):
        LengthBucketSampler([1, 2], shuffle=True, **size)


def test_max_tokens_below_one_is_refused_by_its_own_number():
    with pytest.raises(InputError, match=r"got (max_tokens )?0"):
        LengthBucketSampler([1, 2], shuffle=True, batch_size=32, max_tokens=0)
