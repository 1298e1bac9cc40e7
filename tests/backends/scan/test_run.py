"""The scan: its two ways over time, its parts, its types, and what it refuses."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from catalogue import CELLS
from torch.func import functional_call

from rnnzoo.backends import reference
from rnnzoo.backends.scan import recurrence
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import LinearCell
from rnnzoo.cells.gru import GRUCell
from rnnzoo.kernels.compile import cache
from rnnzoo.kernels.compile.cpp_kernel import Compiled
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.state import flatten

torch.set_num_threads(1)

B, T, I, H = 4, 11, 3, 4  # noqa: E741
LINEAR = [name for name, case in CELLS.items() if case.kind == "linear"]
cells = pytest.mark.parametrize("name", LINEAR)


class Sum(LinearCell):
    """h' = h / 2 + x, put out with a share of x: coefficients that are no new tensors."""

    def __init__(self, *, input_size, hidden_size):
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.weight = torch.nn.Parameter(torch.randn(hidden_size, input_size))

    def project(self, inputs):
        return inputs @ self.weight.T

    def coefficients(self, projected):
        return torch.tensor(0.5, dtype=projected.dtype).expand(projected.shape), projected

    def readout(self, projected, hidden):
        return hidden + projected


def solve(run, cell, inputs, lengths, state, *, seed=3):
    """Return outputs, final state and the gradients of inputs, state and parameters."""
    outputs, final = run(cell, inputs, lengths, state)
    generator = torch.Generator().manual_seed(seed)
    results = [outputs, *flatten(final)]
    loss = sum((torch.randn(value.shape, generator=generator, dtype=value.dtype) * value).sum() for value in results)
    leaves = [inputs, *flatten(state), *(each for each in cell.parameters() if each.requires_grad)]
    return results, torch.autograd.grad(loss, leaves)


def recur(decay, addition, initial):
    """Return the states."""
    hidden = addition.clone()
    recurrence.recur(decay, hidden, initial)
    return hidden


def recur_back(decay, hidden, initial, hidden_grad, final_grad):
    """Return the gradients of a, b and the first state."""
    rooms = torch.empty_like(decay), torch.empty_like(decay), final_grad.clone(memory_format=torch.contiguous_format)
    recurrence.recur_back(decay, hidden, initial, hidden_grad, rooms[2], *rooms[:2])
    return rooms


def make(cell, lengths, dtype=torch.float64, steps=T):
    torch.manual_seed(0)
    cell = cell.to(dtype)
    inputs = torch.randn(B, steps, I, dtype=dtype, requires_grad=True)
    first = cell.initial_state(B)
    state = type(first)(*(torch.randn_like(field).requires_grad_() for field in first))
    return cell, inputs, None if lengths is None else torch.tensor(lengths), state


