"""Kernels in C++ against the same functions in torch: operations, moves, sums, sizes, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.kernels.compile import cache, cpp_math, cpp_writer
from rnnzoo.kernels.compile.cpp_kernel import Compiled
from rnnzoo.kernels.compile.row_nodes import RefusedError
from rnnzoo.layers import Recurrent

INF, NAN = float("inf"), float("nan")
ANY = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.3,
    -2.5,
    20.0,
    -20.0,
    87.5,
    -87.5,
    88.6,
    89.5,
    104.0,
    -104.0,
    1e-7,
    -1e-7,
    3e38,
    INF,
    -INF,
    NAN,
]
OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "rsub": torch.rsub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "abs": torch.abs,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "where": lambda a, b: torch.where(a > b, a, b * 2),
    "sign": torch.sign,
    "number": lambda a, b: (a > b).float(),
    "gt": torch.gt,
    "ge": torch.ge,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "ne": torch.ne,
    "isnan": torch.isnan,
    "logical_and": lambda a, b: (a > 0).logical_and(b < 1),
    "logical_or": lambda a, b: (a > 0).logical_or(b < 1),
    "logical_xor": lambda a, b: (a > 0) ^ (b < 1),
    "logical_not": lambda a: (a > 0).logical_not(),
}
ONE = {
    "neg", "reciprocal", "sqrt", "rsqrt", "abs", "exp", "expm1", "log", "log1p", "sigmoid", "tanh", "relu",
    "sign", "isnan", "logical_not",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("library_in_cpp")


Kernel = Callable[..., None]


def check(
    kernel: Kernel, inputs: list[Tensor], outputs: list[Tensor], shared: tuple[int, ...] = (), **close: float
) -> Compiled:
    """Check a kernel in C++ against itself in torch, with some rows and threads; return it.

    Args:
        kernel: of inputs and outputs.
        inputs: what it reads.
        outputs: what it writes.
        shared: places of tensors without rows.
        close: tolerances.
    """
    tensors = [*inputs, *outputs]
    rows = [place not in shared for place in range(len(tensors))]
    compiled = cache.in_cpp(kernel, tensors, rows)
    assert isinstance(compiled, Compiled)
    usual = torch.get_num_threads()
    for threads in (1, 2, 3):
        for count in (1, 2, len(tensors[rows.index(True)])):
            ours, theirs = (
                [
                    each[:count].clone() if any_rows else each.clone()
                    for each, any_rows in zip(tensors, rows, strict=True)
                ]
                for _ in range(2)
            )
            torch.set_num_threads(threads)
            try:
                compiled(*ours)
            finally:
                torch.set_num_threads(usual)
            kernel(*theirs)
            torch.testing.assert_close(ours, theirs, equal_nan=True, **{"rtol": 1e-5, "atol": 1e-6, **close})
    return compiled


def test_every_operation_is_tried() -> None:
    """A new one needs its line here; none branches, for compilers make no vectors of that."""
    assert set(OPERATIONS) == set(cpp_math.CODE)
    written = [cpp_math.FUNCTIONS, *cpp_math.CODE.values()]
    assert not [code for code in written if "||" in code or "&&" in code]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str) -> None:
    """Also of numbers too large, too small, and none: only results below the least normal number may differ."""
    left, right = (
        each.reshape(-1, 20) for each in torch.cartesian_prod(torch.tensor(ANY), torch.tensor(ANY)).t().contiguous()
    )
    operation = OPERATIONS[name]

    def kernel(a: Tensor, b: Tensor, target: Tensor) -> None:
        target.copy_(operation(a) if name in ONE else operation(a, b))

    check(kernel, [left, right], [torch.empty_like(left)], rtol=2e-6, atol=2e-38)


@pytest.mark.parametrize(
    "operation",
    [torch.exp, torch.expm1, torch.log, torch.log1p, torch.sigmoid, torch.tanh],
    ids=lambda each: each.__name__,
)
def test_functions_are_as_good_as_their_type(operation: Callable[[Tensor], Tensor]) -> None:
    """Everywhere, not only at a few places: to a few units of the last digit."""
    numbers = torch.cat(
        [torch.linspace(-80, 80, 40000), torch.logspace(-30, 30, 20000), -torch.logspace(-30, -0.01, 4000)]
    )
    numbers = numbers.reshape(10, -1)

    def kernel(source: Tensor, target: Tensor) -> None:
        target.copy_(operation(source))

    found = torch.empty_like(numbers)
    cache.in_cpp(kernel, [numbers, found], [True, True])(numbers, found)
    exact = operation(numbers.double())
    torch.testing.assert_close(found.double(), exact.float().double(), rtol=4e-7, atol=2e-38, equal_nan=True)


@pytest.mark.parametrize("size", [1, 7, 16, 33, 128])
def test_moves(size: int) -> None:
    """Slices, blocks, heads and joints leave nothing in the code, whatever the size."""

    def kernel(source: Tensor, weight: Tensor, joined: Tensor, headed: Tensor, sliced: Tensor) -> None:
        a, b, c, d = source.chunk(4, -1)
        joined.copy_(torch.cat([d.tanh(), a * weight, torch.zeros_like(b), c - b], -1))
        heads = source.unflatten(-1, (4, size)).permute(0, 2, 1).permute(0, 2, 1)
        turned = (heads * weight + heads[:, :1]).transpose(1, 2).reshape(-1, size, 2, 2).transpose(1, 2).transpose(2, 3)
        headed.copy_(turned.transpose(2, 3).transpose(1, 2).reshape(-1, size, 4).transpose(1, 2).reshape(source.shape))
        sliced.copy_(source.sigmoid().slice_scatter(source[:, size : 2 * size], 1, 2 * size, 3 * size)[:, size:] + 1)

    source, weight = torch.randn(5, 4 * size), torch.randn(size)
    outputs = [torch.empty(5, 4 * size), torch.empty(5, 4 * size), torch.empty(5, 3 * size)]
    check(kernel, [source, weight], outputs, (1,))


@pytest.mark.parametrize("size", [1, 7, 32, 48])
def test_sums(size: int) -> None:
    """Of a row, of its blocks, and of all rows: a norm and its derivative, with what it needs in a later loop."""

    def kernel(
        source: Tensor, sent: Tensor, weight: Tensor, target: Tensor, grad: Tensor, g_weight: Tensor, g_one: Tensor
    ) -> None:
        with torch.enable_grad():
            leaf, gain = source.detach().requires_grad_(), weight.detach().requires_grad_()
            blocks = F.layer_norm(leaf.sigmoid().unflatten(-1, (3, size)), [size], gain)
            found = (blocks * leaf.square().mean(-1, keepdim=True).unsqueeze(-1)).tanh().flatten(1)
            first, second = torch.autograd.grad(found, [leaf, gain], sent)
        target.copy_(found.detach())
        grad.copy_(first)
        g_weight.add_(second)
        g_one.add_(source.sum())

    source, weight = torch.randn(37, 3 * size), torch.randn(size)
    outputs = [torch.empty(37, 3 * size), torch.empty(37, 3 * size), torch.randn(size), torch.randn(())]
    check(kernel, [source, torch.randn(37, 3 * size), weight], outputs, (2, 5, 6), rtol=1e-3, atol=1e-4)


def tanh_gelu(values: Tensor) -> Tensor:
    """Return GELU without erf, which nobody writes in vectors."""
    return F.gelu(values, approximate="tanh")


ACTIVATIONS = [
    F.leaky_relu, F.elu, tanh_gelu, F.hardtanh, F.silu, F.softplus, F.hardsigmoid, F.mish, F.selu, F.relu6,
]  # fmt: skip


@pytest.mark.parametrize("function", ACTIVATIONS, ids=lambda each: each.__name__)
def test_activations_and_their_derivatives(function: Callable[[Tensor], Tensor]) -> None:
    """Whatever a cell of one's own may use instead of tanh."""

    def kernel(source: Tensor, target: Tensor, grad: Tensor) -> None:
        with torch.enable_grad():
            leaf = source.detach().requires_grad_()
            found = function(leaf)
            (first,) = torch.autograd.grad(found.sum(), leaf)
        target.copy_(found.detach())
        grad.copy_(first)

    check(kernel, [2 * torch.randn(8, 40)], [torch.empty(8, 40), torch.empty(8, 40)], rtol=1e-4, atol=1e-5)


