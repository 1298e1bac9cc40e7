"""Embedding dropout: whole rows of the table, for a whole batch."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.errors import InputError
from rnnzoo.layers.embedding import PADDING, WordEmbedding

V, E, P = 400, 5, 0.25


def make(embedding_dropout=P, **options):
    torch.manual_seed(0)
    return WordEmbedding(vocabulary_size=V, size=E, embedding_dropout=embedding_dropout, **options)


def all_tokens():
    return torch.arange(2, V).repeat(3, 2)  # every word six times


def test_a_row_is_dropped_wherever_it_stands_or_scaled():
    embedding = make()
    tokens = all_tokens()
    ratios = embedding(tokens) / embedding.table(tokens)  # [B, T, E]
    dropped = ratios.eq(0)
    torch.testing.assert_close(ratios[~dropped], torch.full_like(ratios[~dropped], 1 / (1 - P)))
    first = dropped[0, : V - 2]
    assert torch.equal(first, first[:, :1].expand_as(first))  # all numbers of a vector together
    assert torch.equal(dropped, first.repeat(3, 2, 1))  # all places of a word together
    assert dropped.float().mean().item() == pytest.approx(P, abs=0.06)
    assert not torch.equal(embedding(tokens), embedding(tokens))  # the next batch draws anew


def test_equals_a_lookup_in_a_dropped_table_with_its_gradient():
    embedding = make().double()
    tokens = all_tokens()[:, :50]
    held = embedding.hold_masks()
    weight = embedding.table.weight.detach().clone().requires_grad_()
    expected = torch.nn.functional.embedding(tokens, weight * held.rows, PADDING)
    outputs = held(tokens)
    torch.testing.assert_close(outputs, expected)
    gradient = torch.randn_like(outputs)
    outputs.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(embedding.table.weight.grad, weight.grad)


def test_rows_that_are_drawn_once_hold_for_several_calls():
    embedding = make()
    held = embedding.hold_masks()
    tokens = all_tokens()
    assert torch.equal(torch.stack([held(step) for step in tokens.T], dim=1), held(tokens))
    assert held.table is embedding.table
    assert embedding.rows is None  # nothing is remembered on the table itself


def test_nothing_in_evaluation_and_nothing_at_zero():
    tokens = all_tokens()
    plain = make(0.0)
    state = torch.get_rng_state()
    assert torch.equal(plain(tokens), plain.table(tokens))
    assert torch.equal(torch.get_rng_state(), state)  # not one random number is drawn
    assert plain.hold_masks() is plain
    evaluated = make().eval()
    assert torch.equal(evaluated(tokens), evaluated.table(tokens))
    assert evaluated.hold_masks() is evaluated


def test_no_new_weights():
    assert make().state_dict().keys() == make(0.0).state_dict().keys()


def test_an_unknown_word_by_word_dropout_shares_the_unknown_row():
    embedding = make(0.5, word_dropout=0.99)
    with torch.no_grad():
        embedding.table.weight.fill_(1.0)
    held = embedding.hold_masks()
    outputs = held(torch.full((1, 300), 7))
    assert set(outputs.unique().tolist()) <= {float(held.rows[1]), float(held.rows[7])}


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_outside_the_range_are_refused(share):
    with pytest.raises(InputError, match=r"words\.embedding_dropout"):
        make(share)


def test_half_precision_keeps_its_type():
    embedding = make().bfloat16()
    assert embedding(all_tokens()).dtype == torch.bfloat16