def assert_same(got, expected, **tolerance):
    for left, right in zip((*got[0], *got[1]), (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(left, right, **tolerance)


@cells
@pytest.mark.parametrize("lengths", [None, [0, 1, T, 6]], ids=["none", "mixed"])
def test_parts_are_the_whole(monkeypatch, name, lengths):
    """Parts of one step, of some steps, with a rest, of one row and of some, and of all rows."""
    monkeypatch.setattr(scan, "has_kernel", lambda like: True)
    cell, inputs, rows, state = make(make_cell(name, input_size=I, hidden_size=H), lengths)
    expected = solve(reference.run, cell, inputs, rows, state)
    for numbers in (1, 3 * H, 7 * H, (T - 1) * H, T * H, (3 * T + 1) * H, B * T * H):
        monkeypatch.setattr(scan, "PART_NUMBERS", numbers)
        assert_same(solve(scan.run, cell, inputs, rows, state), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lengths", [None, [0, 1, T, 6]], ids=["none", "mixed"])
def test_a_cell_that_returns_what_it_was_given_is_left_as_it_was(lengths):
    problem = make(Sum(input_size=I, hidden_size=H), lengths)
    assert_same(solve(scan.run, *problem), solve(reference.run, *problem))


class Half(Sum):
    """Puts out a view of its state: the first half of the units."""

    def readout(self, projected, hidden):
        return hidden[..., : hidden.shape[-1] // 2]


def test_a_readout_that_is_a_part_of_the_state():
    problem = make(Half(input_size=I, hidden_size=H), [0, 1, T, 6])
    found, expected = solve(scan.run, *problem), solve(reference.run, *problem)
    assert found[0][0].shape == (B, T, H // 2)
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qrnn", "mingru", "hgrn"])
def test_gradients_of_any_layout_reach_compiled_code(monkeypatch, name):
    """Both directions side by side are one tensor, so that each gets a narrow view of its gradient."""
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    layer = Recurrent(cell=name, input_size=I, hidden_size=16, bidirectional=True, backend="scan")
    for weigh in (torch.square, torch.clone, lambda outputs: outputs.transpose(1, 2).contiguous().square()):
        weigh(layer(torch.randn(B, T, I))[0]).sum().backward()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9, 10, 16, 17])
def test_blocks_are_the_loop(kind, steps):
    """What other devices do, done here."""
    torch.manual_seed(steps)
    decay, addition, g_hidden = (torch.randn(2, steps, 3, dtype=kind) for _ in range(3))
    initial, g_final = (torch.randn(2, 3, dtype=kind) for _ in range(2))
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if kind == torch.float32 else {}
    expected = recur(decay, addition, initial)
    torch.testing.assert_close(recurrence.in_blocks(decay, addition, initial), expected, **tolerance)
    back = recur_back(decay, expected, initial, g_hidden, g_final)
    for got, value in zip(
        recurrence.back_in_blocks(decay, expected, initial, g_hidden, g_final), back, strict=True
    ):  # fmt: skip
        torch.testing.assert_close(got, value, **tolerance)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128], ids=str)
def test_the_adjoint_is_that_of_autograd(kind):
    torch.manual_seed(0)
    decay, addition = (torch.randn(2, 5, 3, dtype=kind, requires_grad=True) for _ in range(2))
    initial = torch.randn(2, 3, dtype=kind, requires_grad=True)
    state, states = initial, []
    for a, b in zip(decay.unbind(1), addition.unbind(1), strict=True):
        state = a * state + b
        states.append(state)
    hidden = torch.stack(states, 1)
    g_hidden, g_final = torch.randn_like(hidden), torch.randn_like(state)
    expected = torch.autograd.grad([hidden, state], [decay, addition, initial], [g_hidden, g_final])
    with torch.no_grad():
        torch.testing.assert_close(recur(decay, addition, initial), hidden)
        got = recur_back(decay, hidden, initial, g_hidden, g_final)
        without = recur_back(decay, hidden, initial, g_hidden, torch.zeros_like(g_final))
    for left, right in zip(got, expected, strict=True):
        torch.testing.assert_close(left, right)
    assert not torch.allclose(without[1][:, -1], expected[1][:, -1])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "steps", "units"), [(1, 1, 1), (1, 7, 5), (2, 3, 600), (5, 4, 33)])
def test_the_loop_in_cpp_is_the_plain_one(monkeypatch, dtype, threads, rows, steps, units):
    torch.manual_seed(0)
    decay, addition, g_hidden = (torch.randn(rows, steps, units, dtype=dtype) for _ in range(3))
    initial, g_final = (torch.randn(units, rows, dtype=dtype).t() for _ in range(2))  # memory the other way round
    expected = recur(decay, addition, initial)
    back = recur_back(decay, expected, initial, g_hidden, g_final)
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.testing.assert_close(recur(decay, addition, initial), expected)
    transposed = g_hidden.transpose(0, 1).contiguous().transpose(0, 1)
    for got, value in zip(
        recur_back(decay, expected, initial, transposed, g_final), back, strict=True
    ):  # fmt: skip
        torch.testing.assert_close(got, value)
    assert recurrence._kernels["forward", dtype] is not None
    assert recurrence._kernels["backward", dtype] is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mingru", "qrnn", "rg_lru", "hgrn"])
def test_compiled_parts_are_the_plain_ones(monkeypatch, name):
    cell, inputs, rows, state = make(make_cell(name, input_size=I, hidden_size=H), [0, 1, T, 6])
    expected = solve(reference.run, cell, inputs, rows, state)
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    monkeypatch.setattr(scan, "PART_NUMBERS", 15 * H)
    solve(scan.run, cell, inputs, rows, state)  # after which there are kernels
    assert_same(solve(scan.run, cell, inputs, rows, state), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["mingru", "minlstm_log", "qrnn", "hgrn"])
def test_parts_in_cpp_are_the_plain_ones(monkeypatch, name):
    """In float32, and for any number of rows: what was compiled for one part does for all others."""
    if not cache.has_compiler():
        pytest.skip("needs a C++ compiler")
    cell, inputs, rows, state = make(make_cell(name, input_size=I, hidden_size=H), [0, 1, T, 6], torch.float32)
    expected = solve(reference.run, cell, inputs, rows, state)
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    monkeypatch.setattr(cache, "_compiled", {})
    monkeypatch.setattr(scan, "has_kernel", lambda like: True)
    for numbers in (5 * H, T * H, (2 * T + 1) * H):
        monkeypatch.setattr(scan, "PART_NUMBERS", numbers)
        assert_same(solve(scan.run, cell, inputs, rows, state), expected, rtol=1e-4, atol=1e-5)
    assert 2 <= len(cache._compiled) <= 4
    assert all(isinstance(each, Compiled) for each in cache._compiled.values())


