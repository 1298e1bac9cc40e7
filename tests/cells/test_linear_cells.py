"""What is special about each linear cell: its initialisation, its edges, and the forms of the papers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from catalogue import CELLS, load_weights
from torch import nn

from rnnzoo.backends import reference
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.layers.bridge import Bridge
from rnnzoo.layers.initial_state import InitialState
from rnnzoo.layers.recurrent import Recurrent

torch.set_num_threads(1)

B, T, I, H = 3, 6, 5, 4  # noqa: E741
LINEAR = [name for name, case in CELLS.items() if case.kind == "linear"]


def decays(cell, inputs):
    """Return a [B, T, H] of a cell for inputs [B, T, I]."""
    projected, _ = cell.project_sequence(inputs, None, cell.initial_state(len(inputs)))
    return cell.coefficients(projected)[0].detach()


@pytest.mark.parametrize(
    ("name", "block"),
    [("mingru", 0), ("mingru_log", 0), ("minlstm", 0), ("minlstm_log", 0), ("qrnn", 1), ("sru", 0), ("hgrn", 0)],
)
def test_forget_bias(name, block):
    """All biases are zero but for the one that forgets, and what is kept for an input of zero follows it."""
    cell = make_cell(name, input_size=I, hidden_size=H, forget_bias=2.0)
    expected = torch.zeros(len(cell.bias) // H, H)
    expected[block] = -2.0 if "gru" in name else 2.0  # z is what a minGRU does not keep
    assert torch.equal(cell.bias.detach().view_as(expected), expected)
    forget = 1 / (1 + math.exp(-2.0))
    kept = forget / (forget + 0.5) if "lstm" in name else forget
    torch.testing.assert_close(decays(cell, torch.zeros(1, 1, I)), torch.full((1, 1, H), kept))


@pytest.mark.parametrize("name", ["mingru", "mingru_log", "minlstm", "minlstm_log", "qrnn", "hgrn", "rg_lru"])
def test_input_weights_are_uniform(name):
    torch.manual_seed(0)
    weight = make_cell(name, input_size=50, hidden_size=200).input_weight.detach()
    bound = weight.shape[1] ** -0.5
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(("name", "paper"), [("mingru_log", "z n"), ("minlstm_log", "f i n")])
def test_log_forms_equal_a_sum_over_the_whole_past_in_logarithms(name, paper):
    """h_t = exp(a_t + logsumexp_s≤t (log b_s - a_s)) with a = Σ log decay, the paper's scan, from a carried state."""
    case = CELLS[name]
    cell = make_cell(name, input_size=I, hidden_size=H).double()
    weights = case.reference.weights(2, input_size=I, hidden_size=H)
    load_weights(cell, weights)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((1, T, I))
    pre = np.split(inputs[0] @ weights["input_weight"].T + weights["bias"], len(paper.split()), axis=1)  # [T, H] each
    candidate = np.where(pre[-1] >= 0, pre[-1] + 0.5, 1 / (1 + np.exp(-pre[-1])))
    if name == "mingru_log":
        log_keep, log_enter = -np.logaddexp(0, pre[0]), -np.logaddexp(0, -pre[0])
    else:
        difference = np.logaddexp(0, -pre[0]) - np.logaddexp(0, -pre[1])
        log_keep, log_enter = -np.logaddexp(0, difference), -np.logaddexp(0, -difference)
    start = np.abs(rng.standard_normal(H)) + 0.1
    total = np.concatenate([np.zeros((1, H)), np.cumsum(log_keep, 0)])
    values = np.concatenate([np.log(start)[None], log_enter + np.log(candidate)])
    expected = np.exp(total + np.logaddexp.accumulate(values - total, axis=0))[1:]
    for run in (scan.run, reference.run):
        state = cell.initial_state(1)._replace(hidden=torch.from_numpy(start[None]))
        first, state = run(cell, torch.from_numpy(inputs[:, :2]), None, state)  # carried between chunks
        second, _ = run(cell, torch.from_numpy(inputs[:, 2:]), None, state)
        got = torch.cat([first, second], 1)[0].detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert (run(cell, torch.from_numpy(inputs), None, None)[0] > 0).all()  # from a state of zero


@pytest.mark.parametrize("name", ["minlstm", "minlstm_log"])
def test_a_quotient_of_closed_gates_is_a_number(name):
    cell = make_cell(name, input_size=1, hidden_size=3)
    with torch.no_grad():
        cell.input_weight.zero_()
        cell.bias[:6] = torch.tensor([-1e4, -1e4, 1e4, -1e4, 20.0, -1e4])  # f, then i
    projected = cell.project(torch.zeros(1, 1)).detach().requires_grad_()
    keep, addition = cell.coefficients(projected)
    torch.testing.assert_close(keep, torch.tensor([[0.5, 0.0, 1.0]]), rtol=0, atol=1e-6)
    (keep.sum() + addition.sum()).backward()
    assert torch.isfinite(projected.grad).all()


