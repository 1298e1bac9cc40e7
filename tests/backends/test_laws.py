"""What holds for every cell on every backend: all combinations, through `Recurrent`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from catalogue import BACKENDS, CELLS, TOLERANCES, flatten, make_layer, random_state
from references import Weights, stack
from torch import Tensor

from rnnzoo.backends import BACKENDS as REGISTERED
from rnnzoo.backends import select
from rnnzoo.backends.select import choose
from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.lengths import length_mask
from rnnzoo.state import map_state, select_rows, where

torch.set_num_threads(1)

B, T, I, H = 4, 5, 3, 4  # noqa: E741
LENGTHS = {"none": None, "full": [T] * B, "mixed": [0, 1, T, 3], "short": [2, 0, 1, 3], "empty": [0] * B}
PAIRS = [(case, backend) for case in CELLS.values() for backend in case.backends]
FAST = [(case, backend) for case, backend in PAIRS if backend != "reference"]

over_cells = pytest.mark.parametrize(("case", "backend"), PAIRS, ids=[f"{c.name}-{b}" for c, b in PAIRS])
over_fast = pytest.mark.parametrize(("case", "backend"), FAST, ids=[f"{c.name}-{b}" for c, b in FAST])
over_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
over_layers = pytest.mark.parametrize("num_layers", [1, 2], ids=["1-layer", "2-layers"])
over_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))
over_types = pytest.mark.parametrize("dtype", TOLERANCES, ids=["float32", "float64"])


class Problem(NamedTuple):
    """Layers with something to run them on."""

    layer: Recurrent
    weights: list[Weights]
    inputs: Tensor  # [B, T, I]
    lengths: Tensor | None
    state: Any


class Result(NamedTuple):
    """All that a run gives: forward and backward."""

    outputs: Tensor
    final: list[Tensor]
    gradients: dict[str, Tensor]


def make(case, backend, bidirectional, num_layers, lengths, dtype, steps=T) -> Problem:
    layer, weights = make_layer(
        case, input_size=I, hidden_size=H, num_layers=num_layers, bidirectional=bidirectional, dtype=dtype,
        backend=backend,
    )  # fmt: skip
    inputs = torch.from_numpy(np.random.default_rng(5).standard_normal((B, steps, I))).to(dtype)
    rows = None if lengths is None else torch.tensor(lengths)
    return Problem(layer, weights, inputs.requires_grad_(), rows, random_state(case, layer, B))


def differentiate(problem: Problem, outputs: Tensor, final: Any) -> Result:
    """Take the gradients of a loss in which every output and every number of the final state has its own weight."""
    rng = np.random.default_rng(11)
    finals = flatten(final)
    loss = sum(
        (torch.from_numpy(rng.standard_normal(tuple(value.shape))).to(value.dtype) * value).sum()
        for value in (outputs, *finals)
    )
    leaves = {"inputs": problem.inputs, **dict(problem.layer.named_parameters())}
    leaves |= {f"state {place}": field for place, field in enumerate(flatten(problem.state))}
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    return Result(outputs.detach(), [field.detach() for field in finals], gradients)


def solve(problem: Problem) -> Result:
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    return differentiate(problem, outputs, final)


def assert_same(got: Result, expected: Result, **tolerance: float) -> None:
    tolerance = tolerance or TOLERANCES[expected.outputs.dtype]
    named = {"outputs": (got.outputs, expected.outputs)}
    named |= {f"final {n}": pair for n, pair in enumerate(zip(got.final, expected.final, strict=True))}
    assert got.gradients.keys() == expected.gradients.keys()
    named |= {f"gradient of {n}": (got.gradients[n], value) for n, value in expected.gradients.items()}
    for name, (left, right) in named.items():
        torch.testing.assert_close(left, right, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@over_cells
@over_directions
@over_layers
@over_lengths
def test_equals_numpy(case, backend, bidirectional, num_layers, lengths):
    problem = make(case, backend, bidirectional, num_layers, lengths, torch.float64)
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    states = [tuple(field.detach().numpy() for field in inner) for inner in problem.state]
    inputs = problem.inputs.detach().numpy()
    expected, finals = stack(
        case.reference.step, problem.weights, inputs, lengths or [T] * B, states, bidirectional=bidirectional,
        output_size=problem.layer.cells[0].output_size,
    )  # fmt: skip
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
    for got, inner in zip(final, finals, strict=True):
        assert got._fields == case.reference.fields
        for name, value in zip(got._fields, inner, strict=True):
            got_field = getattr(got, name).detach().numpy()
            np.testing.assert_allclose(got_field, value, rtol=1e-10, atol=1e-12, err_msg=name)


@over_fast
@over_directions
@over_layers
@over_lengths
@over_types
def test_equals_the_reference_with_all_gradients(case, backend, bidirectional, num_layers, lengths, dtype):
    fast = make(case, backend, bidirectional, num_layers, lengths, dtype)
    law = make(case, "reference", bidirectional, num_layers, lengths, dtype)
    assert_same(solve(fast), solve(law))


@over_fast
@over_directions
@over_lengths
@over_types
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_the_mode_and_the_graph_make_no_difference(case, backend, bidirectional, lengths, dtype, train):
    problem = make(case, backend, bidirectional, 2, lengths, dtype)
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    problem.layer.train(train)
    with torch.no_grad():
        again, after = problem.layer(problem.inputs, problem.lengths, problem.state)
    torch.testing.assert_close(again, outputs.detach(), **TOLERANCES[dtype])
    for got, expected in zip(flatten(after), flatten(final), strict=True):
        torch.testing.assert_close(got, expected.detach(), **TOLERANCES[dtype])


@over_cells
@over_layers
@over_lengths
@over_types
@pytest.mark.parametrize("sizes", [(2, 3), (1, 0, 4)], ids=str)
def test_chunks_with_carried_state_are_the_whole(case, backend, num_layers, lengths, dtype, sizes):
    problem = make(case, backend, False, num_layers, lengths, dtype)
    state, outputs, start = problem.state, [], 0
    for size in sizes:
        rows = None if problem.lengths is None else (problem.lengths - start).clamp(0, size)
        output, state = problem.layer(problem.inputs[:, start : start + size], rows, state)
        outputs.append(output)
        start += size
    assert_same(differentiate(problem, torch.cat(outputs, 1), state), solve(problem))


@over_cells
@over_layers
@over_types
def test_single_steps_are_the_whole(case, backend, num_layers, dtype):
    problem = make(case, backend, False, num_layers, None, dtype)
    state, outputs = problem.state, []
    for t in range(T):
        output, state = problem.layer.step(problem.inputs[:, t], state)
        assert output.shape == (B, problem.layer.output_size)
        outputs.append(output)
    assert_same(differentiate(problem, torch.stack(outputs, 1), state), solve(problem))


@over_cells
@over_directions
@over_layers
@over_lengths
@over_types
def test_a_row_alone_is_the_row_in_the_batch(case, backend, bidirectional, num_layers, lengths, dtype):
    problem = make(case, backend, bidirectional, num_layers, lengths, dtype)
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    for row, length in enumerate(lengths or [T] * B):
        own = select_rows(problem.state, torch.tensor([row]))
        alone, after = problem.layer(problem.inputs[row : row + 1, :length], None, own)
        torch.testing.assert_close(alone[0], outputs[row, :length], **TOLERANCES[dtype])
        for got, field in zip(flatten(after), flatten(final), strict=True):
            torch.testing.assert_close(got[0], field[row], **TOLERANCES[dtype])


@over_cells
@over_layers
@over_types
def test_a_reset_row_is_a_fresh_start(case, backend, num_layers, dtype):
    problem = make(case, backend, False, num_layers, None, dtype)
    reset = torch.tensor([True, False, True, False])
    mixed = where(reset, problem.layer.initial_state(B), problem.state)
    results = [problem.layer(problem.inputs, None, state) for state in (mixed, None, problem.state)]
    outputs, fresh, carried = (result[0] for result in results)
    torch.testing.assert_close(outputs[reset], fresh[reset], **TOLERANCES[dtype])
    torch.testing.assert_close(outputs[~reset], carried[~reset], **TOLERANCES[dtype])
    assert not torch.allclose(fresh[:, 0], carried[:, 0])


def fill_padding(problem: Problem, value: float) -> Problem:
    assert problem.lengths is not None
    valid = length_mask(problem.lengths, T).unsqueeze(-1)  # [B, T, 1]
    return problem._replace(inputs=torch.where(valid, problem.inputs, value).detach().requires_grad_())


@over_cells
@over_directions
@over_layers
@pytest.mark.parametrize("name", ["mixed", "short"])
@over_types
def test_padding_changes_nothing(case, backend, bidirectional, num_layers, name, dtype):
    """Garbage on the padding leaves outputs, states and gradients alone, and gets a gradient of exactly zero."""
    problem = make(case, backend, bidirectional, num_layers, LENGTHS[name], dtype)
    expected = solve(fill_padding(problem, 0.0))
    got = solve(fill_padding(problem, 1e3))
    assert_same(got, expected, rtol=0, atol=0)
    padding = ~length_mask(problem.lengths, T)
    assert got.gradients["inputs"][padding].eq(0).all()


@over_cells
@pytest.mark.parametrize("value", [1e6, -1e6])
@over_types
def test_huge_padding_changes_nothing(case, backend, value, dtype):
    problem = make(case, backend, False, 1, LENGTHS["mixed"], dtype)
    assert_same(solve(fill_padding(problem, value)), solve(fill_padding(problem, 0.0)))


@over_cells
@over_directions
@over_layers
@over_lengths
@over_types
def test_outputs_past_the_length_are_zero_and_empty_rows_keep_their_state(
    case, backend, bidirectional, num_layers, lengths, dtype
):
    problem = make(case, backend, bidirectional, num_layers, lengths, dtype)
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    assert outputs.shape == (B, T, problem.layer.output_size)
    assert outputs.dtype == dtype
    rows = torch.full((B,), T) if problem.lengths is None else problem.lengths
    assert outputs[~length_mask(rows, T)].eq(0).all()
    assert [type(inner) for inner in final] == [type(inner) for inner in problem.state]
    for got, field in zip(flatten(final), flatten(problem.state), strict=True):
        assert got.shape == field.shape
        assert got.dtype == dtype
        assert torch.equal(got[rows == 0], field[rows == 0])
        assert not torch.isclose(got[rows > 0], field[rows > 0], rtol=0, atol=1e-7).flatten(1).all(1).any()


@over_cells
@over_directions
@over_layers
@over_types
@pytest.mark.parametrize("lengths", [None, [0] * B], ids=["none", "zeros"])
def test_no_steps(case, backend, bidirectional, num_layers, dtype, lengths):
    problem = make(case, backend, bidirectional, num_layers, lengths, dtype, steps=0)
    outputs, final = problem.layer(problem.inputs, problem.lengths, problem.state)
    assert outputs.shape == (B, 0, problem.layer.output_size)
    assert outputs.dtype == dtype
    assert all(map(torch.equal, flatten(final), flatten(problem.state)))
    outputs, final = problem.layer(problem.inputs, problem.lengths)
    assert all(map(torch.equal, flatten(final), flatten(problem.layer.initial_state(B))))


@over_cells
@over_directions
@pytest.mark.parametrize("with_lengths", [False, True], ids=["none", "lengths"])
@pytest.mark.parametrize("steps", [0, 2])
def test_no_rows(case, backend, bidirectional, with_lengths, steps):
    problem = make(case, backend, bidirectional, 2, None, torch.float32)
    rows = torch.zeros(0, dtype=torch.long) if with_lengths else None
    outputs, final = problem.layer(torch.zeros(0, steps, I), rows)
    assert outputs.shape == (0, steps, problem.layer.output_size)
    assert all(len(field) == 0 for field in flatten(final))


@over_cells
@over_directions
@over_lengths
def test_no_state_is_the_initial_state(case, backend, bidirectional, lengths):
    problem = make(case, backend, bidirectional, 2, lengths, torch.float64)
    zeros = map_state(torch.zeros_like, problem.state)
    outputs, final = problem.layer(problem.inputs, problem.lengths)
    expected, after = problem.layer(problem.inputs, problem.lengths, zeros)
    assert torch.equal(outputs, expected)
    assert all(map(torch.equal, flatten(final), flatten(after)))


@over_cells
@over_lengths
def test_nothing_is_changed_in_place(case, backend, lengths):
    problem = make(case, backend, True, 2, lengths, torch.float64)
    held = [problem.inputs, *flatten(problem.state)] + ([] if problem.lengths is None else [problem.lengths])
    copies = [value.detach().clone() for value in held]
    solve(problem)
    assert all(torch.equal(value.detach(), copy) for value, copy in zip(held, copies, strict=True))


def test_a_state_of_another_batch_size_is_refused():
    """In a process of its own, because kernels that trust the size read past the end of the state and crash."""
    program = f"""
