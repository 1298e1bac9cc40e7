"""The fused backend beyond the laws: what it compiles, when, what happens if it cannot, and what it keeps."""

from __future__ import annotations

import contextlib
import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from catalogue import CELLS, TOLERANCES, make_layer
from torch._subclasses.fake_tensor import FakeTensorMode

from rnnzoo.backends import reference
from rnnzoo.backends.fused import program, schedule
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.fused.structure import analyze_step, flatten
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import GatedCell, HiddenState
from rnnzoo.cells.views import signature
from rnnzoo.cells.wrappers import RecurrentDropout, drop_weights
from rnnzoo.kernels import torch_private
from rnnzoo.kernels.compile import cache
from rnnzoo.kernels.compile.cpp_kernel import Compiled
from rnnzoo.kernels.products import panels
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.state import map_state

STAGED = [case for case in CELLS.values() if "fused" in case.backends]
B, T, I, H = 3, 5, 4, 6  # noqa: E741

staged = pytest.mark.parametrize("case", STAGED, ids=lambda case: case.name)


@pytest.fixture
def compiling(monkeypatch):
    """Compile at the first use, with nothing left of earlier tests."""
    for name in ("_seen", "_compiled", "_layouts"):
        monkeypatch.setattr(cache, name, type(getattr(cache, name))())
    monkeypatch.setattr(cache, "_failures", [])
    monkeypatch.setenv("RNNZOO_COMPILE", "1")


