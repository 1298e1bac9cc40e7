"""Cells of users: what becomes of a class that gets a name, and of one that cannot."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from broken_cells import Decay, Plain
from torch import Tensor, nn

import rnnzoo
from rnnzoo import register_cell
from rnnzoo.cells import CELLS, list_cells, make_cell
from rnnzoo.cells.base import Cell, GatedCell, GatedLinearCell, HiddenState, LinearCell, StagedCell
from rnnzoo.errors import InputError
from rnnzoo.layers import Recurrent
from rnnzoo.registry import Registry


@pytest.fixture(autouse=True)
def forget():
    """Forget the names that a test gave."""
    before = list(CELLS)
    yield
    for name in [name for name in CELLS if name not in before]:
        CELLS.remove(name)


def test_a_registered_cell_is_one_of_the_zoo():
    register = register_cell("own", summary="of mine", source="me")
    assert register(Decay) is Decay
    assert "own" in list_cells()
    assert CELLS["own"] is Decay
    entry = CELLS.entry("own")
    assert entry.summary == "of mine"
    assert entry.facts == {"kind": "linear", "source": "me", "code": "broken_cells"}
    assert make_cell("own", input_size=2, hidden_size=3, scale=0.5).scale == 0.5
    with pytest.raises(InputError, match="options of cell 'own': expected one of scale, got 'scal'"):
        make_cell("own", input_size=2, hidden_size=3, scal=0.5)
    with pytest.raises(InputError, match="did you mean 'own'"):
        make_cell("owm", input_size=2, hidden_size=3)
    outputs, _ = Recurrent(cell="own", input_size=2, hidden_size=3, num_layers=2, bidirectional=True)(
        torch.ones(1, 4, 2)
    )
    assert outputs.shape == (1, 4, 6)


def test_summary_and_source_may_be_left_out():
    register_cell("own")(Decay)
    assert CELLS.entry("own").summary == "h' = σ(a) h + W x, with one decay a unit."
    assert CELLS.entry("own").facts["source"] == ""


@pytest.mark.parametrize(
    ("base", "kind"),
    [(Plain, "gated"), (Decay, "linear")],
)
def test_the_kind_is_that_of_the_base_class(base, kind):
    register_cell("own")(type("Own", (base,), {}))
    assert CELLS.entry("own").facts["kind"] == kind


def test_every_class_to_derive_from_has_a_kind():
    from rnnzoo.cells.registration import kind_of

    kinds = {GatedCell: "gated", StagedCell: "staged", LinearCell: "linear", GatedLinearCell: "linear", Cell: "general"}
    assert {base: kind_of(base) for base in kinds} == kinds


def test_a_taken_name_is_refused_but_a_class_may_be_defined_again():
    with pytest.raises(InputError, match="cell 'lstm': expected a new name, got one that is taken"):
        register_cell("lstm")(Plain)

    def define(count):
        @register_cell("own")
        class Own(Plain):
            __doc__ = f"version {count}"

        return Own

    define(1)
    again = define(2)
    assert CELLS["own"] is again
    assert CELLS.entry("own").summary == "version 2"
    with pytest.raises(InputError, match="taken"):
        register_cell("own")(Plain)


def test_registration_changes_no_random_numbers():
    before = torch.get_rng_state()
    register_cell("own")(Plain)
    assert torch.equal(torch.get_rng_state(), before)


class Positional(Plain):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size=input_size, hidden_size=hidden_size)


class Swallows(Plain):
    def __init__(self, *, input_size, hidden_size, **options):
        super().__init__(input_size=input_size, hidden_size=hidden_size)


class Demands(Plain):
    def __init__(self, *, input_size, hidden_size, rank):
        super().__init__(input_size=input_size, hidden_size=hidden_size)


class Fixed(Plain):
    def __init__(self, *, input_size):
        super().__init__(input_size=input_size, hidden_size=3)


class Fails(Plain):
    def __init__(self, *, input_size, hidden_size):
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        raise KeyError("nothing there")


class NoCount(GatedCell):
    def gates(self, projected, recurrent, state):
        return projected, state


class NoGates(GatedCell):
    gate_count = 1


class Bare(Plain):
    def initial_state(self, batch_size):
        return self.bias.new_zeros(batch_size, self.hidden_size)


class Unnamed(Plain):
    def initial_state(self, batch_size):
        return (self.bias.new_zeros(batch_size, self.hidden_size),)


class OddState(NamedTuple):
    memory: Tensor


class NoHidden(Plain):
    def initial_state(self, batch_size):
        return OddState(self.bias.new_zeros(batch_size, self.hidden_size))


class Nested(Plain):
    def initial_state(self, batch_size):
        return HiddenState(super().initial_state(batch_size))


class Counts(Plain):
    def initial_state(self, batch_size):
        return HiddenState(torch.zeros(batch_size, self.hidden_size, dtype=torch.long))


class RowsLast(Plain):
    def initial_state(self, batch_size):
        return HiddenState(self.bias.new_zeros(self.hidden_size, batch_size))


class NoRows(Plain):
    def initial_state(self, batch_size):
        return HiddenState(self.bias.new_zeros(self.hidden_size))


class Matrix(Plain):
    def initial_state(self, batch_size):
        return HiddenState(self.bias.new_zeros(batch_size, self.hidden_size, 2))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (nn.LSTMCell, "expected a class that derives from a class of rnnzoo.cells.base, got LSTMCell"),
        (lambda: None, "expected a class that derives from"),
        (
            Positional,
            r"expected a constructor \(self, \*, input_size: int, hidden_size: int, .*got input_size, hidden_size",
        ),
        (Swallows, r"expected a constructor.*got \*\*options"),
        (Demands, "expected a constructor.*got rank"),
        (Fixed, "expected a constructor.*got no hidden_size"),
        (Fails, r"can be built: Fails\(input_size=8, hidden_size=8\), got KeyError: 'nothing there'"),
        (NoCount, "can be built.*got AttributeError: .*gate_count"),
        (NoGates, "expected a class with the methods gates, got NoGates without"),
        (Bare, "NamedTuple of real tensors .*got a Tensor; use HiddenState for one vector"),
        (Unnamed, "NamedTuple of real tensors .*got a tuple"),
        (NoHidden, "got the fields memory without a vector hidden"),
        (Nested, "got hidden, a HiddenState"),
        (Counts, "got hidden of shape .* type torch.int64"),
        (RowsLast, r"got hidden of shape \[8, 3\]"),
        (NoRows, r"got hidden of shape \[8\]"),
        (Matrix, "without a vector hidden"),
    ],
)
def test_what_is_no_cell_is_refused(kind, message):
    with pytest.raises(InputError, match=rf"cell 'own': .*{message}"):
        register_cell("own")(kind)
    assert "own" not in CELLS


def test_a_class_that_wants_other_sizes_is_taken():
    class Even(Plain):
        def __init__(self, *, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size=input_size, hidden_size=hidden_size)
            if hidden_size % 3:
                raise InputError("hidden_size", expected="a multiple of 3", got=str(hidden_size))

    register_cell("own")(Even)
    assert make_cell("own", input_size=2, hidden_size=3).hidden_size == 3


@pytest.mark.parametrize("name", [Plain, "", "my cell", "a,b", "7th", None])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InputError, match="register_cell: expected a name such as 'my_cell'"):
        register_cell(name)


def test_names_are_forgotten():
    shapes = Registry("shape")
    shapes.add("path", "pathlib:PurePath", "a path")
    shapes.remove("path")
    assert list(shapes) == []
    with pytest.raises(InputError, match="shape: expected one of"):
        shapes.remove("path")


def test_the_decorator_is_found_without_importing_torch():
    assert rnnzoo.register_cell is register_cell
    program = "import sys, rnnzoo; assert 'register_cell' in rnnzoo.__all__; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
