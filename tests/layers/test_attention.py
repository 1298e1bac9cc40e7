"""Attention against plain sums, place by place; masks and edges."""

import math

import pytest
import torch
from torch.testing import assert_close

from rnnzoo.errors import InputError
from rnnzoo.layers.attention import ATTENTIONS, AdditiveAttention, DotAttention, masked_softmax

torch.set_num_threads(1)

QUERY, MEMORY, STEPS = 6, 6, 3
LENGTHS = (5, 0, 1, 3)
NAMES = pytest.mark.parametrize("name", [*ATTENTIONS, "coverage"])


def make_attention(name, *, dtype=torch.float64):
    torch.manual_seed(0)
    if name == "coverage":
        return AdditiveAttention(query_size=QUERY, memory_size=MEMORY, size=4, coverage=True).to(dtype)
    return ATTENTIONS[name](query_size=QUERY, memory_size=MEMORY).to(dtype)


def make_inputs(*, lengths=LENGTHS, places=5, padding=0.0, dtype=torch.float64):
    """Return queries [B, T, Q], values [B, S, M], lengths [B] and coverage [B, T, S]."""
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(len(lengths), STEPS, QUERY, generator=generator, dtype=dtype)
    values = torch.randn(len(lengths), 5, MEMORY, generator=generator, dtype=dtype)
    coverage = torch.rand(len(lengths), STEPS, 5, generator=generator, dtype=dtype)
    values = torch.cat([values, values.new_zeros(len(lengths), max(0, places - 5), MEMORY)], 1)
    coverage = torch.cat([coverage, coverage.new_zeros(len(lengths), STEPS, max(0, places - 5))], 2)
    outside = torch.arange(max(5, places)) >= torch.tensor(lengths).unsqueeze(1)
    values[outside] = padding
    return queries, values, torch.tensor(lengths), coverage


def run(attention, name, queries, values, lengths, coverage):
    return attention(queries, attention.prepare(values, lengths), coverage if name == "coverage" else None)


def plain_score(attention, name, query, place, covered):
    """The score of one place for one query, in the letters of the papers."""
    if name == "dot":
        return sum(q * m for q, m in zip(query, place, strict=True))
    if name == "general":
        return query @ (attention.memory.weight @ place)
    inside = attention.query.weight @ query + attention.query.bias + attention.memory.weight @ place
    if name == "coverage":
        inside = inside + attention.coverage.weight[:, 0] * covered
    return attention.vector.weight[0] @ inside.tanh()


@NAMES
@torch.no_grad()
def test_plain_sums(name):
    attention = make_attention(name)
    queries, values, _, coverage = inputs = make_inputs()
    means, weights = run(attention, name, *inputs)
    assert means.shape == (4, STEPS, MEMORY)
    assert weights.shape == (4, STEPS, 5)
    for row, length in enumerate(LENGTHS):
        for step in range(STEPS):
            scores = [
                float(plain_score(attention, name, queries[row, step], values[row, place], coverage[row, step, place]))
                for place in range(length)
            ]
            total = sum(math.exp(each) for each in scores)
            expected = [math.exp(each) / total for each in scores] + [0.0] * (5 - length)
            assert weights[row, step].tolist() == pytest.approx(expected, abs=1e-12)
            mean = sum(
                (weight * value for weight, value in zip(expected, values[row], strict=True)), torch.zeros(MEMORY)
            )
            assert_close(means[row, step], mean.double())


@NAMES
def test_padding_has_no_influence(name):
    attention = make_attention(name)
    expected = run(attention, name, *make_inputs())
    for garbage, places in ((1e6, 5), (-1e6, 5), (0.0, 9), (3.0, 9)):
        queries, values, lengths, coverage = make_inputs(padding=garbage, places=places)
        values.requires_grad_()
        means, weights = run(attention, name, queries, values, lengths, coverage)
        assert_close(means, expected[0])
        assert_close(weights[..., :5], expected[1])
        assert (weights[..., 5:] == 0).all()
        (gradient,) = torch.autograd.grad(means.square().sum(), values)
        assert gradient.isfinite().all()
        assert (gradient[torch.arange(places) >= lengths.unsqueeze(1)] == 0).all()


@NAMES
def test_queries_and_rows_are_independent(name):
    attention = make_attention(name)
    queries, values, lengths, coverage = inputs = make_inputs()
    means, weights = run(attention, name, *inputs)
    for row in range(4):
        for step in range(STEPS):
            alone = run(
                attention,
                name,
                queries[row : row + 1, step : step + 1],
                values[row : row + 1],
                lengths[row : row + 1],
                coverage[row : row + 1, step : step + 1],
            )
            assert_close(alone[0][0, 0], means[row, step])
            assert_close(alone[1][0, 0], weights[row, step])


@NAMES
def test_edges(name):
    attention = make_attention(name)
    queries, values, lengths, coverage = make_inputs()
    means, weights = run(attention, name, queries, values, lengths, coverage)
    assert (means[1] == 0).all(), "nothing to attend to"
    assert (weights[1] == 0).all()
    assert_close(weights.sum(-1)[[0, 2, 3]], torch.ones(3, STEPS, dtype=torch.float64))
    assert_close(weights[2, :, 0], torch.ones(STEPS, dtype=torch.float64))
    whole = run(attention, name, queries, values, None, coverage)
    assert_close(whole, run(attention, name, queries, values, torch.tensor([5] * 4), coverage))
    empty = run(attention, name, queries, values[:, :0], torch.zeros(4, dtype=torch.long), coverage[..., :0])
    assert empty[0].tolist() == torch.zeros(4, STEPS, MEMORY).tolist()
    assert empty[1].shape == (4, STEPS, 0)
    assert run(attention, name, queries[:, :0], values, lengths, coverage[:, :0])[0].shape == (4, 0, MEMORY)


@pytest.mark.parametrize("name", ["additive", "general", "coverage"])
def test_every_parameter_has_a_gradient(name):
    attention = make_attention(name)
    means, _ = run(attention, name, *make_inputs())
    means.square().sum().backward()
    for parameter in attention.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any()


@NAMES
def test_bfloat16_is_normalised_in_float32(name):
    attention = make_attention(name, dtype=torch.float32)
    inputs = make_inputs(dtype=torch.float32)
    expected = run(attention, name, *inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means, weights = run(attention, name, *inputs)
    assert weights.dtype == torch.float32
    assert_close(weights.sum(-1)[[0, 2, 3]], torch.ones(3, STEPS))
    assert_close((means.float(), weights), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_scores(dtype):
    top = torch.finfo(dtype).max / 2
    scores = torch.tensor([[[top, -top, top]], [[-top, -top, 0.0]]], dtype=dtype).requires_grad_()
    weights = masked_softmax(scores, torch.tensor([[True, True, False], [True, True, False]]))
    assert weights.tolist() == [[[1.0, 0.0, 0.0]], [[0.5, 0.5, 0.0]]]
    weights[..., 0].sum().backward()
    assert scores.grad.isfinite().all()


def test_coverage_changes_the_weights():
    attention = make_attention("coverage")
    queries, values, lengths, coverage = make_inputs()
    other = run(attention, "coverage", queries, values, lengths, coverage * 2)[1]
    assert not torch.allclose(other, run(attention, "coverage", queries, values, lengths, coverage)[1])


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"attention dot: expected a decoder as wide .* got 6 and 7 units"):
        DotAttention(query_size=6, memory_size=7)
    with pytest.raises(InputError, match="did you mean 'additive'"):
        ATTENTIONS["aditive"]
