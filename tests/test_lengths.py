"""Masks, reversal and last steps against loops over plain lists, on all small batches."""

from __future__ import annotations

import warnings
from itertools import product

import pytest
import torch

from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.lengths import last_valid, length_mask, permute_rows, put_rows, reverse_padded, take_rows, zero_padding

torch.set_num_threads(1)

BATCHES = [(steps, list(lengths)) for steps in (0, 1, 2, 3) for lengths in product(range(steps + 1), repeat=2)]
batches = pytest.mark.parametrize(("steps", "lengths"), BATCHES, ids=str)


def numbered(batch_size: int, steps: int, *shape: int) -> torch.Tensor:
    """Return a batch in which every number is another one, and none is 0."""
    count = batch_size * steps
    for size in shape:
        count *= size
    return (1.0 + torch.arange(count)).reshape(batch_size, steps, *shape)


@batches
def test_length_mask(steps, lengths):
    mask = length_mask(torch.tensor(lengths), steps)
    assert mask.dtype == torch.bool
    assert mask.shape == (2, steps)
    assert mask.tolist() == [[t < length for t in range(steps)] for length in lengths]


def test_length_mask_of_no_rows():
    assert length_mask(torch.zeros(0, dtype=torch.long), 3).shape == (0, 3)


@batches
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_reverse_padded(steps, lengths, shape):
    inputs = numbered(2, steps, *shape)
    reversed_inputs = reverse_padded(inputs, torch.tensor(lengths))
    assert reversed_inputs.shape == inputs.shape
    for row, length in enumerate(lengths):
        expected = [inputs[row, length - 1 - t if t < length else t].tolist() for t in range(steps)]
        assert reversed_inputs[row].tolist() == expected


@batches
def test_reversing_twice_changes_nothing(steps, lengths):
    inputs, rows = numbered(2, steps, 2), torch.tensor(lengths)
    assert torch.equal(reverse_padded(reverse_padded(inputs, rows), rows), inputs)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_without_lengths_all_steps_count(steps):
    inputs = numbered(2, steps, 2)
    full = torch.full((2,), steps)
    assert torch.equal(reverse_padded(inputs, None), reverse_padded(inputs, full))
    assert torch.equal(last_valid(inputs, None), last_valid(inputs, full))


def test_rows_are_never_mixed():
    inputs, lengths = numbered(3, 2), torch.tensor([5, -1, 2])  # what no check saw, as on a GPU
    assert reverse_padded(inputs, lengths).tolist() == [[2, 1], [3, 4], [6, 5]]


def test_reverse_padded_works_on_token_ids():
    tokens = torch.tensor([[5, 6, 0], [7, 8, 9]])
    assert reverse_padded(tokens, torch.tensor([2, 3])).tolist() == [[6, 5, 0], [9, 8, 7]]


@batches
def test_last_valid(steps, lengths):
    outputs = numbered(2, steps, 3)
    last = last_valid(outputs, torch.tensor(lengths))
    assert last.shape == (2, 3)
    for row, length in enumerate(lengths):
        expected = outputs[row, length - 1] if length else torch.zeros(3)
        assert torch.equal(last[row], expected)


def test_last_valid_keeps_the_dtype():
    assert last_valid(torch.ones(2, 3, 4, dtype=torch.float64), torch.tensor([0, 2])).dtype == torch.float64


def test_gradients_reach_valid_steps_only():
    outputs = numbered(3, 3, 1).requires_grad_()
    last_valid(outputs, torch.tensor([0, 1, 3])).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.squeeze(2).tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


@batches
def test_zero_padding_clears_whatever_stands_there_and_lets_no_gradient_through(steps, lengths):
    rows = torch.tensor(lengths)
    inputs = numbered(2, steps, 3)
    mask = length_mask(rows, steps).unsqueeze(-1)
    spoilt = torch.where(mask, inputs, torch.nan).requires_grad_()
    cleared = zero_padding(spoilt, rows)
    assert torch.equal(cleared, inputs * mask)
    (gradient,) = torch.autograd.grad(cleared.sum(), spoilt)
    assert torch.equal(gradient, mask.expand_as(inputs).float())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_a_traced_program_clears_the_padding_of_other_lengths():
    inputs = numbered(2, 3, 2)
    traced = torch.jit.trace(zero_padding, (inputs, torch.tensor([3, 3])))
    rows = torch.tensor([1, 2])
    assert torch.equal(traced(inputs, rows), zero_padding(inputs, rows))


def test_rows_in_another_order_have_gradients_of_any_order():
    order = torch.tensor([2, 0, 1])
    values = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(permute_rows(values, order, order.argsort()), values[order])
    torch.autograd.gradcheck(lambda x: permute_rows(x, order, order.argsort()) ** 2, values)
    torch.autograd.gradgradcheck(lambda x: permute_rows(x, order, order.argsort()) ** 2, values)


def test_rows_that_are_taken_and_put_back_have_gradients_twice():
    values, index = torch.randn(5, 2, dtype=torch.double, requires_grad=True), torch.tensor([3, 0, 4])
    assert torch.autograd.gradcheck(lambda given: take_rows(given, index), values)
    assert torch.autograd.gradgradcheck(lambda given: take_rows(given, index), values)
    fewer = values[:3].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda given: put_rows(given, index, 6), fewer)
    assert torch.autograd.gradgradcheck(lambda given: put_rows(given, index, 6), fewer)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
@pytest.mark.parametrize("name", ["lstm", "mogrifier", "mingru"])
def test_lengths_of_any_type_of_whole_numbers(name, dtype):
    layer = Recurrent(cell=name, input_size=3, hidden_size=4, bidirectional=True)
    inputs, lengths = torch.randn(3, 300, 3), torch.tensor([255, 0, 7])  # T is no number in eight bits
    lengths = lengths.clamp(max=torch.iinfo(dtype).max)
    torch.testing.assert_close(layer(inputs, lengths.to(dtype)), layer(inputs, lengths))


@pytest.mark.parametrize("name", ["lstm", "slstm", "mut1"])
def test_traced_layers_give_the_same_for_other_rows(name):
    layer = Recurrent(cell=name, input_size=3, hidden_size=4, bidirectional=True, backend="fused").eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's tracer warns of each loop, and that it is old
        traced = torch.jit.trace(layer, (torch.randn(3, 5, 3), torch.tensor([5, 2, 3])), check_trace=False)
        inputs, lengths = torch.randn(3, 5, 3), torch.tensor([1, 5, 0])
        torch.testing.assert_close(traced(inputs, lengths)[0], layer(inputs, lengths)[0])
