"""Activation regularisation, and what AWD-LSTM's other means do inside whole models."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.models.losses import activation_penalty

B, T, H = 3, 5, 4


def activations(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(B, T, H, generator=generator, dtype=torch.float64).to(dtype)
    dropped = torch.nn.functional.dropout(raw, 0.5)
    return raw.requires_grad_(), dropped.requires_grad_()


def test_penalties_are_those_of_the_paper_where_nothing_is_padded():
    raw, dropped = activations()
    valid = torch.ones(B, T, dtype=torch.bool)
    items = valid.sum()
    first = activation_penalty(raw, dropped, valid, alpha=2.0, beta=0.0) / items
    torch.testing.assert_close(first, 2.0 * dropped.pow(2).mean())
    second = activation_penalty(raw, dropped, valid, alpha=0.0, beta=3.0) / items
    torch.testing.assert_close(second, 3.0 * (raw[:, 1:] - raw[:, :-1]).pow(2).mean() * (T - 1) / T)
    both = activation_penalty(raw, dropped, valid, alpha=2.0, beta=3.0) / items
    torch.testing.assert_close(both, first + second)


def test_padding_counts_nothing_and_gets_no_gradient():
    raw, dropped = activations()
    lengths = torch.tensor([T, 2, 0])
    valid = torch.arange(T) < lengths.unsqueeze(1)
    total = activation_penalty(raw, dropped, valid, alpha=2.0, beta=3.0)
    alone = sum(
        activation_penalty(raw[row, :length][None], dropped[row, :length][None], valid[row, :length][None],
                           alpha=2.0, beta=3.0)
        for row, length in enumerate(lengths.tolist())
    )  # fmt: skip
    torch.testing.assert_close(total, alone)
    total.backward()
    for each in (raw, dropped):
        assert each.grad[~valid].eq(0).all()
        assert each.grad[valid].abs().max() > 0


def test_no_difference_is_taken_over_the_edge_of_a_document():
    raw, dropped = activations()
    valid = torch.ones(B, T, dtype=torch.bool)
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 0] = resets[1, 2] = True
    found = activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0, resets=resets)
    edge = (raw[1, 2] - raw[1, 1]).square().mean()
    torch.testing.assert_close(found, activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0) - edge)


@pytest.mark.parametrize("steps", [0, 1])
def test_short_chunks(steps):
    raw, dropped = (each[:, :steps] for each in activations())
    valid = torch.ones(B, steps, dtype=torch.bool)
    assert activation_penalty(raw, dropped, valid, alpha=0.0, beta=1.0) == 0
    assert (activation_penalty(raw, dropped, valid, alpha=1.0, beta=1.0) > 0) == (steps > 0)


def test_narrow_outputs_are_summed_in_float32():
    raw, dropped = activations(torch.bfloat16)
    found = activation_penalty(raw, dropped, torch.ones(B, T, dtype=torch.bool), alpha=1.0, beta=1.0)
    assert found.dtype == torch.float32
    found.backward()
    assert raw.grad.dtype == torch.bfloat16
