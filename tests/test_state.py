"""States: nested tuples of tensors with the batch on axis 0."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from rnnzoo.state import detach, map_state, select_rows, where

torch.set_num_threads(1)


class Pair(NamedTuple):
    hidden: Tensor
    count: Tensor


class Nested(NamedTuple):
    inner: Any
    mask: Tensor


def make(offset: float = 0.0) -> tuple[Any, ...]:
    """Build a state of three levels; row b of every tensor begins with 10·b plus `offset`."""
    rows = 10.0 * torch.arange(3) + offset
    pair = Pair(rows.unsqueeze(1) + torch.arange(2), rows.long())
    return (pair, Nested(Pair(rows.reshape(3, 1, 1) + torch.arange(4).reshape(2, 2), rows), rows.unsqueeze(1)))


def leaves(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [leaf for part in state for leaf in leaves(part)]


def same(left: Any, right: Any) -> bool:
    return all(map(torch.equal, leaves(left), leaves(right)))


def test_map_keeps_types_and_order():
    mapped = map_state(lambda field: field + 1, make())
    assert type(mapped) is tuple
    assert [type(part) for part in mapped] == [Pair, Nested]
    assert type(mapped[1].inner) is Pair
    assert same(mapped, make(1.0))


def test_map_over_several_states_takes_the_fields_at_the_same_place():
    mapped = map_state(lambda a, b, c: a + b - c, make(), make(2.0), make(1.0))
    for got, first, second, third in zip(leaves(mapped), *map(leaves, (make(), make(2.0), make(1.0))), strict=True):
        assert torch.equal(got, first + second - third)


def test_map_of_a_tensor_is_the_function():
    assert torch.equal(map_state(torch.neg, torch.ones(2)), -torch.ones(2))


def test_map_of_an_empty_state():
    assert map_state(torch.neg, ()) == ()


def test_map_leaves_its_arguments_alone():
    state = make()
    map_state(lambda field: field * 0, state)
    assert same(state, make())


def test_map_refuses_states_of_different_structure():
    with pytest.raises(ValueError, match="zip"):
        map_state(torch.add, (torch.ones(2), torch.ones(2)), (torch.ones(2),))


def test_detach_cuts_the_graph_and_keeps_the_numbers():
    leaf = torch.ones(3, 2, requires_grad=True)
    state = (Pair(leaf * 2, leaf * 3), Nested(Pair(leaf, leaf * 4), leaf * 5))
    cut = detach(state)
    assert all(field.requires_grad for field in leaves(state))
    assert not any(field.requires_grad for field in leaves(cut))
    assert same(cut, state)
    assert type(cut[0]) is Pair


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 1, 0], [2], []], ids=["reorder", "repeat", "drop", "none"])
def test_select_rows(rows):
    selected = select_rows(make(), torch.tensor(rows, dtype=torch.long))
    for got, field in zip(leaves(selected), leaves(make()), strict=True):
        assert got.dtype == field.dtype
        assert got.shape == (len(rows), *field.shape[1:])
        assert all(torch.equal(got[place], field[row]) for place, row in enumerate(rows))


def test_select_rows_adds_up_the_gradients_of_repeated_rows():
    leaf = torch.ones(3, 2, requires_grad=True)
    select_rows(Pair(leaf, leaf.detach()), torch.tensor([0, 0, 2])).hidden.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [[2, 2], [0, 0], [1, 1]]


@pytest.mark.parametrize("condition", [[True, False, True], [False] * 3, [True] * 3], ids=["mixed", "no", "yes"])
def test_where_takes_rows(condition):
    picked = where(torch.tensor(condition), make(), make(5.0))
    assert [type(part) for part in picked] == [Pair, Nested]
    for got, yes, no in zip(leaves(picked), leaves(make()), leaves(make(5.0)), strict=True):
        assert got.dtype == yes.dtype
        assert all(torch.equal(got[row], (yes if take else no)[row]) for row, take in enumerate(condition))


def test_where_sends_gradients_to_the_rows_it_took():
    chosen, otherwise = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    where(torch.tensor([True, False]), (chosen,), (otherwise,))[0].sum().backward()
    assert chosen.grad is not None
    assert otherwise.grad is not None
    assert chosen.grad.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert otherwise.grad.tolist() == [[0, 0, 0], [1, 1, 1]]