def gradients(run, cell, inputs, lengths=None, state=None):
    """Return outputs, final state and the gradients of a loss that weighs every number by itself."""
    outputs, final = run(cell, inputs, lengths, state)
    generator = torch.Generator().manual_seed(3)
    values = [value for value in (outputs, *flatten(final)) if value.requires_grad]
    loss = sum((torch.randn(value.shape, generator=generator, dtype=value.dtype) * value).sum() for value in values)
    leaves = [inputs, *cell.parameters()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [outputs, *flatten(final), *(torch.zeros(()) if value is None else value for value in found)]


def assert_same(ours, theirs, **tolerance):
    for place, (got, expected) in enumerate(zip(ours, theirs, strict=True)):
        torch.testing.assert_close(got, expected, **tolerance, msg=lambda text, place=place: f"{place}: {text}")


@pytest.mark.slow
@staged
@pytest.mark.parametrize("dropped", [False, True], ids=["plain", "recurrent dropout"])
def test_compiled_kernels_have_the_gradients_of_the_reference(compiling, monkeypatch, case, dropped):
    layer, _ = make_layer(case, input_size=I, hidden_size=H, dtype=torch.float32)
    cell = layer.cells[0]
    if dropped and not cell.product_weights():
        pytest.skip("no product takes the hidden state")
    if dropped:
        cell = RecurrentDropout(cell, dropout=0.4)
    inputs = torch.randn(B, T, I, requires_grad=True)
    state = cell.initial_state(B)
    in_cpp = []
    real = program.run_in_cpp
    monkeypatch.setattr(program, "run_in_cpp", lambda *given: in_cpp.append(real(*given)) or in_cpp[-1])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rnnzoo:.*")
        for lengths in (None, torch.tensor([T, 0, 2])):
            ours = gradients(fused.run, cell, inputs, lengths, state)
            assert_same(ours, gradients(reference.run, cell, inputs, lengths, state), rtol=1e-3, atol=1e-4)
    assert cache._compiled
    assert panels.library() is None or all(in_cpp)  # nothing that can be said in C++ is left to Python


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lstm", "gru", "gru_reset_before", "mogrifier", "slstm"])
@pytest.mark.parametrize("whole", [False, True], ids=["autocast", "cell"])
def test_compiled_kernels_in_bfloat16(compiling, name, whole):
    """Compiled code trusts the types that it was made for; those of the first step back are like those of the rest."""
    torch.manual_seed(0)
    cell = make_cell(name, input_size=I, hidden_size=H)
    inputs = torch.randn(B, T, I, requires_grad=True)
    if whole:
        cell, inputs = cell.bfloat16(), inputs.detach().bfloat16().requires_grad_()
    exact = gradients(reference.run, cell, inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rnnzoo:.*")
        with torch.autocast("cpu", torch.bfloat16, enabled=not whole):
            ours = gradients(fused.run, cell, inputs)
    for got, expected in zip(ours, exact, strict=True):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(got.float(), expected.float(), rtol=0.05, atol=0.05 * scale)
    assert cache._compiled


@pytest.mark.parametrize("name", ["gru", "mut1"])  # an affine projection and another one
@pytest.mark.parametrize("lengths", [None, torch.tensor([T, 0, 2])], ids=["even", "ragged"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float16])
def test_autocast_in_cpp_takes_the_kernels_of_float32(compiling, monkeypatch, name, lengths, given):
    """Only products are made in bfloat16: what is between is the same code, and what is kept is as exact."""
    panels.load()
    if panels.library() is None or not panels.offers_products(torch.bfloat16):
        pytest.skip("needs a compiler, and a processor with AMX")
    torch.manual_seed(0)
    cell = make_cell(name, input_size=I, hidden_size=H)
    inputs = torch.randn(B, T, I, requires_grad=True)
    exact = gradients(fused.run, cell, inputs, lengths)
    compiled = set(cache._compiled)
    in_cpp = []
    real = program.run_in_cpp
    monkeypatch.setattr(program, "run_in_cpp", lambda *given: in_cpp.append(real(*given)) or in_cpp[-1])
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(fused.run, cell, inputs.detach().to(given).requires_grad_(), lengths)
    assert in_cpp
    assert all(in_cpp)
    assert set(cache._compiled) == compiled
    assert ours[2].dtype == given  # the gradient of the inputs
    for got, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(got.float(), expected, rtol=0.05, atol=0.05 * max(1.0, expected.abs().max().item()))


@pytest.mark.parametrize("name", ["gru", "lstm", "indrnn", "peephole", "cifg", "mogrifier"])
def test_gradients_of_a_narrow_cell_are_summed_wide_over_the_steps(name):
    torch.manual_seed(1)
    cell = make_cell(name, input_size=4, hidden_size=4).bfloat16()
    inputs, weights = torch.randn(4, 600, 4).bfloat16(), torch.rand(4, 600, 4).bfloat16()
    found = []
    for run, dtype in ((fused.run, torch.bfloat16), (reference.run, torch.float64)):
        cell.to(dtype)
        outputs, _ = run(cell, inputs.to(dtype), None, None)
        found.append(torch.autograd.grad((outputs * weights.to(dtype)).double().sum(), list(cell.parameters())))
    for got, expected in zip(*found, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got.double() - expected).norm() < 0.02 * expected.norm()  # 0.2 where each step is rounded


def test_layouts_are_compiled_when_they_have_come_often(monkeypatch, compiling):
    monkeypatch.delenv("RNNZOO_COMPILE")
    monkeypatch.setattr(cache, "COMPILE_AFTER", 3)
    compiled = []
    monkeypatch.setattr(cache, "compile_kernel", lambda kernel, *given: compiled.append(given) or kernel)
    cell = make_cell("lstm", input_size=I, hidden_size=H)
    fused.run(cell, torch.randn(B, T, I), None, None)
    fused.run(cell, torch.randn(B + 1, T, I), torch.tensor([1, 2, T, *[3] * (B - 2)]), None)
    assert not compiled
    fused.run(cell, torch.randn(1, T + 3, I), None, None)  # how many rows and steps is none of a kernel's business
    assert len(compiled) == 1
    for scale in range(2 * cache.MOST_LAYOUTS):
        cell.bias = torch.nn.Parameter(torch.zeros(4 * H, scale + 2)[:, 0])
        for _ in range(3):
            fused.run(cell, torch.randn(B, 1, I), None, None)
    assert len(compiled) == cache.MOST_LAYOUTS


@pytest.mark.parametrize("how", ["no compiler", "wrong numbers"])
def test_without_a_compiler_plain_torch_runs_with_one_warning(monkeypatch, compiling, how):
    def broken(graph, inputs):
        if how == "no compiler":
            raise RuntimeError("g++ not found")
        return lambda *tensors: tensors[-1].fill_(7.0)

    lookup = torch_private.lookup
    changed = {"torch._inductor.compile": broken}
    monkeypatch.setattr(torch_private, "lookup", lambda path: changed.get(path) or lookup(path))
    cell = make_cell("lstm", input_size=I, hidden_size=H).double()
    inputs = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = gradients(fused.run, cell, inputs)
        gradients(fused.run, cell, inputs, torch.tensor([T, 1, 2]))
    told = [str(each.message) for each in caught if "rnnzoo" in str(each.message)]
    assert len(told) == 1
    assert "no compiled kernels" in told[0]
    assert not cache.can_compile(torch.device("cpu"))
    assert_same(ours, gradients(reference.run, cell, inputs), **TOLERANCES[torch.float64])


def test_a_second_derivative_is_refused():
    cell = make_cell("lstm", input_size=I, hidden_size=H)
    outputs, _ = fused.run(cell, torch.randn(B, T, I, requires_grad=True), None, None)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice: choose backend 'reference'"):
        torch.autograd.grad(outputs.sum(), list(cell.parameters()), create_graph=True)


@staged
def test_the_graph_can_be_used_twice(case):
    layer, _ = make_layer(case, input_size=I, hidden_size=H)
    outputs, _ = fused.run(layer.cells[0], torch.randn(B, T, I, dtype=torch.float64), None, None)
    leaves = list(layer.parameters())
    first = torch.autograd.grad(outputs.sum(), leaves, retain_graph=True, allow_unused=True)
    second = torch.autograd.grad(outputs.sum(), leaves, allow_unused=True)
    assert all(one is other or torch.equal(one, other) for one, other in zip(first, second, strict=True))


@staged
def test_long_rows_in_several_chunks(monkeypatch, case):
    monkeypatch.setattr(schedule, "CHUNK", 1)  # a chunk a step
    layer, _ = make_layer(case, input_size=I, hidden_size=H)
    inputs = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    for lengths in (None, torch.tensor([2, 0, T])):
        ours = gradients(fused.run, layer.cells[0], inputs, lengths)
        assert_same(ours, gradients(reference.run, layer.cells[0], inputs, lengths), **TOLERANCES[torch.float64])


@staged
def test_autocast_keeps_the_state_in_float32(case):
    layer, _ = make_layer(case, input_size=I, hidden_size=H, dtype=torch.float32)
    cell = layer.cells[0]
    inputs = torch.randn(B, T, I, requires_grad=True)
    exact = gradients(reference.run, cell, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, final = fused.run(cell, inputs, None, None)
    assert all(field.dtype == torch.float32 for field in flatten(final))
    torch.testing.assert_close(outputs.float(), exact[0], rtol=0.2, atol=0.2)
    outputs.float().sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in (inputs, *cell.parameters()))


def test_frozen_weights_get_no_gradient():
    cell = make_cell("lstm", input_size=I, hidden_size=H)
    cell.recurrent_weight.requires_grad_(False)
    fused.run(cell, torch.randn(B, T, I), None, None)[0].sum().backward()
    assert cell.recurrent_weight.grad is None
    assert cell.input_weight.grad.abs().sum() > 0


def test_nothing_is_kept_without_a_gradient():
    cell = make_cell("lstm", input_size=I, hidden_size=H)
    with torch.no_grad():
        outputs, _ = fused.run(cell, torch.randn(B, T, I), None, None)
    assert outputs.grad_fn is None


def test_dropped_weights_reach_the_parameters():
    cell = make_cell("lstm", input_size=I, hidden_size=H).double()
    inputs = torch.randn(B, T, I, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (fused.run, reference.run):
        torch.manual_seed(0)
        outputs, _ = run(drop_weights(cell, 0.5), inputs, None, None)
        found.append(torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()]))
    assert_same(*found, **TOLERANCES[torch.float64])


@pytest.mark.parametrize(
    ("name", "additive", "operands", "parameters"),
    [
        ("lstm", True, (0,), ()),
        ("gru", False, (0,), ("candidate_bias",)),
        ("gru_reset_before", False, (0, None), ()),
    ],
)
def test_the_form_of_a_cell(name, additive, operands, parameters):
    cell = make_cell(name, input_size=I, hidden_size=H)
    form = analyze_step(cell, cell.project(torch.zeros(1, I)).shape[-1], cell.initial_state(1))
    assert (form.additive, form.operands, form.parameters) == (additive, operands, parameters)
    assert form.output == 0


def test_cells_that_compute_otherwise_have_other_signatures():
    class Scaled(GatedCell):
        gate_count = 1

        def __init__(self, *, input_size, hidden_size, factor=1.0):
            super().__init__(input_size=input_size, hidden_size=hidden_size)
            self.factor = factor

        def gates(self, projected, recurrent, state):
            hidden = torch.tanh(self.factor * (projected + recurrent))
            return hidden, HiddenState(hidden)

    one, other = (Scaled(input_size=I, hidden_size=H, factor=factor) for factor in (1.0, 2.0))
    assert signature(one) != signature(other)
    assert signature(one) == signature(Scaled(input_size=I, hidden_size=H))


def test_a_frozen_cell_may_be_run_first(monkeypatch):
    monkeypatch.setattr(fused, "_forms", {})
    cell = make_cell("peephole", input_size=I, hidden_size=H).requires_grad_(False)
    inputs = torch.randn(B, T, I, requires_grad=True)
    found = [
        torch.autograd.grad(run(cell, inputs, None, None)[0].sum(), inputs)[0] for run in (fused.run, reference.run)
    ]
    torch.testing.assert_close(*found)


def test_nothing_is_kept_where_no_gradient_is_wanted(monkeypatch):
    kept = []
    real = fused.schedule_forward
    monkeypatch.setattr(
        fused, "schedule_forward", lambda plan, keep, *tensors: kept.append(keep) or real(plan, keep, *tensors)
    )
    cell, inputs = make_cell("lstm", input_size=I, hidden_size=H), torch.randn(B, T, I)
    fused.run(cell, inputs, None, None)
    with torch.no_grad():
        fused.run(cell, inputs, None, None)
    assert kept == [True, False]


@staged
def test_the_first_state_of_a_run_may_be_narrow(monkeypatch, case):
    """A bridge under autocast hands on a narrow one to a cell that nobody has examined yet."""
    monkeypatch.setattr(fused, "_forms", {})
    cell = make_layer(case, input_size=I, hidden_size=H, dtype=torch.float32)[0].cells[0]
    state = map_state(lambda field: torch.rand_like(field), cell.initial_state(B))
    inputs = torch.randn(B, T, I, requires_grad=True)
    expected = gradients(reference.run, cell, inputs, None, state)
    state = map_state(lambda field: field.to(torch.bfloat16), state)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, final = fused.run(cell, inputs, None, state)
    torch.testing.assert_close(outputs.float(), expected[0], rtol=0.05, atol=0.1)
    sum(value.float().sum() for value in (outputs, *flatten(final))).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in cell.parameters() if parameter.grad is not None)