def test_a_failing_compiler_changes_nothing(monkeypatch):
    problem = make(make_cell("mingru", input_size=I, hidden_size=H), None)
    expected = solve(reference.run, *problem)
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    monkeypatch.setattr(recurrence, "_kernels", {})
    monkeypatch.setattr(recurrence, "compile_code", Mock(side_effect=RuntimeError("no compiler")))
    monkeypatch.setattr(scan, "bind", lambda piece, *others: piece)
    assert_same(solve(scan.run, *problem), expected)
    assert recurrence._kernels == {("forward", torch.float64): None, ("backward", torch.float64): None}


def test_the_loop_is_compiled_once_it_has_run_often_enough(monkeypatch):
    loaded = []
    monkeypatch.setenv("RNNZOO_COMPILE", "")
    monkeypatch.setattr(recurrence, "_kernels", {})
    monkeypatch.setattr(recurrence, "_runs", 0)
    monkeypatch.setattr(recurrence, "COMPILE_AFTER", 3)
    monkeypatch.setattr(recurrence, "load", lambda *arguments: loaded.append(arguments))
    large, small = torch.rand(1, 2, recurrence.SMALLEST), torch.rand(1, 2, 3)
    for values, expected in ((small, 0), (large, 0), (small, 0), (large, 0), (large, 1), (large, 1)):
        recurrence.recur(values, values.clone(), values[:, 0])
        assert len(loaded) == expected


@pytest.mark.parametrize("name", ["mingru", "lru"])
def test_a_second_derivative_is_refused(name):
    cell, inputs, _, state = make(make_cell(name, input_size=I, hidden_size=H), None)
    outputs, _ = scan.run(cell, inputs, None, state)
    with pytest.raises(RuntimeError, match="'scan' cannot be differentiated twice"):
        torch.autograd.grad(outputs.sum(), inputs, create_graph=True)


@cells
@pytest.mark.parametrize("lengths", [None, [0, 1, T, 6]], ids=["none", "mixed"])
def test_what_compilers_trace_is_the_same(monkeypatch, name, lengths):
    problem = make(make_cell(name, input_size=I, hidden_size=H), lengths)
    expected = solve(reference.run, *problem)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert_same(solve(scan.run, *problem), expected)


@pytest.mark.parametrize("name", ["qrnn", "lru", "rg_lru"])
def test_export(name):
    layer = Recurrent(cell=name, input_size=I, hidden_size=H, backend="scan").eval()
    inputs, lengths = torch.randn(B, T, I), torch.tensor([0, 1, T, 6])
    program = torch.export.export(layer, (torch.zeros_like(inputs), torch.full((B,), T)))
    torch.testing.assert_close(program.module()(inputs, lengths), layer(inputs, lengths))


@cells
def test_going_back_twice_gives_the_same(name):
    cell, inputs, _, state = make(make_cell(name, input_size=I, hidden_size=H), None)
    outputs, _ = scan.run(cell, inputs, None, state)
    leaves = [inputs, *flatten(state), *cell.parameters()]
    first, second = (torch.autograd.grad(outputs.sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, second))


@cells
def test_only_the_final_state_may_be_used(name):
    cell, inputs, rows, state = make(make_cell(name, input_size=I, hidden_size=H), [T, 5, 0, 1])
    leaves = [inputs, *flatten(state), *cell.parameters()]
    found = []
    for run in (scan.run, reference.run):
        final = run(cell, inputs, rows, state)[1]
        found.append(torch.autograd.grad(sum(field.sum() for field in final), leaves, allow_unused=True))
    for got, expected in zip(*found, strict=True):
        expected = torch.zeros_like(got) if expected is None and got is not None else expected
        torch.testing.assert_close(got, expected)


@cells
def test_frozen_parameters_and_inputs(name):
    cell, inputs, rows, state = make(make_cell(name, input_size=I, hidden_size=H), [T, 5, 0, 1])
    whole = dict(
        zip(dict(cell.named_parameters()), solve(scan.run, cell, inputs, rows, state)[1][1 + len(state) :], strict=True)
    )
    inputs = inputs.detach()
    for kept in whole:
        for parameter, value in cell.named_parameters():
            value.requires_grad_(parameter == kept)
        outputs, final = scan.run(cell, inputs, rows, state)
        generator = torch.Generator().manual_seed(3)
        loss = sum(
            (torch.randn(value.shape, generator=generator, dtype=value.dtype) * value).sum()
            for value in (outputs, *flatten(final))
        )
        torch.testing.assert_close(torch.autograd.grad(loss, dict(cell.named_parameters())[kept])[0], whole[kept])


