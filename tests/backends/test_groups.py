"""Ragged rows in groups: the numbers of all at once, whatever the order; and how many groups there are."""

from __future__ import annotations

import pytest
from ragged import assert_as_reference

from rnnzoo.backends import groups, native
from rnnzoo.backends.groups import group_count
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
    assert_as_reference(native, name, lengths)
    assert len(grouped) == 1


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
