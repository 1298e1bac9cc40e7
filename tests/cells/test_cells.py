"""One step of every cell: its equations, its initialisation, and what it refuses."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from catalogue import CELLS, load_weights
from references import sequence

from rnnzoo.backends import reference
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import LinearCell
from rnnzoo.cells.wrappers import RecurrentDropout
from rnnzoo.errors import InputError

torch.set_num_threads(1)

cells = pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
blocks = pytest.mark.parametrize(
    "case", [case for case in CELLS.values() if case.reference.gates], ids=lambda c: c.name
)
gated = pytest.mark.parametrize("case", [case for case in CELLS.values() if case.kind == "gated"], ids=lambda c: c.name)
B, T, I, H = 3, 6, 5, 4  # noqa: E741


class DecayCell(LinearCell):
    """h' = h / 2 + x: a cell whose state enters by no product."""

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size, input_size))

    def project(self, inputs):
        return inputs @ self.weight.T

    def coefficients(self, projected):
        return torch.full_like(projected, 0.5), projected

    def readout(self, projected, hidden):
        return hidden


def build(case, dtype=torch.float64):
    """Return a cell with the reference's weights, these weights, inputs [B, T, I] and a state."""
    cell = make_cell(case.name, input_size=I, hidden_size=H).to(dtype)
    weights = case.reference.weights(3, input_size=I, hidden_size=H)
    load_weights(cell, weights)
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((B, T, I))
    state = case.reference.state(rng, B, H)
    return cell, weights, inputs, state


def to_torch(case, cell, state):
    first = cell.initial_state(1)
    return type(first)(*(torch.from_numpy(field).to(like.dtype) for field, like in zip(state, first, strict=True)))


@cells
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_one_step_equals_the_reference(case, dtype):
    cell, weights, inputs, state = build(case, dtype)
    output, after = cell.step(cell.project(torch.from_numpy(inputs[:, 0]).to(dtype)), to_torch(case, cell, state))
    assert output.dtype == dtype
    assert output.shape == (B, cell.output_size)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for row in range(B):
        expected, final = case.reference.step(weights, inputs[row, 0], tuple(field[row] for field in state))
        np.testing.assert_allclose(output[row].detach().numpy(), expected, rtol=tolerance, atol=tolerance)
        for name, value in zip(case.reference.fields, final, strict=True):
            got = getattr(after, name)[row].detach().numpy()
            np.testing.assert_allclose(got, value, rtol=tolerance, atol=tolerance, err_msg=name)


@cells
def test_whole_sequence_equals_the_reference(case):
    cell, weights, inputs, state = build(case)
    lengths = [T, 0, 2]
    outputs, after = reference.run(cell, torch.from_numpy(inputs), torch.tensor(lengths), to_torch(case, cell, state))
    expected, final = sequence(case.reference.step, weights, inputs, lengths, state)
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
    for name, value in zip(case.reference.fields, final, strict=True):
        np.testing.assert_allclose(getattr(after, name).detach().numpy(), value, rtol=1e-12, atol=1e-12, err_msg=name)


@cells
def test_swapped_gates_would_show(case):
    """The test above means something: no two gates of the reference can be exchanged unnoticed."""
    _, weights, inputs, state = build(case)
    count = len(case.reference.gates)
    before, final = sequence(case.reference.step, weights, inputs, [T] * B, state)
    for name in ("input_weight", "recurrent_weight", "bias"):
        for first, second in combinations(range(count), 2):
            order = list(range(count))
            order[first], order[second] = second, first
            blocks = np.split(weights[name], count)
            swapped = {**weights, name: np.concatenate([blocks[place] for place in order])}
            after, other = sequence(case.reference.step, swapped, inputs, [T] * B, state)
            assert np.abs(after - before).max() > 1e-2, (name, first, second)
            assert np.abs(other[-1] - final[-1]).max() > 1e-3, (name, first, second)


