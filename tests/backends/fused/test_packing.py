"""Packed rows: where they lie, and that every cell has the numbers and gradients of the plain loop on them."""

from __future__ import annotations

import pytest
import torch
from ragged import assert_as_reference

from rnnzoo.backends.fused import packing, schedule
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.fused.packing import Packing, pack_rows
from rnnzoo.cells import CELLS, make_cell
from rnnzoo.cells.base import StagedCell

LENGTHS = [[9, 1, 8, 2, 7, 3, 0, 4], [0, 0, 0, 0, 5, 9, 9, 12], [4] * 8, [0] * 7 + [1], [0] * 8]
MOST = [10, 1, 20, 20, 20]  # rows in a chunk, about
STAGED = [name for name in CELLS if issubclass(type(make_cell(name, input_size=2, hidden_size=2)), StagedCell)]


@pytest.mark.parametrize(("lengths", "most"), list(zip(LENGTHS, MOST, strict=True)), ids=str)
@pytest.mark.parametrize("name", STAGED)
def test_every_cell_gives_what_the_plain_loop_gives(monkeypatch, name, lengths, most):
    """Also where a chunk is one step, or few rows."""
    monkeypatch.setenv("RNNZOO_COMPILE", "0")
    monkeypatch.setattr(schedule, "CHUNK", most * 20)
    assert_as_reference(fused, name, lengths)


@pytest.mark.parametrize("name", STAGED)
def test_padding_that_is_kept_changes_nothing(monkeypatch, name):
    """As on a GPU."""
    monkeypatch.setenv("RNNZOO_COMPILE", "0")
    monkeypatch.setattr(packing, "keeps_padding", lambda lengths: True)
    assert_as_reference(fused, name, LENGTHS[0])


@pytest.mark.parametrize("lengths", [[2, 0, 3, 3], [3, 3, 3, 3], [1, 0, 0, 0], None], ids=str)
def test_where_rows_lie(lengths):
    rows, steps = 4, 3
    inputs = torch.arange(rows * steps).reshape(rows, steps, 1) + 1.0
    given = None if lengths is None else torch.tensor(lengths)
    found, mask = pack_rows(inputs, given)
    assert mask is None
    kept = [steps] * rows if lengths is None else lengths
    order = sorted(range(rows), key=lambda row: -kept[row])
    expected = [(row, step) for step in range(steps) for row in order if step < kept[row]]
    packed = found.pack(inputs)
    assert packed.flatten().tolist() == [row * steps + step + 1 for row, step in expected]
    torch.testing.assert_close(
        found.unpack(packed), inputs * (torch.arange(steps) < torch.tensor(kept)[:, None])[..., None]
    )
    history = torch.cat([torch.tensor([[-1.0 - row] for row in order]), packed])
    last = found.unsort((found.last(history),))[0]
    assert last.flatten().tolist() == [row * steps + kept[row] if kept[row] else -1 - row for row in range(rows)]
    for chunk in (range(len(found.counts)), range(1, len(found.counts)), range(1)):
        if len(chunk):
            before = [row * steps + step if step else -1 - row for row, step in expected if step in chunk]
            assert found.before(history, chunk).flatten().tolist() == before


def test_padding_is_kept_where_lengths_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(packing, "keeps_padding", lambda lengths: True)
    found, mask = pack_rows(torch.zeros(2, 3, 1), torch.tensor([1, 3]))
    assert found.counts == [2, 2, 2]
    assert mask.tolist() == [True, True, False, True, False, True]


def test_chunks_hold_few_rows_or_one_step():
    found = Packing(4, 5, torch.tensor([5, 2, 2, 3]))
    assert found.counts == [4, 4, 2, 1, 1]
    assert found.chunks(None) == [range(5)]
    assert found.chunks(4) == [range(1), range(1, 2), range(2, 5)]
    assert found.chunks(1) == [range(step, step + 1) for step in range(5)]
    assert found.chunks(100) == [range(5)]