def test_sums_of_all_rows_can_be_joined_and_scaled() -> None:
    """What is linear in a sum over the rows may come after it."""

    def kernel(source: Tensor, weight: Tensor, total: Tensor) -> None:
        first, second = (source[:, :4] * weight).sum(0), -(source[:, 4:].exp()).sum(0)
        total.add_(torch.cat([first * weight, second - first]), alpha=2)

    check(kernel, [torch.randn(9, 8), torch.randn(4)], [torch.randn(8)], (1, 2), atol=1e-4)


def test_what_is_used_twice_is_written_once() -> None:
    """There are 2^60 ways through this one; a program of a few lines says it."""

    def kernel(source: Tensor, target: Tensor) -> None:
        for _ in range(60):
            source = source * source - source / 2
        target.copy_(source)

    check(kernel, [torch.rand(5, 32) / 2], [torch.empty(5, 32)], rtol=1e-4)


def test_masks_and_bounds() -> None:
    """Truths of rows and made of numbers, clamps of one side and of both, powers."""

    def kernel(source: Tensor, valid: Tensor, target: Tensor) -> None:
        kept = torch.where(valid.reshape(-1, 1), source.clamp(min=0.1), source.clamp(-0.5, 0.5) ** 2)
        powers = source.abs() ** 0.5 - (source.square() + 1) ** -0.5 + (source.square() + 1) ** -2
        target.copy_(kept + powers * source.relu().bool() + source.new_tensor(0.5).sum())

    check(kernel, [torch.randn(6, 20), torch.tensor([True, False, True, True, False, True])], [torch.empty(6, 20)])


