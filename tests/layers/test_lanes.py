"""Lanes of a stream: chunks with a carried state equal the whole, a reset is a fresh start, the backend runs once."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.layers import Recurrent
from rnnzoo.layers.lanes import carry, restore, resume, run_lanes
from rnnzoo.state import flatten

CELLS = ("rnn", "lstm", "gru", "gru_reset_before")
B, T, INPUT, H = 3, 9, 4, 5


def layers(cell, **options):
    torch.manual_seed(0)
    return Recurrent(cell=cell, input_size=INPUT, hidden_size=H, **{"num_layers": 2, **options}).double()


def inputs():
    torch.manual_seed(1)
    return torch.randn(B, T, INPUT, dtype=torch.float64)


def resets(*places):
    found = torch.zeros(B, T, dtype=torch.bool)
    for place in places:
        found[place] = True
    return found


def full():
    return torch.full((B,), T)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("size", [1, 4, 9])
def test_chunks_with_a_carried_state_equal_the_whole(cell, size):
    module, values = layers(cell), inputs()
    marks = resets((0, 4), (1, 0), (1, 7), (2, 2), (2, 3))
    whole, last = run_lanes(module, values, full(), marks, None)
    state, parts = None, []
    for start in range(0, T, size):
        part = values[:, start : start + size]
        lengths = torch.full((B,), part.shape[1])
        output, after = run_lanes(module, part, lengths, marks[:, start : start + size], state)
        parts.append(output)
        state = resume(module, carry(module, after))
    assert torch.allclose(torch.cat(parts, dim=1), whole)
    for one, other in zip(flatten(after), flatten(last), strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("cell", CELLS)
def test_a_reset_is_a_fresh_start_for_its_row_alone(cell):
    module, values = layers(cell, learn_initial_state=True), inputs()
    for parameter in module.initial:
        torch.nn.init.normal_(parameter)
    found, state = run_lanes(module, values, full(), resets((1, 5)), None)
    plain, plain_state = module(values)
    fresh, fresh_state = module(values[1:2, 5:])
    assert torch.allclose(found[[0, 2]], plain[[0, 2]])
    assert torch.allclose(found[1, :5], plain[1, :5])
    assert torch.allclose(found[1, 5:], fresh[0])
    for one, other, new in zip(*map(flatten, (state, plain_state, fresh_state)), strict=True):
        assert torch.allclose(one[[0, 2]], other[[0, 2]])
        assert torch.allclose(one[1], new[0])


@pytest.mark.parametrize("cell", CELLS)
def test_lanes_that_end_keep_their_state_and_a_reset_past_the_end_is_none(cell):
    module, values = layers(cell), inputs()
    lengths = torch.tensor([T, 4, 0])
    before = module(torch.randn(B, 3, INPUT, dtype=torch.float64))[1]
    marks = resets((0, 3), (1, 2), (1, 6), (2, 1))
    found, state = run_lanes(module, values, lengths, marks, before)
    for row, length in enumerate(lengths.tolist()):
        alone, after = run_lanes(
            module,
            values[row : row + 1, :length],
            lengths[row : row + 1],
            marks[row : row + 1, :length],
            tuple(type(each)(*(field[row : row + 1] for field in each)) for each in before),
        )
        assert torch.allclose(found[row, :length], alone[0])
        assert (found[row, length:] == 0).all()
        for one, other in zip(flatten(state), flatten(after), strict=True):
            assert torch.allclose(one[row], other[0])


@pytest.mark.parametrize("marks", [resets(), resets((0, 0), (1, 0)), resets((0, 2), (1, 5), (2, 1), (2, 8))])
def test_the_layers_run_once_whatever_is_reset(marks, monkeypatch):
    module, values, calls = layers("lstm"), inputs(), []
    forward = module.forward
    monkeypatch.setattr(module, "forward", lambda *arguments: calls.append(arguments) or forward(*arguments))
    run_lanes(module, values, full(), marks, None)
    assert len(calls) == 1
    if not marks[:, 1:].any():
        assert calls[0][0] is values, "a chunk without a reset inside is not copied"
        assert calls[0][1] is None, "and runs without lengths"


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_flow_within_a_run_and_stop_at_its_edges(cell):
    module, values = layers(cell), inputs().requires_grad_()
    found, state = run_lanes(module, values, full(), resets((0, 5)), None)
    found[:, -1].sum().backward()
    assert (values.grad[0, :5] == 0).all()
    assert (values.grad[0, 5:] != 0).all()
    assert (values.grad[1] != 0).all()
    assert not any(field.requires_grad for field in flatten(carry(module, state)))


def test_dropout_masks_of_the_state_are_drawn_anew_for_each_chunk():
    module = layers("lstm", recurrent_dropout=0.5).train()
    _, state = run_lanes(module, inputs(), full(), resets(), None)
    carried = carry(module, state)
    assert not any(hasattr(each, "mask") for each in carried)
    first, second = resume(module, carried), resume(module, carried)
    assert torch.equal(first[0].inner.hidden, second[0].inner.hidden)
    assert not torch.equal(first[0].mask, second[0].mask)


@pytest.mark.parametrize("cell", ["lstm", "slstm", "mlstm", "rg_lru", "mingru", "lru", "qrnn"])
def test_what_is_kept_in_more_digits_than_the_weights_stays_so(cell):
    module = Recurrent(cell=cell, input_size=INPUT, hidden_size=H).bfloat16()
    first = module.initial_state(B)
    _, state = module(inputs().bfloat16())
    carried = carry(module, state)
    assert [field.dtype for field in flatten(carried)] == [field.dtype for field in flatten(first)]
    assert all(torch.equal(*pair) for pair in zip(flatten(carried), flatten(state), strict=True))
    back = restore(module, flatten(carried))
    assert all(torch.equal(*pair) for pair in zip(flatten(back), flatten(carried), strict=True))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_state_goes_into_a_list_of_tensors_and_back(cell, dropout):
    if cell == "gru_reset_before" and dropout:
        pytest.skip("no cell for recurrent dropout")
    module = layers(cell, recurrent_dropout=dropout)
    carried = carry(module, module(inputs())[1])
    back = restore(module, flatten(carried))
    assert [type(each) for each in back] == [type(each) for each in carried]
    assert all(torch.equal(*pair) for pair in zip(flatten(back), flatten(carried), strict=True))
