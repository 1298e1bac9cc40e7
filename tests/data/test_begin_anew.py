"""Lanes of running text that begin anew now and then, in training alone."""

from __future__ import annotations

import pytest

from rnnzoo.data import LanguageData
from rnnzoo.data.lanes import LaneSampler
from rnnzoo.errors import InputError


def begins(sampler):
    return [[span.begins for span in batch] for batch in sampler]


def test_a_share_of_chunks_begins_anew_and_reads_the_same_tokens():
    usual = LaneSampler(4000, lanes=4, chunk_length=5)
    anew = LaneSampler(4000, lanes=4, chunk_length=5, anew=0.25)
    assert [[span[:2] for span in batch] for batch in usual] == [[span[:2] for span in batch] for batch in anew]
    assert sum(sum(batch) for batch in begins(usual)) == 4  # each lane once
    found = begins(anew)
    assert all(found[0])
    assert 0.2 < sum(sum(batch) for batch in found[1:]) / (4 * (len(found) - 1)) < 0.3
    assert begins(anew) == found
    anew.set_epoch(1)
    assert begins(anew) != found


def test_evaluation_never_forgets():
    data = LanguageData(synthetic="markov_text", batch_size=2, chunk_length=7, begin_anew=1.0)
    assert all(batch.begins.all() for batch in data.train_dataloader())
    assert [bool(batch.begins.any()) for batch in data.val_dataloader()][:3] == [True, False, False]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_the_share_is_a_share(share):
    with pytest.raises(InputError, match="begin_anew"):
        LanguageData(synthetic="markov_text", begin_anew=share)