@cells
def test_gradients_are_of_the_weights_that_ran(name):
    """Weights that are put in for one call only, as `torch.func` does, are those that the backward pass sees."""

    class Wrapped(torch.nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, inputs):
            return run(self.cell, inputs, None, None)[0]

    cell, inputs, _, _ = make(make_cell(name, input_size=I, hidden_size=H), None)
    module = Wrapped(cell)
    other = {key: (value.detach() * 1.5).requires_grad_() for key, value in module.named_parameters()}
    found = []
    for run in (scan.run, reference.run):  # noqa: B007
        loss = functional_call(module, other, (inputs,)).square().sum()
        found.append(torch.autograd.grad(loss, list(other.values())))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


@cells
def test_bfloat16_keeps_a_wide_state(name):
    """Under autocast and in a cell of bfloat16: the outputs are narrow, the state is not."""
    steps = 400
    cell, inputs, _, _ = make(make_cell(name, input_size=I, hidden_size=H), None, torch.float32, steps)
    exact = reference.run(cell, inputs, None, None)[0].detach()
    scale = exact.abs().max()
    for run in (scan.run, reference.run):
        with torch.autocast("cpu", torch.bfloat16):
            outputs, final = run(cell, inputs, None, None)
        assert outputs.dtype == torch.bfloat16
        assert all(field.dtype == torch.float32 for field in final)
        assert (outputs.float() - exact).abs().max() < 0.05 * scale
        outputs.float().sum().backward()
        assert all(torch.isfinite(each.grad).all() and each.grad.dtype == torch.float32 for each in cell.parameters())
    narrow = make_cell(name, input_size=I, hidden_size=H)
    narrow.load_state_dict(cell.state_dict())
    narrow = narrow.to(torch.bfloat16)
    outputs, final = scan.run(narrow, inputs.detach().bfloat16(), None, None)
    assert outputs.dtype == torch.bfloat16
    assert all(field.dtype == torch.float32 for field in final)
    outputs.float().sum().backward()
    assert all(each.grad.dtype == torch.bfloat16 for each in narrow.parameters())


def test_a_thousand_small_steps_add_up_in_bfloat16():
    """A sum in bfloat16 would stand still as soon as a step is below its last digit."""
    cell = make_cell("mingru", input_size=1, hidden_size=1)
    with torch.no_grad():
        cell.input_weight.copy_(torch.tensor([[0.0], [1.0]]))
        cell.bias.copy_(torch.tensor([-6.0, 0.0]))  # z = 0.0025
    with torch.autocast("cpu", torch.bfloat16):
        _, final = scan.run(cell, torch.ones(1, 1000, 1), None, None)
    expected = 1 - (1 - torch.sigmoid(torch.tensor(-6.0))) ** 1000
    torch.testing.assert_close(final.hidden[0, 0], expected, rtol=1e-3, atol=0)


@cells
def test_used_parameters_are_found(name):
    cell = make_cell(name, input_size=I, hidden_size=H)
    used = scan.used_parameters(cell, torch.zeros(1, 1, cell.project_sequence(
        torch.zeros(1, 1, I), None, cell.initial_state(1))[0].shape[-1]))  # fmt: skip
    expected = {
        "lru": {"decay_log", "phase_log", "scale_log", "output_weight"},
        "rg_lru": {"gate_weight", "gate_bias", "decay"},
        "hgrn": {"norm_weight"},
    }
    assert set(used) == expected.get(name, set())


def test_other_cells_are_refused():
    assert scan.refusal(GRUCell(input_size=I, hidden_size=H)) == "GRUCell is no LinearCell"
    assert not scan.refusal(Sum(input_size=I, hidden_size=H))


def test_random_numbers_are_left_alone():
    cell = make_cell("rg_lru", input_size=I, hidden_size=H)
    state = torch.get_rng_state()
    scan.run(cell, torch.zeros(B, T, I), None, None)[0].sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_first_state_may_lie_anyhow(monkeypatch):
    """A transposed one, whose gradient is written as if it were not."""
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    cell = make_cell("mingru", input_size=I, hidden_size=H)
    inputs, first = torch.randn(B, T, I), torch.randn(H, B)
    found = []
    for run in (scan.run, reference.run):
        leaf = first.clone().requires_grad_()
        outputs, _ = run(cell, inputs, None, cell.initial_state(B)._replace(hidden=leaf.t()))
        found.append(torch.autograd.grad(outputs.square().sum(), leaf))
    torch.testing.assert_close(*found)
