"""Scores of additive attention, block by block: the numbers of the plain formula, gradients included."""

from __future__ import annotations

import pytest
import torch

from rnnzoo.layers import additive
from rnnzoo.layers.additive import additive_scores


def plain(queries, keys, vector):
    return torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1)) @ vector


def problem(rows, steps, places, size=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    shapes = ((rows, steps, size), (rows, places, size), (size,))
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("block", [1, 40, 10**6], ids=["a row at once", "three rows at once", "all at once"])
@pytest.mark.parametrize(
    ("rows", "steps", "places"), [(7, 1, 4), (7, 2, 2), (1, 3, 1), (5, 0, 4), (5, 4, 0), (0, 2, 2)]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)  # by tanh, by a sigmoid
def test_equals_the_formula(monkeypatch, block, rows, steps, places, dtype):
    monkeypatch.setitem(additive.BLOCKS, "cpu", block)
    arguments = problem(rows, steps, places, dtype=dtype)
    found, expected = additive_scores(*arguments), plain(*arguments)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(expected.shape, dtype=dtype)
    ours = torch.autograd.grad((found * weights).sum(), arguments)
    theirs = torch.autograd.grad((expected * weights).sum(), arguments)
    for got, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_narrow_vector_has_the_gradient_of_one_block(monkeypatch):
    queries, keys, vector = problem(300, 3, 4, dtype=torch.float32)
    found = {}
    for block in (1, 10**6):
        monkeypatch.setitem(additive.BLOCKS, "cpu", block)
        narrow = [each.detach().bfloat16().requires_grad_() for each in (queries, keys, vector)]
        (found[block],) = torch.autograd.grad(additive_scores(*narrow).square().sum(), narrow[2:])
    torch.testing.assert_close(found[1], found[10**6], rtol=0.008, atol=0.0)  # one rounding


def test_narrow_scores_are_rounded_once():
    queries, keys, vector = (each.detach().bfloat16() for each in problem(30, 3, 40, dtype=torch.float32))
    found = additive_scores(queries, keys, vector)
    assert found.dtype == torch.bfloat16
    exact = plain(queries.double(), keys.double(), vector.double())
    torch.testing.assert_close(found.double(), exact, rtol=0.004, atol=1e-6)


def test_the_graph_can_be_used_twice():
    arguments = problem(3, 2, 4)
    found = additive_scores(*arguments).sum()
    first = torch.autograd.grad(found, arguments, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(found, arguments)))


def test_pairs_are_never_all_held(monkeypatch):
    """The graph keeps the arguments alone, and a block at a time is made."""
    monkeypatch.setitem(additive.BLOCKS, "cpu", 2 * 5 * 6 * 3)
    made = []
    squash = additive.squashed
    monkeypatch.setattr(additive, "squashed", lambda *each: made.append(squash(*each)) or made[-1])
    arguments = problem(8, 5, 6)
    found = additive_scores(*arguments)
    assert [len(block) for block in made] == [2, 2, 2, 2]
    assert sum(value.numel() for value in found.grad_fn.saved_tensors) == sum(value.numel() for value in arguments)


def test_a_second_derivative_is_refused():
    arguments = problem(2, 2, 2)
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        torch.autograd.grad(additive_scores(*arguments).sum(), arguments, create_graph=True)