@pytest.mark.slow
def test_cells_whose_buffers_differ_share_no_compiled_code(compiling):
    """Compiled code holds the very tensor."""

    class Leaking(GatedCell):
        gate_count = 1

        def __init__(self, *, input_size, hidden_size, rate):
            super().__init__(input_size=input_size, hidden_size=hidden_size)
            self.register_buffer("rate", torch.full((hidden_size,), rate))

        def gates(self, projected, recurrent, state):
            hidden = self.rate * state.hidden + torch.tanh(projected + recurrent)
            return hidden, HiddenState(hidden)

    for rate in (0.1, 0.5):
        cell = Leaking(input_size=I, hidden_size=H, rate=rate)
        inputs = torch.randn(B, T, I, requires_grad=True)
        assert_same(
            gradients(fused.run, cell, inputs), gradients(reference.run, cell, inputs), rtol=1e-3, atol=1e-4
        )  # fmt: skip
    assert cache._compiled


@pytest.mark.parametrize(("name", "backend"), [("lstm", "fused"), ("rg_lru", "scan")])
def test_recomputing_works_when_the_cell_is_run_for_the_first_time(monkeypatch, name, backend):
    """What is found out about a cell once saves tensors, which are not saved again."""
    monkeypatch.setattr(fused, "_forms", {})
    monkeypatch.setattr(scan, "_used", {})
    layer = Recurrent(cell=name, input_size=I, hidden_size=H, recompute=True, backend=backend)
    layer(torch.randn(B, T, I))[0].sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("backend", ["fused", "native", "reference"])
