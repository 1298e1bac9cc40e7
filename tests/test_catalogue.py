"""The catalogue is complete, both ways, and says the truth."""

from __future__ import annotations

import inspect
import subprocess
import sys

import catalogue
import pytest

from rnnzoo.backends import BACKENDS
from rnnzoo.backends.select import choose
from rnnzoo.cells import CELLS, list_cells, make_cell
from rnnzoo.cells.base import Cell, GatedCell, LinearCell, StagedCell
from rnnzoo.errors import InputError

STAGED = ("gated", "staged")

cells = pytest.mark.parametrize("case", catalogue.CELLS.values(), ids=list(catalogue.CELLS))


def test_every_registered_cell_is_listed_and_the_other_way_round():
    assert set(CELLS) == set(catalogue.CELLS)
    assert list_cells() == list(CELLS)


def test_every_registered_backend_is_listed_and_the_other_way_round():
    assert set(BACKENDS) == set(catalogue.BACKENDS)


def test_registered_names_are_found():
    assert all(issubclass(CELLS[name], Cell) for name in CELLS)
    assert all(BACKENDS[name].__module__ == case.module for name, case in catalogue.BACKENDS.items())


@cells
def test_kind(case):
    assert CELLS.entry(case.name).facts["kind"] == case.kind
    kinds = {"gated": GatedCell, "staged": StagedCell, "linear": LinearCell, "general": Cell}
    assert case.kind == next(kind for kind, base in kinds.items() if issubclass(CELLS[case.name], base))


@cells
def test_options_are_all_listed(case):
    known = set(inspect.signature(CELLS[case.name]).parameters) - {"input_size", "hidden_size"}
    assert known == set(case.options)


@cells
def test_reference_has_the_parameters_and_the_state_of_the_cell(case):
    cell = make_cell(case.name, input_size=3, hidden_size=4)
    weights = case.reference.weights(0, input_size=3, hidden_size=4)
    assert {name: tuple(value.shape) for name, value in cell.named_parameters()} == {
        name: value.shape for name, value in weights.items()
    }
    assert cell.initial_state(2)._fields == case.reference.fields


@cells
@pytest.mark.parametrize("backend", catalogue.BACKENDS)
def test_a_backend_runs_what_is_listed_and_refuses_the_rest(case, backend):
    cell = make_cell(case.name, input_size=3, hidden_size=4)
    if backend in case.backends:
        assert choose(cell, backend).name == backend
    else:
        with pytest.raises(InputError, match=f"{backend!r}, but"):
            choose(cell, backend)


@pytest.mark.parametrize("backend", catalogue.BACKENDS)
def test_the_listing_names_the_cells_that_a_backend_runs(backend):
    runs = BACKENDS.entry(backend).facts["runs"]
    groups = {
        "every cell": set(catalogue.CELLS),
        "every gated or staged cell": {case.name for case in catalogue.CELLS.values() if case.kind in STAGED},
        "every linear cell": {case.name for case in catalogue.CELLS.values() if case.kind == "linear"},
    }
    named = groups[runs] if runs in groups else set(runs.split(", "))
    assert named == {case.name for case in catalogue.CELLS.values() if backend in case.backends}


def test_listing_imports_no_torch():
    program = (
        "import sys; from rnnzoo.cells import list_cells; from rnnzoo.backends import BACKENDS;"
        "assert list_cells() and list(BACKENDS); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
