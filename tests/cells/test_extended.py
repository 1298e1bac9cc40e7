"""Cells that extend the LSTM: what each says of itself, beside the reference."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from catalogue import CELLS, load_weights
from references import normalised, xlstm
from torch import nn
from torch.nn import functional as F

from rnnzoo.backends import reference
from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.state import where

B, T, I, H = 3, 7, 5, 6  # noqa: E741
TWICE = torch.float64


def make(name, **options):
    torch.manual_seed(0)
    return make_cell(name, **{"input_size": I, "hidden_size": H, **options}).double()


def inputs(seed=1):
    return torch.randn(B, T, I, generator=torch.Generator().manual_seed(seed), dtype=TWICE)


def run(cell, values=None, state=None):
    return reference.run(cell, inputs() if values is None else values, None, state)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_lstm_projected_is_that_of_torch(size):
    cell = make("lstm_projected", projection_size=size)
    layer = nn.LSTM(I, H, batch_first=True, proj_size=size, dtype=TWICE) if size < H else None
    if layer is None:  # torch wants less than H: with the identity for P it is the LSTM
        cell.projection_weight.data = torch.eye(H, dtype=TWICE)
        layer = nn.LSTM(I, H, batch_first=True, dtype=TWICE)
    names = {"weight_ih_l0": "input_weight", "weight_hh_l0": "recurrent_weight", "bias_ih_l0": "bias"}
    names |= {"weight_hr_l0": "projection_weight"} if size < H else {}
    with torch.no_grad():
        layer.bias_hh_l0.zero_()
        for theirs, ours in names.items():
            getattr(layer, theirs).copy_(getattr(cell, ours))
    start = cell.initial_state(B)
    start = type(start)(torch.randn_like(start.hidden), torch.randn_like(start.cell))
    expected, (hidden, memory) = layer(inputs(), (start.hidden[None], start.cell[None]))
    outputs, final = run(cell, state=start)
    assert cell.output_size == size
    for got, value in ((outputs, expected), (final.hidden, hidden[0]), (final.cell, memory[0])):
        torch.testing.assert_close(got, value, rtol=1e-12, atol=1e-12)


def test_projections_begin_orthogonal():
    cell = make("lstm_projected", projection_size=4)
    for block in (*cell.recurrent_weight.detach().split(H), cell.projection_weight.detach().T):
        torch.testing.assert_close(block.T @ block, torch.eye(4, dtype=TWICE), rtol=0, atol=1e-5)
    assert torch.equal(cell.bias.detach().split(H)[1], torch.ones(H, dtype=TWICE))
    assert make("lstm_projected", hidden_size=1).output_size == 1


@pytest.mark.parametrize("name", ["lstm_layer_norm", "lstm_state_norm", "gru_layer_norm"])
def test_layer_norm_does_not_feel_the_scale_of_weights(name):
    """A hundredfold weight is no other model: what the norm is for. The same cell without it saturates."""
    cell, larger = make(name), make(name)
    with torch.no_grad():
        larger.input_weight *= 100
        larger.recurrent_weight *= 100
    torch.testing.assert_close(run(larger)[0][:, 0], run(cell)[0][:, 0], rtol=0, atol=1e-3)
    torch.testing.assert_close(run(larger)[0], run(cell)[0], rtol=0, atol=0.05)
    parameters = dict(cell.named_parameters())
    for key in parameters:
        if key.endswith("_gain"):
            assert torch.equal(parameters[key], torch.ones_like(parameters[key]))


def test_only_one_of_both_forms_carries_its_memory_normalised():
    _, plain = run(make("lstm_layer_norm"))
    _, normal = run(make("lstm_state_norm"))
    torch.testing.assert_close(normal.cell.mean(1), torch.zeros(B, dtype=TWICE), rtol=0, atol=1e-12)
    torch.testing.assert_close(normal.cell.var(1, correction=0), torch.ones(B, dtype=TWICE), rtol=1e-2, atol=0)
    assert (plain.cell.mean(1).abs() > 1e-3).all()


@pytest.mark.parametrize("case", ["lstm_layer_norm", "lstm_state_norm", "gru_layer_norm"])
def test_epsilon_is_in_every_norm(monkeypatch, case):
    def layer_norm(values, gain):
        return gain * (values - values.mean()) / np.sqrt(values.var() + 0.3)

    monkeypatch.setattr(normalised, "layer_norm", layer_norm)
    known = CELLS[case].reference
    cell, weights = make(case, epsilon=0.3), known.weights(3, input_size=I, hidden_size=H)
    load_weights(cell, weights)
    state = known.state(np.random.default_rng(1), B, H)
    given = type(cell.initial_state(1))(*map(torch.from_numpy, state))
    output, after = cell.step(cell.project(inputs()[:, 0]), given)
    for row in range(B):
        expected, final = known.step(weights, inputs()[row, 0].numpy(), tuple(field[row] for field in state))
        for got, value in zip((output, *after), (expected, *final), strict=True):
            np.testing.assert_allclose(got[row].detach().numpy(), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["lstm_layer_norm", "lstm_state_norm", "gru_layer_norm"])
def test_a_norm_of_equal_numbers_has_a_gradient(name):
    cell = make(name)
    values = torch.zeros(B, T, I, dtype=TWICE, requires_grad=True)
    run(cell, values)[0].square().sum().backward()
    assert values.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_multiplicative_lstm_begins_as_an_lstm_does():
    cell = make("multiplicative_lstm")
    for block in cell.recurrent_weight.detach().split(H):
        torch.testing.assert_close(block @ block.T, torch.eye(H, dtype=TWICE), rtol=0, atol=1e-5)
    expected = torch.zeros(4, H, dtype=TWICE)
    expected[1] = 1.0
    assert torch.equal(cell.bias.detach(), expected.flatten())
    with torch.no_grad():  # no factor, no past: whatever h is, the step is the first one
        cell.input_weight[:H] = 0
    state = cell.initial_state(B)
    step = [cell.step(cell.project(inputs()[:, 0]), state._replace(hidden=state.hidden + shift))[0] for shift in (0, 1)]
    assert torch.equal(*step)


def test_a_mogrifier_without_rounds_is_an_lstm():
    cell, plain = make("mogrifier", rounds=0), make("lstm")
    plain.load_state_dict(cell.state_dict())
    torch.testing.assert_close(run(cell)[0], run(plain)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
@pytest.mark.parametrize("rank", [None, 2])
def test_the_rounds_of_a_mogrifier(rounds, rank):
    cell, plain = make("mogrifier", rounds=rounds, rank=rank), make("lstm")
    plain.load_state_dict({name: getattr(cell, name) for name in ("input_weight", "recurrent_weight", "bias")})
    parts = list(cell.modulations)
    matrices = parts if rank is None else [left @ right for right, left in zip(parts[::2], parts[1::2], strict=True)]
    x = start = inputs()[:, 0]
    h = torch.randn(B, H, dtype=TWICE)
    state = cell.initial_state(B)._replace(hidden=h)
    for number, matrix in enumerate(matrices, 1):
        if number % 2 == 1:
            x = 2 * torch.sigmoid(h @ matrix.T) * x
        else:
            h = 2 * torch.sigmoid(x @ matrix.T) * h
    expected, _ = plain.step(plain.project(x), plain.initial_state(B)._replace(hidden=h))
    torch.testing.assert_close(cell.step(cell.project(start), state)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 20])
def test_how_a_mogrifier_begins(rank):
    """Each matrix is uniform within 1/√(its columns), so that a scale is near 1 whatever the sizes."""
    cell = make("mogrifier", input_size=50, hidden_size=80, rounds=3, rank=rank)
    factors = [[(50, 80)], [(80, 50)], [(50, 80)]]
    if rank is not None:
        factors = [[(rank, columns), (rows, rank)] for [(rows, columns)] in factors]
    assert [tuple(matrix.shape) for matrix in cell.modulations] == [shape for pair in factors for shape in pair]
    for matrix in cell.modulations:
        bound = matrix.shape[1] ** -0.5
        assert 0.97 * bound < matrix.abs().max() <= bound
        assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    for block in cell.recurrent_weight.detach().split(80):
        torch.testing.assert_close(block @ block.T, torch.eye(80, dtype=TWICE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("rounds", [0, 1, 4])
def test_options_of_the_mogrifier_on_the_fused_backend(rounds, rank):
    from rnnzoo.backends.fused import run as fused

    results = []
    for backend in (reference, fused):
        cell = make("mogrifier", rounds=rounds, rank=rank)
        values = inputs().requires_grad_()
        outputs, final = backend.run(cell, values, torch.tensor([T, 3, 0]), None)
        (outputs.square().sum() + final.cell.sum()).backward()
        results.append([outputs.detach(), values.grad, *(parameter.grad for parameter in cell.parameters())])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["slstm", "mlstm"])
def test_the_output_does_not_depend_on_the_stabiliser(name):
    cell = make(name)
    _, state = run(cell)
    shift = torch.linspace(-3, 3, state.stabiliser.numel(), dtype=TWICE).view_as(state.stabiliser)
    scaled = {
        field: getattr(state, field) * (-shift).exp().reshape(*shift.shape, *[1] * (getattr(state, field).dim() - 2))
        for field in cell.fixed_fields[:-1]
    }
    other = state._replace(stabiliser=state.stabiliser + shift, **scaled)
    torch.testing.assert_close(run(cell, state=other)[0], run(cell, state=state)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["slstm", "mlstm"])
def test_long_sums_keep_their_digits_when_weights_are_short(name):
    """An average over hundreds of steps in bfloat16 would stop to move once a step is below its last digit."""
    cell = make(name)
    if name == "slstm":
        cell.bias.data[H : 2 * H] = 6.0  # 400 steps
    low = copy.deepcopy(cell).bfloat16()
    values = torch.randn(B, 600, I, generator=torch.Generator().manual_seed(0), dtype=TWICE)
    with torch.no_grad():
        expected, got = run(cell, values)[0], run(low, values.bfloat16())[0]
    assert got.dtype == torch.bfloat16
    late = slice(400, None)
    assert (got[:, late] - expected[:, late]).norm() < 0.02 * expected[:, late].norm()


def test_a_row_of_an_slstm_that_begins_anew_is_a_row_alone():
    """Whatever the other rows remember, to the last number of its state, and however far below 0 its input gate is."""
    cell = make("slstm")
    cell.bias.data[:H] = -1000.0  # its exp is 0: beside an empty memory that weighs exp(0), the row would be 0/0
    mixed = where(torch.tensor([True, False, False]), cell.initial_state(B), run(cell)[1])
    outputs, after = run(cell, state=mixed)
    alone, final = run(cell, inputs()[:1])
    for got, expected in zip((outputs, *after), (alone, *final), strict=True):
        torch.testing.assert_close(got[:1], expected, rtol=1e-12, atol=1e-12)
    _, _, g, o = cell.project(inputs()[:1, 0]).chunk(4, dim=-1)
    torch.testing.assert_close(outputs[:1, 0], o.sigmoid() * g.tanh(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["slstm", "mlstm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e2, 1e4, 1e6])
def test_exponential_gates_neither_overflow_nor_lose_their_gradient(name, dtype, scale):
    torch.manual_seed(0)
    cell = make(name).to(dtype)
    with torch.no_grad():
        cell.input_weight.normal_()  # of an mLSTM, the gates see the input at last
    values = (scale * torch.randn(16, 20, I)).to(dtype).requires_grad_()
    outputs, final = run(cell, values)
    assert outputs.abs().max() <= (1.0 + 1e-5 if name == "slstm" else math.inf)
    outputs.sum().backward()
    for tensor in (outputs, *final, values.grad, *(parameter.grad for parameter in cell.parameters())):
        assert tensor.isfinite().all()


def test_an_slstm_is_a_weighted_mean_of_what_came_in():
    """With a shut recurrence and an open output: c/n is the mean of tanh(g), each step weighted by its own gates."""
    cell = make("slstm")
    with torch.no_grad():
        cell.recurrent_weight.zero_()
    i, f, g, o = cell.project(inputs()).chunk(4, dim=-1)  # [B, T, H]
    outputs, _ = run(cell)
    forgotten = F.logsigmoid(f).cumsum(1)
    weights = (i - forgotten).exp()  # all scaled alike at each step
    mean = (weights * g.tanh()).cumsum(1) / weights.cumsum(1)
    torch.testing.assert_close(outputs, o.sigmoid() * mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_an_mlstm_equals_its_reference_with_any_heads(heads):
    cell = make("mlstm", heads=heads)
    size = H // heads
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(tuple(value.shape)) for name, value in cell.named_parameters()}
    cell.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    shapes = ((H,), (heads, size, size), (heads, size), (heads,))
    state = tuple(rng.standard_normal((B, *shape)) for shape in shapes)
    given = type(cell.initial_state(1))(*(torch.from_numpy(field) for field in state))
    outputs, final = run(cell, state=given)
    for row in range(B):
        own = tuple(field[row] for field in state)
        for t in range(T):
            expected, own = xlstm.mlstm_step(weights, inputs()[row, t].numpy(), own)
            np.testing.assert_allclose(outputs[row, t].detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        for got, value in zip(final, own, strict=True):
            np.testing.assert_allclose(got[row].detach().numpy(), value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 3])
def test_an_mlstm_is_attention_with_decay(heads):
    """The parallel form of the paper: each query against all keys so far, with the product of the gates between."""
    cell = make("mlstm", heads=heads)
    with torch.no_grad():
        cell.input_weight.normal_(std=0.5)
    size = H // heads
    wide, gates = cell.project(inputs()).split((4 * H, 2 * heads), dim=-1)
    q, k, v, o = wide.reshape(B, T, 4, heads, size).permute(2, 0, 3, 1, 4)  # [B, N, T, D] each
    a_i, a_f = gates.transpose(1, 2).chunk(2, dim=1)  # [B, N, T] each
    passed = F.logsigmoid(a_f).cumsum(-1)
    decay = (passed.unsqueeze(-1) - passed.unsqueeze(-2) + a_i.unsqueeze(-2)).exp().tril()  # [B, N, T, T]
    scores = decay * (q @ k.transpose(-1, -2)) / math.sqrt(size)
    expected = o.sigmoid() * (scores @ v) / scores.sum(-1, keepdim=True).abs().clamp(min=1.0)
    outputs, _ = run(cell)
    torch.testing.assert_close(outputs, expected.transpose(1, 2).flatten(2), rtol=1e-4, atol=1e-5)


def test_how_an_mlstm_begins():
    torch.manual_seed(0)
    cell = make_cell("mlstm", input_size=I, hidden_size=400, heads=100)
    wide, a_i, a_f = cell.bias.detach().split((1600, 100, 100))
    assert not wide.any()
    assert a_i.std().item() == pytest.approx(0.1, rel=0.2)
    torch.testing.assert_close(a_f, torch.linspace(3, 6, 100))
    bound = I**-0.5
    assert not cell.input_weight[1600:].any()
    assert 0.98 * bound < cell.input_weight.abs().max() <= bound
    assert [make_cell("mlstm", input_size=1, hidden_size=size).heads for size in (1, 2, 6, 7, 12)] == [1, 2, 2, 1, 4]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("lstm_projected", {"projection_size": 0}, "projection_size: expected from 1 to hidden_size 6, got 0"),
        ("lstm_projected", {"projection_size": 7}, "projection_size: expected from 1 to hidden_size 6, got 7"),
        ("mogrifier", {"rounds": -1}, "rounds: expected at least 0, got -1"),
        ("mogrifier", {"rank": 6}, "rank: expected from 1 to 5, the smaller size, got 6"),
        ("mogrifier", {"rank": 0}, "rank: expected from 1 to 5"),
        ("mlstm", {"heads": 4}, "heads: expected a divisor of hidden_size 6, got 4"),
        ("mlstm", {"heads": 0}, "heads: expected a divisor"),
        ("lstm_layer_norm", {"epsilon": 0.0}, "LayerNormLSTMCell.epsilon: expected a number above 0, got 0.0"),
        ("gru_layer_norm", {"epsilon": -1.0}, "LayerNormGRUCell.epsilon: expected a number above 0, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        make(name, **options)
