"""Pooling against plain loops over the valid steps."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from rnnzoo.errors import InputError
from rnnzoo.layers.pooling import POOLINGS, Pooling
from rnnzoo.layers.recurrent import Recurrent

torch.set_num_threads(1)

SIZE = 6
LENGTHS = (5, 0, 1, 3)
DIRECTIONS = pytest.mark.parametrize("bidirectional", [False, True])


def make_outputs(lengths=LENGTHS, steps=5, padding=0.0):
    torch.manual_seed(0)
    outputs = torch.randn(len(lengths), steps, SIZE)
    outside = torch.arange(steps) >= torch.tensor(lengths).unsqueeze(1)
    outputs[outside] = padding
    return outputs, torch.tensor(lengths)


def plain(pooling, outputs, lengths):
    """Pool row by row, name by name."""
    rows = []
    for row, length in zip(outputs, lengths.tolist(), strict=True):
        steps, parts = row[:length], []
        for name in pooling.names:
            if length == 0:
                parts.append(torch.zeros(SIZE))
            elif name == "last" and pooling.bidirectional:
                parts.append(torch.cat([steps[-1, : SIZE // 2], steps[0, SIZE // 2 :]]))
            elif name == "last":
                parts.append(steps[-1])
            elif name == "attention":
                hidden, _, vector = pooling.attention
                scores = torch.tanh(steps @ hidden.weight.T + hidden.bias) @ vector.weight[0]
                weights = scores.exp() / scores.exp().sum()
                parts.append(sum(weight * step for weight, step in zip(weights, steps, strict=True)))
            else:
                parts.append(steps.mean(0) if name == "mean" else steps.max(0).values)
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@DIRECTIONS
@pytest.mark.parametrize("name", POOLINGS)
def test_each_pooling_sees_the_valid_steps_only(name, bidirectional):
    pooling = Pooling([name], input_size=SIZE, bidirectional=bidirectional)
    outputs, lengths = make_outputs()
    found = pooling(outputs, lengths)
    assert found.shape == (4, SIZE)
    assert pooling.output_size == SIZE
    assert_close(found, plain(pooling, outputs, lengths))
    assert (found[1] == 0).all()


@DIRECTIONS
@pytest.mark.parametrize("name", POOLINGS)
def test_padding_has_no_influence(name, bidirectional):
    pooling = Pooling([name], input_size=SIZE, bidirectional=bidirectional)
    expected = pooling(*make_outputs())
    for garbage in (1e4, -1e4):
        outputs, lengths = make_outputs(padding=garbage)
        outputs.requires_grad_()
        found = pooling(outputs, lengths)
        assert torch.equal(found, expected)
        (gradient,) = torch.autograd.grad(found.square().sum(), outputs)
        assert gradient.isfinite().all()
        assert (gradient[torch.arange(5) >= lengths.unsqueeze(1)] == 0).all()


@DIRECTIONS
@pytest.mark.parametrize("name", POOLINGS)
def test_wider_padding_has_no_influence(name, bidirectional):
    pooling = Pooling([name], input_size=SIZE, bidirectional=bidirectional)
    outputs, lengths = make_outputs()
    wide = torch.cat([outputs, torch.full((4, 3, SIZE), 7.0)], dim=1)
    assert_close(pooling(wide, lengths), pooling(outputs, lengths))


@DIRECTIONS
def test_several_poolings_are_concatenated_in_the_order_given(bidirectional):
    outputs, lengths = make_outputs()
    for names in itertools.permutations(POOLINGS, 3):
        pooling = Pooling(names, input_size=SIZE, bidirectional=bidirectional)
        found = pooling(outputs, lengths)
        assert pooling.output_size == found.shape[1] == 3 * SIZE
        assert_close(found, plain(pooling, outputs, lengths))


@DIRECTIONS
@pytest.mark.parametrize("name", POOLINGS)
def test_batches_without_steps(name, bidirectional):
    pooling = Pooling([name], input_size=SIZE, bidirectional=bidirectional)
    found = pooling(torch.zeros(2, 0, SIZE), torch.zeros(2, dtype=torch.long))
    assert torch.equal(found, torch.zeros(2, SIZE))


@pytest.mark.parametrize("name", POOLINGS)
def test_low_precision_stays_low_and_close(name):
    pooling = Pooling([name], input_size=SIZE)
    outputs, lengths = make_outputs()
    expected = pooling(outputs, lengths)
    found = pooling.bfloat16()(outputs.bfloat16(), lengths)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), expected, atol=0.05, rtol=0.05)


def test_maximum_of_negative_numbers_is_negative():
    outputs = torch.full((1, 3, SIZE), -5.0)
    assert (Pooling(["max"], input_size=SIZE)(outputs, torch.tensor([2])) == -5).all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_last_of_a_bidirectional_layer_is_its_final_state(cell):
    layer = Recurrent(cell=cell, input_size=2, hidden_size=3, bidirectional=True)
    lengths = torch.tensor([4, 1, 3])
    outputs, (forward, backward) = layer(torch.randn(3, 4, 2), lengths)
    found = Pooling(["last"], input_size=6, bidirectional=True)(outputs, lengths)
    assert_close(found, torch.cat([forward.hidden, backward.hidden], dim=1))


def test_only_attention_has_parameters():
    assert not list(Pooling(["last", "mean", "max"], input_size=SIZE).parameters())
    sizes = [tuple(parameter.shape) for parameter in Pooling(["attention"], input_size=SIZE).parameters()]
    assert sizes == [(SIZE, SIZE), (SIZE,), (1, SIZE)]


@pytest.mark.parametrize("names", [[], (), ["mean", "mean"], ["max", "last", "max"]])
def test_none_and_repeated_names_are_refused(names):
    with pytest.raises(InputError, match="pooling: expected one or more different names"):
        Pooling(names, input_size=SIZE)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match=r"pooling: expected one of attention, last, max, mean.*did you mean 'mean'"):
        Pooling(["last", "meen"], input_size=SIZE)