def test_truths_count_as_numbers_and_sums_of_truths_as_truths() -> None:
    """In C++ two booleans add up to 2, and divide as whole numbers; a mask that is copied, joined or kept is 0 or 1."""

    def kernel(source: Tensor, valid: Tensor, target: Tensor, joined: Tensor, made: Tensor) -> None:
        above, below = source > 0, source < 1
        share = (above.float() + below.float()) / ((source > 2).float() + (source < 3).float())
        spikes = (above + below).float() - (above & below).float() * (~above).float()
        copied = (source * 2).copy_(below) / (source * 2).copy_(above + below)
        target.copy_(share + 10 * spikes + 100 * copied + (above * 1.0 + below * 1.0) / (above + 0.0 + below * 2.0 + 1))
        joined.copy_(torch.cat([above, source], 1) / 3)
        made.copy_(torch.where(above, source, 0.0) + torch.where(valid.reshape(-1, 1), below, above))

    source, valid = 3 * torch.randn(64, 20), torch.rand(64) > 0.5
    check(kernel, [source, valid], [torch.empty(64, 20), torch.empty(64, 40), torch.empty(64, 20, dtype=torch.bool)])


def test_constants_have_their_type_and_sign() -> None:
    """A full tensor of whole numbers cuts off, one of booleans is 1; -0.0 is another number than 0.0."""

    def kernel(source: Tensor, target: Tensor, signs: Tensor) -> None:
        booleans = torch.full_like(source, 3.0, dtype=torch.bool)
        whole = torch.where(source > 0, torch.full((), 2.7, dtype=torch.int64), torch.full((), 1, dtype=torch.int64))
        target.copy_(source * booleans + whole)
        signs.copy_(1 / torch.cat([torch.full_like(source, -0.0), torch.full_like(source, 0.0)], 1))

    check(kernel, [torch.randn(5, 16)], [torch.empty(5, 16), torch.empty(5, 32)])


