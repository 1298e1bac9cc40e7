"""What is found out of a cell once and kept: it is the same however the cell was first run, and not another cell's."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from catalogue import CELLS, make_layer
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from rnnzoo.backends import reference
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.fused.structure import analyze_step
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import GatedCell, HiddenState
from rnnzoo.cells.views import signature
from rnnzoo.layers.recurrent import Recurrent

PAIRS = [(name, backend) for name, case in CELLS.items() for backend in case.backends if backend != "reference"]


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """Begin as a new process does."""
    monkeypatch.setattr(fused, "_forms", {})
    monkeypatch.setattr(scan, "_used", {})


def gradients(layer, inputs):
    outputs, _ = layer(inputs)
    names, values = zip(*layer.named_parameters(), strict=True)
    found = torch.autograd.grad(outputs.square().sum(), values, allow_unused=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("name", "backend"), PAIRS, ids=lambda value: value)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_first_run_without_gradients_takes_none_away(name, backend, mode):
    inputs = torch.randn(2, 3, 3, dtype=torch.float64)
    layer, _ = make_layer(CELLS[name], backend=backend)
    plain, _ = make_layer(CELLS[name], backend="reference")
    with mode():
        layer(inputs.clone())
    found, expected = gradients(layer, inputs), gradients(plain, inputs)
    for key, value in expected.items():
        assert (found[key] is None) == (value is None), key
        if value is not None:
            torch.testing.assert_close(found[key], value)


class Flexible(GatedCell):
    """A cell whose attributes say what it computes."""

    gate_count = 1

    def __init__(self, *, input_size: int, hidden_size: int, constant: object = None) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.constant = constant
        self.gain = nn.Parameter(torch.ones(hidden_size))

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        total = projected + recurrent
        hidden = torch.tanh(total * self.gain if self.constant else total)
        return hidden, HiddenState(hidden)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((), (1.0,)),
        ([1], [2]),
        ({"a": (1,)}, {"a": (2,)}),
        ({1}, {2}),
        (torch.float32, torch.float64),
        (torch.ones(2), torch.zeros(2)),
        ((torch.ones(2),), (torch.zeros(2),)),
        (1, True),
        (bytearray(b"a"), bytearray(b"b")),
    ],
    ids=str,
)
def test_cells_that_differ_in_an_attribute_share_nothing(one, other):
    make = {"input_size": 2, "hidden_size": 2}
    assert signature(Flexible(**make, constant=one)) != signature(Flexible(**make, constant=other))


def test_cells_of_equal_attributes_share():
    make = {"input_size": 2, "hidden_size": 2, "constant": ([1, 2.0], {"a": None})}
    first, second = signature(Flexible(**make)), signature(Flexible(**make))
    assert first == second
    assert hash(first) == hash(second)
    tensor = torch.ones(2)
    shared = [signature(Flexible(input_size=2, hidden_size=2, constant=tensor)) for _ in range(2)]
    assert shared[0] == shared[1]


def test_a_cell_with_more_parameters_in_use_is_not_run_as_one_with_fewer():
    for constant in ((), (1,)):
        cell = Flexible(input_size=3, hidden_size=4, constant=constant)
        outputs, _ = fused.run(cell, torch.randn(2, 3, 3), None, None)
        (found,) = torch.autograd.grad(outputs.sum(), [cell.gain], allow_unused=True)
        assert (found is None) == (not constant)


class Apart(GatedCell):
    """A cell that does something to each sum before it adds them."""

    gate_count = 1

    def __init__(self, *, input_size: int, hidden_size: int, kind: str = "clamp") -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.kind = kind

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        shape = {"clamp": lambda x: x.clamp(-30, 30), "relu": torch.relu, "abs": torch.abs, "sinh": torch.asinh}[
            self.kind
        ]
        hidden = torch.tanh(0.01 * (shape(projected) + shape(recurrent)))
        return hidden, HiddenState(hidden)


@pytest.mark.parametrize("kind", ["clamp", "relu", "abs", "sinh"])
def test_sums_that_are_not_plainly_added_are_seen(kind):
    cell = Apart(input_size=3, hidden_size=8, kind=kind)
    assert not analyze_step(cell, 8, cell.initial_state(1)).additive
    inputs = 50 * torch.randn(4, 5, 3)
    torch.testing.assert_close(fused.run(cell, inputs, None, None)[0], reference.run(cell, inputs, None, None)[0])


class ContextState(NamedTuple):
    hidden: Tensor
    context: Tensor


class ContextCell(GatedCell):
    """A cell that hands a vector on as it is."""

    gate_count = 1

    def initial_state(self, batch_size: int) -> ContextState:
        zeros = self.bias.new_zeros(batch_size, self.hidden_size)
        return ContextState(zeros, zeros.clone())

    def gates(self, projected: Tensor, recurrent: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        hidden = torch.tanh(projected + recurrent + state.context)
        return hidden, state._replace(hidden=hidden)


@pytest.mark.parametrize("lengths", [None, [3, 1]], ids=["full", "ragged"])
@pytest.mark.parametrize("compiled", ["0", "1"])
def test_a_field_that_is_handed_on_has_its_gradient(monkeypatch, lengths, compiled):
    monkeypatch.setenv("RNNZOO_COMPILE", compiled)
    torch.manual_seed(0)
    cell = ContextCell(input_size=3, hidden_size=4).double()
    inputs = torch.randn(2, 3, 3, dtype=torch.float64)
    rows = None if lengths is None else torch.tensor(lengths)
    first = ContextState(*(torch.randn(2, 4, dtype=torch.float64) for _ in range(2)))
    found = []
    for run in (reference.run, fused.run):
        for wanted in ((True, True), (True, False), (False, True)):
            state = ContextState(
                *(field.clone().requires_grad_(want) for field, want in zip(first, wanted, strict=True))
            )
            outputs, final = run(cell, inputs, rows, state)
            loss = outputs.square().sum() + final.hidden.sin().sum() + final.context.cos().sum()
            leaves = [field for field in state if field.requires_grad]
            found.append([outputs, *final, *torch.autograd.grad(loss, [*leaves, *cell.parameters()])])
    for expected, got in zip(found[:3], found[3:], strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["lstm", "cifg", "mingru", "mogrifier", "rg_lru"])
@pytest.mark.parametrize("which", ["weight_norm", "orthogonal"])
def test_parametrized_weights_are_run(name, which):
    found = []
    for backend in ("auto", "reference"):
        torch.manual_seed(0)
        layer = Recurrent(cell=name, input_size=4, hidden_size=4, backend=backend).double()
        weight = "input_weight" if name != "rg_lru" else "gate_weight"
        getattr(parametrizations, which)(layer.cells[0], weight)
        found.append(
            gradients(layer, torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
        )
    torch.testing.assert_close(found[0], found[1])


def test_the_catalogue_is_as_additive_as_it_was():
    names = [name for name, backend in PAIRS if backend == "fused"]
    cells = {name: make_cell(name, input_size=3, hidden_size=4) for name in names}
    found = {
        name
        for name, cell in cells.items()
        if analyze_step(cell, cell.project(torch.zeros(1, 3)).shape[-1], cell.initial_state(1)).additive
    }
    plain = {
        "rnn",
        "rnn_relu",
        "irnn",
        "ugrnn",
        "janet",
        "lstm",
        "nig",
        "nfg",
        "nog",
        "niaf",
        "noaf",
        "cifg",
        "peephole",
    }
    assert found == plain | {"slstm"}


@pytest.mark.parametrize(("name", "backend"), PAIRS, ids=lambda value: value)
def test_what_was_made_in_inference_mode_runs_there(name, backend):
    with torch.inference_mode():
        layer, _ = make_layer(CELLS[name], backend=backend)
        plain, _ = make_layer(CELLS[name], backend="reference")
        inputs = torch.randn(2, 3, 3, dtype=torch.float64)
        torch.testing.assert_close(layer(inputs)[0], plain(inputs)[0])