@pytest.mark.parametrize("bias", [-1e6, -100.0, 100.0, 1e6])
def test_gradients_of_rg_lru_are_numbers_at_the_edges(bias):
    """√(1 - a²) has an infinite slope where the gate is closed and a = 1."""
    cell = make_cell("rg_lru", input_size=I, hidden_size=H)
    nn.init.constant_(cell.gate_bias.data[:H], bias)
    outputs, _ = scan.run(cell, torch.randn(B, T, I), None, None)
    outputs.sum().backward()
    assert torch.isfinite(outputs).all()
    assert all(torch.isfinite(each.grad).all() for each in cell.parameters())
    if bias < 0:
        assert not outputs.any()  # nothing enters, as nothing is forgotten


@pytest.mark.parametrize(("block_count", "count"), [(None, 2), (1, 1), (3, 3), (6, 6)])
def test_blocks_of_rg_lru(block_count, count):
    """The gates are those of full matrices that are zero outside the blocks."""
    cell = make_cell("rg_lru", input_size=I, hidden_size=6, block_count=block_count).double()
    assert cell.gate_weight.shape == (2 * count, 6 // count, 6 // count)
    nn.init.normal_(cell.gate_bias)
    inputs = torch.randn(B, T, I, dtype=torch.float64)
    u = cell.project(inputs)
    full = [torch.block_diag(*half) for half in cell.gate_weight.chunk(2)]
    recurrence, entrance = (
        torch.sigmoid(u @ matrix.T + bias) for matrix, bias in zip(full, cell.gate_bias.chunk(2), strict=True)
    )
    a = torch.exp(-8 * recurrence * nn.functional.softplus(cell.decay))
    got = cell.coefficients(u)
    torch.testing.assert_close(got[0], a)
    torch.testing.assert_close(got[1], (1 - a**2).sqrt() * entrance * u)


def test_rg_lru_takes_sixteen_blocks_and_decays_slowly():
    torch.manual_seed(0)
    cell = make_cell("rg_lru", input_size=I, hidden_size=512)
    assert cell.block_count == 16
    assert cell.gate_weight.abs().max() <= 32**-0.5
    open_gate = torch.exp(-8 * nn.functional.softplus(cell.decay.detach()))
    assert 0.9 <= open_gate.min() < 0.902
    assert 0.997 < open_gate.max() <= 0.9991
    assert open_gate.mean().item() == pytest.approx(0.9495, abs=0.004)
    assert not cell.bias.any()
    assert not cell.gate_bias.any()


@pytest.mark.parametrize(("low", "high", "phase"), [(0.0, 1.0, 2 * math.pi), (0.9, 0.999, 0.3)])
def test_eigenvalues_of_an_lru_lie_in_their_ring(low, high, phase):
    torch.manual_seed(0)
    cell = make_cell("lru", input_size=I, hidden_size=4000, min_radius=low, max_radius=high, max_phase=phase)
    eigenvalues = decays(cell, torch.zeros(1, 1, I))[0, 0]
    radius, angle = eigenvalues.abs(), eigenvalues.angle() % (2 * math.pi)
    assert low - 1e-3 <= radius.min() < low + 0.1
    assert high - 0.01 < radius.max() <= high
    assert angle.max() <= phase + 1e-4
    # evenly in the ring: half of the area lies below this radius
    middle = math.sqrt((low**2 + high**2) / 2)
    assert (radius < middle).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert angle.mean().item() == pytest.approx(phase / 2, rel=0.05)
    torch.testing.assert_close(cell.scale_log.detach().exp().square() + radius.square(), torch.ones(4000))
    assert all(parameter.dtype == torch.float32 for parameter in cell.parameters())


def test_variances_of_an_lru():
    torch.manual_seed(0)
    cell = make_cell("lru", input_size=50, hidden_size=100)
    b_real, b_imaginary, skip = cell.input_weight.detach().chunk(3)
    for block, variance in ((b_real, 0.01), (b_imaginary, 0.01), (skip, 0.02)):
        assert block.var().item() == pytest.approx(variance, rel=0.1)
    assert cell.output_weight.detach().var().item() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("highway_bias", [0.0, -3.0])
def test_sru_keeps_the_variance_of_its_input(highway_bias):
    """What α and the initial weights are for; without α the variance falls."""
    torch.manual_seed(0)
    size = 300
    cell = make_cell("sru", input_size=size, hidden_size=size, highway_bias=highway_bias)
    assert cell.input_weight.shape == (3 * size, size)
    assert torch.equal(cell.bias.detach()[size:], torch.full((size,), highway_bias))
    assert cell.input_weight.detach().std().item() == pytest.approx(size**-0.5, rel=0.02)
    outputs = scan.run(cell, torch.randn(20, 30, size), None, None)[0]
    assert outputs.var().item() == pytest.approx(1.0, abs=0.25)


def test_sru_lets_an_input_of_its_size_pass_and_projects_others():
    for input_size in (H, H + 1):
        cell = make_cell("sru", input_size=input_size, hidden_size=H).double()
        with torch.no_grad():
            cell.bias.fill_(-1e4)  # r is closed: the highway alone
        inputs = torch.randn(B, T, input_size, dtype=torch.float64)
        passed = inputs if input_size == H else inputs @ cell.input_weight[3 * H :].T
        torch.testing.assert_close(scan.run(cell, inputs, None, None)[0], math.sqrt(3) * passed)


def test_qrnn_is_a_convolution():
    """Gates as `nn.Conv1d` of width 2 computes them, over inputs with one zero before them."""
    torch.manual_seed(0)
    cell = make_cell("qrnn", input_size=I, hidden_size=H).double()
    inputs = torch.randn(B, T, I, dtype=torch.float64)
    now, before = cell.input_weight.split(I, dim=1)
    padded = nn.functional.pad(inputs, (0, 0, 1, 0)).transpose(1, 2)
    gates = nn.functional.conv1d(padded, torch.stack([before, now], 2), cell.bias).transpose(1, 2)
    got, state = cell.project_sequence(inputs, None, cell.initial_state(B))
    torch.testing.assert_close(got, gates)
    torch.testing.assert_close(state.previous, inputs[:, -1] @ before.T)


def test_a_window_of_one_has_no_memory_of_inputs():
    cell = make_cell("qrnn", input_size=I, hidden_size=H, window=1)
    assert cell.input_weight.shape == (3 * H, I)
    assert cell.initial_state(2)._fields == ("hidden",)
    inputs = torch.randn(B, T, I)
    lengths = torch.tensor([T, 0, 2])
    torch.testing.assert_close(scan.run(cell, inputs, lengths, None), reference.run(cell, inputs, lengths, None))


@pytest.mark.parametrize("bound", [0.0, 0.7])
def test_the_forget_gate_of_hgrn_stays_above_its_bound(bound):
    torch.manual_seed(0)
    cell = make_cell("hgrn", input_size=I, hidden_size=50, lower_bound=bound, forget_bias=-2.0)
    kept = decays(cell, 3 * torch.randn(20, 10, I))
    assert bound <= kept.min() < bound + 0.05
    assert kept.max() <= 1
    outputs = scan.run(cell, torch.randn(2, T, I), None, None)[0]
    torch.testing.assert_close(outputs.square().mean(-1), torch.ones(2, T), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("qrnn", {"window": 3}, "window: expected 1 or 2, got 3"),
        ("lru", {"min_radius": 0.5, "max_radius": 0.4}, "radii: expected .*, got 0.5 and 0.4"),
        ("lru", {"max_radius": 1.1}, "radii"),
        ("lru", {"max_phase": 0.0}, "max_phase: expected an angle above 0, got 0.0"),
        ("rg_lru", {"block_count": 3}, "block_count: expected a divisor of the 4 units, got 3"),
        ("rg_lru", {"block_count": 0}, "block_count"),
        ("hgrn", {"lower_bound": 1.0}, "lower_bound: expected at least 0 and below 1, got 1.0"),
        ("hgrn", {"lower_bound": -0.1}, "lower_bound"),
    ],
)
def test_options_out_of_range_are_refused(name, options, match):
    with pytest.raises(InputError, match=match):
        make_cell(name, input_size=I, hidden_size=H, **options)


@pytest.mark.parametrize("name", LINEAR)
def test_states_made_by_other_layers(name):
    """A bridge and an initial state from a vector set what they may, and leave a memory of inputs at zero."""
    torch.manual_seed(0)
    encoder = Recurrent(cell=name, input_size=I, hidden_size=H, bidirectional=True)
    decoder = Recurrent(cell=name, input_size=I, hidden_size=6)
    _, states = encoder(torch.randn(B, T, I), torch.tensor([T, 0, 2]))
    for made in (
        Bridge(encoder=encoder, decoder=decoder)(states),
        InitialState(input_size=I, recurrent=decoder)(torch.randn(B, I)),
    ):
        assert made[0].hidden.any()
        assert name != "qrnn" or not made[0].previous.any()
        outputs, _ = decoder(torch.randn(B, T, I), torch.tensor([T, 1, 2]), made)
        outputs.sum().backward()