def test_what_is_wrong_for_negative_numbers_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial with positive numbers alone would not see it."""
    monkeypatch.setitem(cpp_math.CODE, "relu", "{0}")

    def kernel(source: Tensor, target: Tensor) -> None:
        target.copy_(source.relu())

    tensors = [torch.randn(4, 8), torch.empty(4, 8)]
    assert not isinstance(cache.compile_kernel(kernel, tensors, [True, True]), Compiled)


def test_numbers_without_digits_do_not_make_a_trial_fail() -> None:
    """A few of many draws are so near to 0 that two ways of rounding give other results."""

    def kernel(source: Tensor, target: Tensor) -> None:
        target.copy_((1 - (-0.4 * source.square()).exp()).log())  # near 0 it is the rounding that counts

    tensors = [torch.randn(4, 256), torch.empty(4, 256)]
    assert isinstance(cache.compile_kernel(kernel, tensors, [True, True]), Compiled)


def test_nothing_is_written_where_nothing_is_added() -> None:
    """A gradient of zeros for a parameter that only another kernel uses."""

    def kernel(source: Tensor, weight: Tensor, target: Tensor, g_weight: Tensor) -> None:
        target.copy_(source.exp())
        g_weight.add_(torch.zeros_like(weight))

    check(kernel, [torch.randn(4, 8), torch.randn(8)], [torch.empty(4, 8), torch.randn(8)], (1, 3))


def refused(kernel: Kernel, *tensors: Tensor, shared: tuple[int, ...] = ()) -> None:
    """Check that a kernel is refused."""
    with pytest.raises(RefusedError):
        cache.in_cpp(kernel, tensors, [place not in shared for place in range(len(tensors))])


@pytest.mark.parametrize(
    "result",
    [
        lambda x: x @ torch.ones(8, 8),
        lambda x: x.cumsum(1),
        lambda x: x - x.mean(0),
        lambda x: x - x.sum(0),
        lambda x: x.sum(0) ** 2 + x,
        lambda x: x.t().reshape(8, -1).t(),
        lambda x: x.flip(0),
        lambda x: x - x[0],
        lambda x: x - x[-1:],
        lambda x: torch.cat([x[1:], x[:1]]),
        lambda x: x / x.shape[0],
        lambda x: x.reshape(-1).reshape(-1, 8),
        lambda x: x**2.5,
        lambda x: x.double().float(),
        lambda x: torch.div(x, 0.3, rounding_mode="floor"),
        lambda x: x + torch.randn_like(x),
        lambda x: x.long().float(),
    ],
)
def test_what_mixes_rows_or_is_not_known_is_refused(result: Callable[[Tensor], Tensor]) -> None:
    """Products, running sums, means over rows, the number of rows, other types, chance."""

    def kernel(source: Tensor, target: Tensor) -> None:
        target.copy_(result(source))

    refused(kernel, torch.randn(4, 8), torch.empty(4, 8))


def test_order_matters() -> None:
    """A tensor that is read after it was written, or a result that is written to under two names."""

    def again(source: Tensor, target: Tensor) -> None:
        target.copy_(source)
        target.copy_(target * 2)

    def named_twice(source: Tensor, target: Tensor) -> None:
        found = source * 2
        part = found[:, :4]
        found.copy_(source)
        target.copy_(torch.cat([part, part], 1))

    for kernel in (again, named_twice):
        refused(kernel, torch.randn(4, 8), torch.empty(4, 8))

    def alone(source: Tensor, target: Tensor) -> None:
        found = source * 2
        target.copy_(found.copy_(source.exp()) + 1)

    check(alone, [torch.randn(4, 8)], [torch.empty(4, 8)])


def test_tensors_without_rows_are_only_added_to() -> None:
    """There is no telling which row would write last."""

    def written(source: Tensor, total: Tensor) -> None:
        total.copy_(source.sum(0))

    def once(source: Tensor, weight: Tensor, total: Tensor) -> None:
        total.add_(weight)

    refused(written, torch.randn(4, 8), torch.empty(8), shared=(1,))
    refused(once, torch.randn(4, 8), torch.randn(8), torch.empty(8), shared=(1, 2))


def test_rows_in_very_many_pieces_are_refused() -> None:
    """They would be a long program: outer products, every other number."""

    def outer(source: Tensor, target: Tensor) -> None:
        target.copy_((source.unsqueeze(2) * source.unsqueeze(1)).flatten(1))

    def sparse(source: Tensor, target: Tensor) -> None:
        target.copy_(source[:, ::2].exp())

    refused(outer, torch.randn(3, 80), torch.empty(3, 6400))
    refused(sparse, torch.randn(3, 400), torch.empty(3, 200))


@pytest.mark.parametrize("name", ["lstm", "gru", "mut1", "peephole", "cifg", "slstm"])
def test_a_step_is_one_loop(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Gates lie in blocks of one width, so nothing is left between two loops: the speed comes from there."""
    made: list[str] = []
    real = cpp_writer.source
    monkeypatch.setattr(cpp_writer, "source", lambda *given: made.append((found := real(*given)).code) or found)
    monkeypatch.setattr(cache, "_compiled", {})
    layer = Recurrent(cell=name, input_size=5, hidden_size=40, backend="fused")
    layer(torch.randn(3, 4, 5))[0].sum().backward()
    assert len(made) >= 2
    assert all(code.count("#pragma omp simd") == 1 for code in made)


def test_cells_that_computed_less_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation counts: a kernel in which one is wrong is not used."""
    monkeypatch.setitem(cpp_math.CODE, "sigmoid", "logistic({0}) * 1.01f")
    monkeypatch.setattr(cache, "_compiled", {})
    layer = Recurrent(cell="gru", input_size=5, hidden_size=24, backend="fused")
    layer(torch.randn(3, 4, 5))
    assert cache._compiled
    assert not any(isinstance(each, Compiled) for each in cache._compiled.values())
