"""Ragged rows in groups: the numbers of all at once, whatever the order; and how many groups there are."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.backends import groups, native, reference
from rnnzoo.backends.groups import group_count
from rnnzoo.cells import make_cell
from rnnzoo.state import flatten, map_state
from rnnzoo.testing import check_cell


@pytest.fixture
def grouped(monkeypatch):
    """Make groups of batches as small as they are here; return the calls."""
    made = []

    def counted(lengths):
        made.append(lengths)
        return 2 if len(lengths) % 2 == 0 else 1

    monkeypatch.setattr(groups, "group_count", counted)
    return made


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("lengths", [[9, 1, 8, 2, 7, 3, 0, 4], [0, 0, 0, 0, 5, 9, 9, 9], [1, 9] * 4], ids=str)
def test_groups_give_what_the_plain_loop_gives(grouped, name, lengths):
    torch.manual_seed(0)
    cell = make_cell(name, input_size=3, hidden_size=4).double()
    rows = torch.tensor(lengths)
    values = torch.randn(8, 9, 3, dtype=torch.double)
    first = map_state(torch.randn_like, cell.initial_state(8))
    found = []
    for run in (native.run, reference.run):
        inputs = values.clone().requires_grad_()
        state = map_state(lambda field: field.clone().requires_grad_(), first)
        outputs, final = run(cell, inputs, rows, state)
        loss = outputs.sin().sum() + sum(field.cos().sum() for field in flatten(final))
        leaves = [inputs, *flatten(state), *cell.parameters()]
        found.append([outputs, *flatten(final), *torch.autograd.grad(loss, leaves, materialize_grads=True)])
    assert len(grouped) == 1
    torch.testing.assert_close(*found)


def test_the_laws_hold_in_groups(grouped):
    check_cell("lstm")
    assert any(len(lengths) % 2 == 0 for lengths in grouped)


def test_rows_that_differ_little_or_are_few_stay_together():
    assert group_count([]) == 1
    assert group_count([0] * 64) == 1
    assert group_count([30] * 60 + [24] * 4) == 1
    assert group_count([30] * 32 + [10] * 32) == 2
    assert group_count([40] * 16 + [30] * 16 + [20] * 16 + [10] * 16) == 4
    assert group_count([30] * 31 + [1] * 32) == 1  # no groups of one size
    assert group_count([30] * 8 + [1] * 8) == 1