import torch
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent
accepted = []
for cell, backend in {[(case.name, backend) for case, backend in PAIRS]}:
    for rows in (1, 5):
        layer = Recurrent(cell=cell, input_size=3, hidden_size=64, backend=backend)
        try:
            layer(torch.zeros(4, 5, 3), None, layer.initial_state(rows))
        except InputError:
            continue
        except Exception as error:
            accepted.append((cell, backend, rows, type(error).__name__))
        else:
            accepted.append((cell, backend, rows, "no error"))
assert not accepted, accepted
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-1500:]}"


@pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
def test_auto_takes_a_backend_that_can_run_the_cell_and_says_why(case):
    cell = make_cell(case.name, input_size=I, hidden_size=H)
    for inputs in (None, torch.zeros(2, 3, I), torch.zeros(4096, 1, I)):
        choice = choose(cell, "auto", inputs)
        assert choice.name in case.backends
        assert choice.run is REGISTERED[choice.name]
        assert choice.reason


@pytest.mark.parametrize(
    ("name", "rows", "compiles", "expected"),
    [
        ("lstm", 1, True, "native"),
        ("lstm", 4096, True, "native"),
        ("gru", 1, True, "native"),
        ("gru", 4096, True, "fused"),
        ("gru", 4096, False, "native"),
        ("gru_reset_before", 1, True, "fused"),
        ("gru_reset_before", 1, False, "reference"),
        ("gru_reset_before", 4096, False, "fused"),
    ],
)
def test_auto_knows_what_is_fast(monkeypatch, name, rows, compiles, expected):
    monkeypatch.setattr(select, "can_compile", lambda device: compiles)
    assert choose(make_cell(name, input_size=I, hidden_size=H), "auto", torch.zeros(rows, 3, I)).name == expected


@pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
def test_unknown_backends_are_refused(case):
    with pytest.raises(InputError, match=r"backend: expected one of .*did you mean 'native'") as caught:
        choose(make_cell(case.name, input_size=I, hidden_size=H), "natve")
    assert all(name in str(caught.value) for name in ("auto", *BACKENDS))