def test_recomputing_gives_the_same_gradients_and_keeps_less(backend):
    torch.manual_seed(0)
    kept, found = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        layer = Recurrent(
            cell="lstm",
            input_size=I,
            hidden_size=H,
            num_layers=2,
            recompute=recompute,
            weight_drop=0.3,
            backend=backend,
        ).double()
        inputs = torch.randn(B, 12, I, dtype=torch.float64, requires_grad=True)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda value, sizes=sizes: sizes.append(value.numel()) or value, lambda value: value
        ):
            outputs, _ = layer(inputs)
        kept.append(sum(sizes))
        found.append(torch.autograd.grad(outputs.square().sum(), [inputs, *layer.parameters()]))
    assert_same(*found, **TOLERANCES[torch.float64])
    assert kept[1] < kept[0]


class Buffered(GatedCell):
    """A cell that reads a buffer, and a number of its own."""

    gate_count = 1

    def __init__(self, *, input_size, hidden_size):
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.register_buffer("scale", torch.rand(hidden_size))
        self.least = 0.0

    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent) * self.scale + 1 / torch.full_like(projected, self.least).exp()
        return hidden, HiddenState(hidden)


def test_a_buffer_that_is_replaced_in_its_place_is_read_as_it_is(compiling):
    """Compiled code knows how long it is, and how it lies; -0.0 and 0.0 are two programs."""
    cell = Buffered(input_size=I, hidden_size=H)
    inputs = torch.randn(B, T, I, requires_grad=True)
    for scale in (cell.scale, torch.rand(1), torch.rand(2 * H)[::2], torch.rand(H)):
        cell.scale.data = scale
        assert_same(gradients(fused.run, cell, inputs), gradients(reference.run, cell, inputs), rtol=1e-4, atol=1e-5)
    marks = []
    for least in (0.0, -0.0, math.nan, math.nan):
        cell.least = least
        marks.append(signature(cell))
    assert len(set(marks)) == 3


def test_a_run_that_makes_no_numbers_leaves_none_to_later_ones():
    """Tables of places are made once, but not of tensors that stand for others."""
    cell = make_cell("gru", input_size=I, hidden_size=H)
    inputs = torch.randn(B + 4, T, I)
    fused.run(cell, inputs[:1], None, None)  # the cell is examined
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, contextlib.suppress(Exception):
        fused.run(cell, mode.from_tensor(inputs), None, None)
    torch.testing.assert_close(fused.run(cell, inputs, None, None)[0], reference.run(cell, inputs, None, None)[0])


def test_threads_compile_one_after_another(compiling):
    """torch traces one function at a time: of two at once both would fail, and stay plain for good."""
    cells = [make_cell(name, input_size=I, hidden_size=H) for name in ("gru", "lstm", "mgu", "janet")]
    with ThreadPoolExecutor(len(cells)) as pool:
        list(pool.map(lambda cell: fused.run(cell, torch.randn(B, T, I), None, None), cells))
    assert not cache._failures
    assert panels.library() is None or all(isinstance(each, Compiled) for each in cache._compiled.values())
