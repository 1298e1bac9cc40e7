"""Each law catches a cell, or a backend, that breaks it; a good one passes and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from broken_cells import (
    AnotherState,
    BranchesOnData,
    ChangesTheProjection,
    ChangesTheState,
    CountsCalls,
    CountsItsRows,
    CutsTheGraph,
    Decay,
    DrawsRandomNumbers,
    Forgets,
    HasAnIdleParameter,
    HasNoGradientAtZero,
    IgnoresState,
    KeepsALooseTensor,
    KeepsItsWeight,
    LooksAtOtherRows,
    Narrows,
    NormalisesTheBatch,
    Overflows,
    Plain,
    Remembers,
    SeesTheFuture,
    SkipsHooks,
    StartsInFloat32,
    StartsOnTheCpu,
    StartsWithThreeRows,
    SwapsOutputs,
    TwoTruths,
    WithNamesOfWrappers,
    WithTwoFields,
    WrongInHalf,
    WrongOutputSize,
    cutting,
    double_only,
    frozen,
    graphless,
    long_only,
    many_only,
    needing_rows,
    padding_steps_in,
    reading_padding,
    rounding,
    scribbling,
    starting_elsewhere,
    training_only,
    unmasked,
    without_holding,
)
from torch import nn

from rnnzoo.backends import BACKENDS
from rnnzoo.cells import CELLS
from rnnzoo.cells.base import HiddenState
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.state import map_state
from rnnzoo.testing import BrokenLawError, check_cell, list_laws
from rnnzoo.testing.backend_laws import BACKEND_LAWS, both_directions

BROKEN = [
    (Remembers, "The same call again|Chunks with carried state|A deep copy"),
    (CountsCalls, "A step leaves projected input, state, parameters and buffers as they are.*calls 0"),
    (LooksAtOtherRows, "A row alone, cut to its length.*outputs of row"),
    (IgnoresState, "Every parameter gets a gradient.*recurrent_weight"),
    (Forgets, "the state matters.*expected other outputs from another state, got the same"),
    (SeesTheFuture, "`project` looks at no other step.*projection of step 0"),
    (NormalisesTheBatch, "`project` looks at no other step and no other row.*projection of row 0"),
    (SwapsOutputs, r"A step returns the output \[B, O\].*expected \(output, state\), got \(HiddenState, Tensor\)"),
    (WrongOutputSize, r"A step returns the output \[B, O\].*shape \[4, 4\], got \[4, 3\]"),
    (AnotherState, "a state of the same type.*a HiddenState, got a tuple"),
    (Narrows, r"number types as the one it got.*float64, got \[4, 4\] torch.float32"),
    (ChangesTheState, "A step leaves.*the state's hidden"),
    (ChangesTheProjection, "A step leaves.*the projected input"),
    (StartsInFloat32, "in the type of the parameters.*float64, got torch.float32"),
    (StartsOnTheCpu, "on the device of the parameters, got cpu"),
    (StartsWithThreeRows, r"as many rows as asked for.*of 0 rows, got \[3, 4\]"),
    (KeepsALooseTensor, "same state_dict.*a loaded cell"),
    (HasAnIdleParameter, "Every parameter gets a gradient.*idle, got zeros"),
    (BranchesOnData, "the same program for all numbers"),
    (DrawsRandomNumbers, "The same call again gives the same|a copy"),
    (HasNoGradientAtZero, "finite gradient of .* of zeros, got nan"),
    (Overflows, "are finite.*where inputs are large"),
    (CutsTheGraph, r"backend fused \(no lengths.*those of the reference.*gradient of"),
    (CountsItsRows, "A row alone"),
    (TwoTruths, "backend scan.*those of the reference.*outputs"),
    (WrongInHalf, "In float32 all is near"),
    (KeepsItsWeight, "Weights that are computed from others.*of pruned weights"),
    (SkipsHooks, "run once for each call"),
]


@pytest.mark.parametrize(("kind", "message"), BROKEN, ids=[kind.__name__ for kind, _ in BROKEN])
def test_a_broken_cell_is_caught(kind, message):
    with pytest.raises(BrokenLawError, match=rf"(?s)cell {kind.__name__}.*({message})"):
        check_cell(kind)


FASTER = {
    unmasked: "those of the reference backend.*outputs",
    without_holding: "those of the reference backend.*final hidden",
    padding_steps_in: "those of the reference backend.*final hidden",
    cutting: "those of the reference backend.*gradient of the first state's hidden",
    frozen: "those of the reference backend.*gradient of inputs",
    rounding: "those of the reference backend.*outputs",
    graphless: "The same call again",
    training_only: "The same call again",
    starting_elsewhere: "Without steps the state is handed back|Chunks",
    long_only: "Chunks with carried state.*outputs",
    many_only: "A row alone.*outputs of row 0",
    double_only: "In float32 all is near",
    needing_rows: "without rows there are no outputs",
    reading_padding: "What stands on the padding",
}


@pytest.fixture
def backend(request):
    """Register a backend that is wrong."""
    BACKENDS.add("wrong", request.param, "wrong in one way")
    yield "wrong"
    BACKENDS.remove("wrong")


@pytest.mark.parametrize(
    ("backend", "message"), FASTER.items(), ids=[run.__name__ for run in FASTER], indirect=["backend"]
)
def test_a_broken_backend_is_caught(backend, message):
    with pytest.raises(BrokenLawError, match=rf"(?s)cell Plain, backend wrong \(.*({message})"):
        check_cell(Plain, backends=[backend])


ALONE = {  # law → a backend that breaks it, tried without the comparison with the reference before
    unmasked: "Outputs past a row's length are exactly zero",
    without_holding: "a row of length 0 returns the state that it got",
    padding_steps_in: "a row of length 0 returns|What stands on the padding|A row alone|Chunks",
    cutting: "Chunks with carried state",
    scribbling: "A run leaves inputs, state, lengths.*expected inputs",
}


@pytest.mark.parametrize(
    ("backend", "message"), ALONE.items(), ids=[run.__name__ for run in ALONE], indirect=["backend"]
)
def test_laws_stand_on_their_own(backend, message, monkeypatch):
    monkeypatch.setattr("rnnzoo.testing.reference_is_equalled", lambda *arguments: None)
    with pytest.raises(BrokenLawError, match=rf"(?s)({message})"):
        check_cell(Plain, backends=[backend])


def backwards(inputs, lengths):
    return inputs.flip(1)


def drifting(self, inputs, state):
    outputs, state = STEP(self, inputs, state)
    return 0.99 * outputs, state


def resetting_all(self, batch_size):
    """Return another initial state in each call for the same cell."""
    self.calls = getattr(self, "calls", 0) + 1
    return map_state(lambda field: field + self.calls, INITIAL(self, batch_size))


STEP, INITIAL = Recurrent.step, Recurrent.initial_state


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (
            "rnnzoo.layers.recurrent.reverse_padded",
            backwards,
            "The backward direction is the cell on each row",
        ),
        ("rnnzoo.layers.recurrent.Recurrent.step", drifting, "Single steps give what the whole gives"),
        ("rnnzoo.layers.recurrent.Recurrent.initial_state", resetting_all, "fresh start|no state is the initial state"),
    ],
)
def test_broken_layers_are_caught(place, wrong, message, monkeypatch):
    """What the layers do beside the cell; the law is tried alone where others would see it before."""
    monkeypatch.setattr(place, wrong)
    assert both_directions in BACKEND_LAWS
    if wrong is backwards:
        monkeypatch.setattr("rnnzoo.testing.BACKEND_LAWS", (both_directions,))
    with pytest.raises(BrokenLawError, match=message):
        check_cell(Plain, backends=["reference"])


@pytest.mark.parametrize("kind", [Plain, WithTwoFields, WithNamesOfWrappers, Decay])
def test_good_cells_pass_on_every_backend_and_leave_nothing_behind(kind, monkeypatch):
    before, stream = list(CELLS), torch.get_rng_state()
    monkeypatch.delenv("RNNZOO_COMPILE")
    check_cell(kind)
    assert list(CELLS) == before
    assert torch.equal(torch.get_rng_state(), stream)
    assert "RNNZOO_COMPILE" not in os.environ


def test_nothing_is_left_behind_by_a_broken_cell_either():
    before, stream = list(CELLS), torch.get_rng_state()
    with pytest.raises(BrokenLawError):
        check_cell(LooksAtOtherRows)
    assert list(CELLS) == before
    assert torch.equal(torch.get_rng_state(), stream)
    assert os.environ["RNNZOO_COMPILE"] == "0"


class WideState(Plain):
    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if hidden_size % 3:
            raise InputError("hidden_size", expected="a multiple of 3", got=str(hidden_size))

    def initial_state(self, batch_size):
        return HiddenState(self.bias.new_zeros(batch_size, self.hidden_size, 2))


def test_a_state_that_registration_could_not_look_at_is_looked_at():
    with pytest.raises(BrokenLawError, match=r"cell WideState: The state is a NamedTuple.*without a vector hidden"):
        check_cell(WideState, hidden_size=6)


def test_options_and_sizes_go_to_the_cell(monkeypatch):
    seen = []
    build = Decay.__init__

    def spy(self, *, input_size: int, hidden_size: int, scale: float = 1.0) -> None:
        seen.append((input_size, hidden_size, scale))
        build(self, input_size=input_size, hidden_size=hidden_size, scale=scale)

    monkeypatch.setattr(Decay, "__init__", spy)
    check_cell(Decay, input_size=2, hidden_size=6, scale=0.5, backends=["reference"])
    assert set(seen[1:]) == {(2, 6, 0.5), (6, 6, 0.5), (12, 6, 0.5)}


def test_what_is_no_question_of_laws_is_refused():
    with pytest.raises(
        InputError, match=r"options of cell .*: expected one of scale, got 'scal'.*did you mean 'scale'"
    ):
        check_cell(Decay, scal=2.0)
    with pytest.raises(InputError, match="did you mean 'gru'"):
        check_cell("gruu")
    with pytest.raises(InputError, match="'native', but torch has no kernel for Plain"):
        check_cell(Plain, backends=["native"])
    with pytest.raises(InputError, match="did you mean 'fused'"):
        check_cell(Plain, backends=["fusd"])
    with pytest.raises(InputError, match="a class that derives from"):
        check_cell(nn.LSTMCell)


def test_every_law_is_said_in_words():
    laws = list_laws()
    assert len(set(laws)) == len(laws) > 15
    assert all(law.endswith(".") and len(law) > 40 for law in laws)


def test_no_test_framework_and_no_numpy_are_needed():
    program = (
        "import sys; sys.modules['pytest'] = None; from rnnzoo.testing import check_cell; check_cell('mingru');"
        "import rnnzoo.testing as t; from pathlib import Path;"
        "assert not any('numpy' in p.read_text() for p in Path(t.__file__).parent.glob('*.py'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