@cells
def test_every_parameter_and_field_of_the_state_matters(case):
    cell, _, inputs, state = build(case)
    fields = to_torch(case, cell, state)
    for field in fields:
        field.requires_grad_()
    outputs, _ = reference.run(cell, torch.from_numpy(inputs), None, fields)
    outputs.sum().backward()
    for name, parameter in cell.named_parameters():
        assert parameter.grad is not None, name
        for block in parameter.grad.chunk(max(1, parameter.shape[0] // H)):
            assert block.abs().max() > 0, name
    for name, field in zip(case.reference.fields, fields, strict=True):
        moves = field.grad is not None and bool(field.grad.any())
        assert moves != (name in case.reference.passive), name


@cells
def test_a_step_changes_nothing_in_place(case):
    cell, _, inputs, state = build(case)
    projected = cell.project(torch.from_numpy(inputs[:, 0])).detach()
    before, held = projected.clone(), to_torch(case, cell, state)
    copy = [field.clone() for field in held]
    cell.step(projected, held)
    assert torch.equal(projected, before)
    assert all(map(torch.equal, held, copy))


@cells
def test_projection_of_all_steps_is_that_of_each(case):
    cell, _, inputs, _ = build(case)
    inputs = torch.from_numpy(inputs)
    whole = cell.project(inputs)
    assert whole.shape[:2] == (B, T)
    for t in range(T):
        torch.testing.assert_close(whole[:, t], cell.project(inputs[:, t]), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole[0, 0], cell.project(inputs[0, 0]), rtol=1e-12, atol=1e-12)


@cells
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_initial_state_is_zeros_of_the_parameters_type(case, dtype, batch_size):
    state = make_cell(case.name, input_size=I, hidden_size=H).to(dtype).initial_state(batch_size)
    expected = case.reference.state(np.random.default_rng(0), batch_size, H)
    for field, like in zip(state, expected, strict=True):
        assert field.shape == like.shape
        assert field.dtype in (dtype, torch.promote_types(dtype, torch.float32))
        assert not field.any()
        assert not field.requires_grad


@cells
def test_sizes(case):
    cell = make_cell(case.name, input_size=I, hidden_size=H)
    assert (cell.input_size, cell.hidden_size) == (I, H)
    assert cell.step(cell.project(torch.zeros(B, I)), cell.initial_state(B))[0].shape == (B, cell.output_size)


@blocks
@pytest.mark.parametrize(("input_size", "hidden_size"), [(7, 16), (1, 1), (64, 3)])
def test_recurrent_weights_are_orthogonal_block_by_block(case, input_size, hidden_size):
    cell = make_cell(case.name, input_size=input_size, hidden_size=hidden_size)
    blocks = cell.recurrent_weight.detach().double().chunk(len(case.reference.gates))
    assert len(blocks) == len(case.reference.gates)
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(hidden_size).double(), rtol=0, atol=1e-5)
    if hidden_size > 1:
        assert all(not torch.allclose(one, other) for one, other in combinations(blocks, 2))


@blocks
@pytest.mark.parametrize("input_size", [1, 16, 100])
def test_input_weights_are_uniform(case, input_size):
    torch.manual_seed(0)
    weight = make_cell(case.name, input_size=input_size, hidden_size=200).input_weight.detach()
    bound = input_size**-0.5
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.95 * bound
    assert weight.mean().abs() < 0.15 * bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


@blocks
def test_biases_are_zero_but_for_the_forget_gate(case):
    cell = make_cell(case.name, input_size=I, hidden_size=H)
    for gate, block in zip(case.reference.gates, cell.bias.detach().chunk(len(case.reference.gates)), strict=True):
        assert torch.equal(block, torch.full((H,), case.reference.initial_bias.get(gate, 0.0))), gate
    for name in case.reference.vectors:
        assert not getattr(cell, name).any()


@blocks
@pytest.mark.parametrize("forget_bias", [0.0, -1.0, 2.5])
def test_forget_bias(case, forget_bias):
    if "forget_bias" not in case.options:
        return
    cell = make_cell(case.name, input_size=I, hidden_size=H, forget_bias=forget_bias)
    (gate,) = case.reference.initial_bias
    expected = torch.zeros(len(case.reference.gates), H)
    expected[case.reference.gates.index(gate)] = forget_bias * case.reference.initial_bias[gate]
    assert torch.equal(cell.bias.detach(), expected.flatten())


@cells
def test_every_option_changes_the_result(case):
    inputs = torch.randn(B, T, H)  # as long as the state, for what a cell does only then
    for name, value in case.options.items():
        results = []
        for options in ({}, {name: value}):
            torch.manual_seed(0)
            cell = make_cell(case.name, input_size=H, hidden_size=H, **options)
            results.append(reference.run(cell, inputs, None, None)[0])
        assert results[0].shape != results[1].shape or not torch.allclose(*results), name


@cells
@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", ["input_size", "hidden_size"])
def test_sizes_below_one_are_refused(case, name, size):
    with pytest.raises(InputError, match=rf"{name}: expected at least 1, got {size}"):
        make_cell(case.name, **{"input_size": I, "hidden_size": H, name: size})


@cells
def test_unknown_options_are_refused(case):
    listed = ", ".join(case.options) or "no options"
    with pytest.raises(InputError, match=rf"options of cell '{case.name}': expected .*{listed}, got 'no_such_option'"):
        make_cell(case.name, input_size=I, hidden_size=H, no_such_option=1)


def test_a_mistyped_option_is_put_right():
    with pytest.raises(InputError, match="did you mean 'forget_bias'"):
        make_cell("lstm", input_size=I, hidden_size=H, forget_bais=0.0)


@pytest.mark.parametrize(("name", "meant"), [("lstmm", "lstm"), ("LSTM", None), ("gru_reset", "gru_reset_before")])
def test_unknown_cells_are_refused(name, meant):
    with pytest.raises(InputError, match="cell: expected one of") as caught:
        make_cell(name, input_size=I, hidden_size=H)
    assert all(known in str(caught.value) for known in CELLS)
    assert meant is None or f"did you mean '{meant}'" in str(caught.value)


@gated
def test_recurrent_dropout_masks_the_product_alone(case):
    """R (m ⊙ h) is R diag(m) times h: what is carried over beside the product is not dropped."""
    cell, weights, inputs, state = build(case)
    wrapped = RecurrentDropout(cell, dropout=0.5)
    torch.manual_seed(2)
    start = wrapped.wrap(to_torch(case, cell, state))
    assert set(start.mask.unique().tolist()) == {0.0, 2.0}
    outputs, final = reference.run(wrapped, torch.from_numpy(inputs), None, start)
    assert torch.equal(final.mask, start.mask)
    for row in range(B):
        masked = {**weights, "recurrent_weight": weights["recurrent_weight"] * start.mask[row].numpy()}
        own = tuple(field[row : row + 1] for field in state)
        expected, after = sequence(case.reference.step, masked, inputs[row : row + 1], [T], own)
        np.testing.assert_allclose(outputs[row : row + 1].detach().numpy(), expected, rtol=1e-12, atol=1e-12)
        for got, value in zip(final.inner, after, strict=True):
            np.testing.assert_allclose(got[row : row + 1].detach().numpy(), value, rtol=1e-12, atol=1e-12)


def test_recurrent_dropout_needs_a_product():
    with pytest.raises(InputError, match="recurrent_dropout"):
        RecurrentDropout(DecayCell(input_size=I, hidden_size=H), dropout=0.5)
