"""What is compiled from C++: products in panels, and programs of many steps that are the same in C++ and in Python."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
from matrix_layouts import LAYOUTS, laid_out
from torch import Tensor

from rnnzoo.backends import reference
from rnnzoo.backends.fused import program
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.fused.program import Call, Multiply, RowView, run
from rnnzoo.cells import make_cell
from rnnzoo.cells.base import Cell, GatedCell, HiddenState
from rnnzoo.cells.wrappers import RecurrentDropout
from rnnzoo.kernels.compile import cache, cpp_math
from rnnzoo.kernels.compile.cpp_kernel import Compiled
from rnnzoo.kernels.products import panels
from rnnzoo.kernels.products.linear import Product
from rnnzoo.kernels.products.panels import Panels
from rnnzoo.state import State, flatten, unflatten

pytestmark = pytest.mark.usefixtures("library_in_cpp")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Return a type in which products can be made; skip where the processor has no instructions for it."""
    if not panels.offers_products(request.param):
        pytest.skip("needs a processor with products in this type")
    found: torch.dtype = request.param
    return found


# Rows, depth and columns: one, around a panel and a part of the rows, and more than are added up at once.
SHAPES = [(1, 1, 1), (3, 5, 63), (64, 17, 64), (65, 16, 65), (7, 1024, 9), (9, 1025, 130), (300, 2100, 3), (513, 2, 70)]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_in_panels(shape: tuple[int, int, int], threads: int, dtype: torch.dtype) -> None:
    """A B, and what is added to, are those of float64, however many threads there are."""
    rows, depth, columns = shape
    left, right, before = torch.randn(rows, depth), torch.randn(depth, columns).to(dtype), torch.randn(rows, columns)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        panels = Panels(right)
        found, added = panels.multiply(left), panels.multiply(left, before.clone(), add=True)
    finally:
        torch.set_num_threads(usual)
    expected = left.to(dtype).double() @ right.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(added.double(), expected + before, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("right_layout", LAYOUTS)
@pytest.mark.parametrize("left_layout", LAYOUTS)
def test_matrices_lie_anyhow(left_layout: str, right_layout: str, dtype: torch.dtype) -> None:
    """Strides of both operands are heeded, and numbers beside a part that is written to are left alone."""
    left, right = torch.randn(7, 33).to(dtype).float(), torch.randn(33, 70).to(dtype)
    room = torch.zeros(9, 80)
    Panels(laid_out(right, right_layout)).multiply(laid_out(left, left_layout), room[1:8, 4:74])
    torch.testing.assert_close(room[1:8, 4:74], left @ right.float(), rtol=1e-4, atol=1e-4)
    assert room.count_nonzero() == 7 * 70


def test_repeated_rows() -> None:
    """Rows that are one in memory (`expand`) are multiplied as if they were not."""
    right, target = torch.randn(33, 70), torch.zeros(9, 70)
    for left in (torch.randn(1, 33).expand(9, 33), torch.randn(9, 1).expand(9, 33)):
        torch.testing.assert_close(Panels(right).multiply(left), left @ right, rtol=1e-4, atol=1e-4)
        run([Multiply(Product(right.t(), times=9, dtype=None), RowView(left), RowView(target))], torch.tensor([9]))
        torch.testing.assert_close(target, left @ right, rtol=1e-4, atol=1e-4)
    same = torch.randn(1, 1).expand(33, 70)
    torch.testing.assert_close(Panels(same).multiply(left), left @ same, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(Panels(right).multiply(torch.empty(0, 33)), torch.empty(0, 70))


def test_a_single_column_or_row_has_any_stride() -> None:
    """Of an axis of one number, torch's strides mean nothing."""
    for right in (torch.randn(6, 1), torch.randn(1, 6).t(), torch.randn(6, 4)[:, 1:2], torch.randn(1, 6)[:, ::2]):
        left = torch.randn(3, len(right))
        torch.testing.assert_close(Panels(right).multiply(left), left @ right)


def test_operands_are_rounded_as_torch_rounds_them() -> None:
    """To the nearest number of bfloat16, of two as near to the even one; NaN and infinity stay what they are."""
    if not panels.offers_products(torch.bfloat16):
        pytest.skip("needs a processor with products in bfloat16")
    bits = torch.cat([torch.arange(0x3F7F0000, 0x3F830000, 0x1000), torch.tensor([0, 0x00800000, 0x7F7F7FFF])])
    numbers = torch.cat([bits.int().view(torch.float32), torch.randn(300)]).reshape(-1, 1)
    numbers = torch.cat([numbers, -numbers])
    one = Panels(torch.ones(1, 1, dtype=torch.bfloat16))
    assert torch.equal(one.multiply(numbers), numbers.bfloat16().float())
    for bits in (0x7FFFFFFF, 0x7F800001, 0x7F800000, 0x7F7FFFFF):
        number = torch.tensor([[bits]], dtype=torch.int32).view(torch.float32)
        assert one.multiply(number).equal(number.bfloat16().float()) or (number.isnan() & one.multiply(number).isnan())


def test_bf16_that_onednn_refuses_is_not_offered() -> None:
    """It may be told to use less than the processor has: then float32 is left, and nothing ends the process."""
    code = """
import torch
from rnnzoo.kernels.products import panels
from rnnzoo.layers import Recurrent
panels.load()
assert panels.library() is not None
assert panels.offers_products(torch.float32)
assert not panels.offers_products(torch.bfloat16)
layer, inputs = Recurrent(cell="gru", input_size=8, hidden_size=8), torch.randn(64, 9, 8)
with torch.autocast("cpu", torch.bfloat16):
    layer(inputs)[0].sum().backward()
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if panels.offers_products(torch.bfloat16):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch speaks of GPUs here
            with torch.backends.mkldnn.flags(enabled=False):
                assert not panels.offers_products(torch.bfloat16)


def doubled(source: Tensor, target: Tensor) -> None:
    """Write twice the source plus the mean of its rows."""
    target.copy_(2 * source + source.mean(1, keepdim=True))


def rows_of(size: int) -> list[Tensor]:
    """Return tensors for `doubled`."""
    return [torch.randn(3, size), torch.empty(3, size)]


def compiled(size: int) -> Compiled:
    """Return `doubled` as `bind` compiles it for rows of some size."""
    kernel = cache.compile_kernel(doubled, rows_of(size), [True, True])
    assert isinstance(kernel, Compiled)
    return kernel


def calls_in_cpp(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list to which each program adds whether it was run in C++."""
    made: list[bool] = []
    real = program.run_in_cpp
    monkeypatch.setattr(program, "run_in_cpp", lambda *given: made.append(real(*given)) or made[-1])
    return made


@pytest.mark.parametrize("counts", [[3, 3, 3, 3, 3], [3, 3, 2, 1, 1], [2], []], ids=str)
def test_a_program_is_the_same_in_cpp_and_in_python(
    monkeypatch: pytest.MonkeyPatch, counts: list[int], dtype: torch.dtype
) -> None:
    """Steps go forward, back and in turns, with fewer and fewer rows; there may be no step."""
    kernel = compiled(8)
    weight = torch.randn(8, 8) / 8
    rows = torch.tensor(counts, dtype=torch.int64)
    steps = torch.arange(len(counts))

    def results() -> list[Tensor]:
        product = Product(weight, times=5, dtype=dtype)
        history, room = torch.ones(18, 8), torch.zeros(3, 8)
        turns, last = torch.ones(6, 8), torch.zeros(15, 8)
        forth = [
            Multiply(product, RowView(history, 3 * steps), RowView(room)),
            Call(kernel, [RowView(room), RowView(history, 3 * steps + 3)]),
        ]
        back = [steps.flip(0) + ahead for ahead in (0, 1)]
        there, here = (RowView(turns, each % 2 * 3) for each in back)
        backward = [
            Call(kernel, [RowView(history, 3 * back[1]), here]),
            Multiply(product, here, RowView(last, 3 * back[0]), back=True),
            Multiply(product, there, RowView(last, 3 * back[0]), back=True, add=True),
        ]
        run(forth, rows)
        run(backward, rows.flip(0))
        return [history, turns, last]

    made = calls_in_cpp(monkeypatch)
    ours = results()
    assert made == [True] * 2
    monkeypatch.setattr(program, "run_in_cpp", lambda *given: False)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(ours, results(), **tolerance)


def test_what_cannot_be_called_from_cpp_runs_in_python() -> None:
    """A kernel that is not compiled, a weight in float64, and operands with gaps within their rows."""
    kernel = compiled(8)
    wide = Product(torch.randn(8, 8, dtype=torch.float64), times=9, dtype=None)
    narrow = Product(torch.randn(8, 8), times=9, dtype=None)
    seldom = Product(torch.randn(8, 8), times=1, dtype=None)
    source, target, gaps = RowView(torch.randn(3, 8)), RowView(torch.zeros(3, 8)), RowView(torch.randn(3, 16)[:, ::2])
    double = [RowView(each.buffer.double()) for each in (source, target)]
    three = torch.tensor([3])
    assert program.run_in_cpp([Call(kernel, [source, target]), Multiply(narrow, source, target)], three)
    for call in (
        Call(doubled, [source, target]),
        Multiply(wide, *double),
        Multiply(seldom, source, target),
        Multiply(narrow, gaps, target),
        Multiply(narrow, double[0], target),
    ):
        target.buffer.zero_()
        assert not program.run_in_cpp([Call(kernel, [source, target]), call], three)
        assert not target.buffer.any()  # nothing was done before it was found out
    run([Multiply(narrow, gaps, target)], three)
    torch.testing.assert_close(target.buffer, gaps.buffer @ narrow.weight.t())


def test_more_tensors_than_cpp_can_hand_over() -> None:
    """They are handed over by torch's compiler."""

    def several(*tensors: Tensor) -> None:
        for each in tensors:
            each.add_(1)

    tensors = [torch.zeros(2, 3) for _ in range(panels.MOST_PLACES + 1)]
    for count in (panels.MOST_PLACES, panels.MOST_PLACES + 1):
        some = [each.clone() for each in tensors[:count]]
        kernel = cache.compile_kernel(several, some, [True] * count)
        assert isinstance(kernel, Compiled) == (count == panels.MOST_PLACES)
        run([Call(kernel, list(map(RowView, some)))], torch.tensor([2, 2]))
        assert all(bool((each == 2).all()) for each in some)


def test_wrong_numbers_in_cpp_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's compiler makes a kernel that gave other numbers."""
    monkeypatch.setitem(cpp_math.CODE, "mul", "{0} * {1} * 1.01f")
    assert not isinstance(cache.compile_kernel(doubled, rows_of(9), [True, True]), Compiled)


def test_operations_that_are_not_in_cpp_are_noticed() -> None:
    """What has a product in it is left to torch's compiler."""
    weight = torch.randn(9, 9)

    def multiplied(source: Tensor, matrix: Tensor, target: Tensor) -> None:
        target.copy_(torch.mm(source.sin(), matrix).cos())

    tensors = torch.randn(3, 9), weight, torch.empty(3, 9)
    kernel = cache.compile_kernel(multiplied, tensors, [True, False, True])
    assert not isinstance(kernel, Compiled)
    run([Call(kernel, [RowView(tensors[0]), weight, RowView(tensors[2])])], torch.tensor([3]))
    torch.testing.assert_close(tensors[2], torch.mm(tensors[0].sin(), weight).cos(), rtol=1e-4, atol=1e-4)


def test_other_strides_than_those_compiled_for_are_left_to_python() -> None:
    """C++ would read beside the numbers."""
    kernel, three = compiled(8), torch.tensor([3])
    target = RowView(torch.zeros(3, 8))
    wrong = torch.randn(3, 16)[:, ::2], torch.randn(1, 8).expand(3, 8), torch.randn(3, 8).double(), torch.randn(3, 9)
    for source in wrong:
        assert not program.run_in_cpp([Call(kernel, [RowView(source), target])], three)
    assert not program.run_in_cpp([Call(kernel, [torch.randn(3, 8), target])], three)  # not one for each row
    assert program.run_in_cpp([Call(kernel, [RowView(torch.randn(3, 8)), target])], three)


class Shifted(GatedCell):
    """A cell with a buffer, and with a mean."""

    gate_count = 1

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.register_buffer("shift", torch.zeros(hidden_size))

    def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
        hidden = torch.tanh(F.layer_norm(projected + recurrent * projected.sigmoid(), [self.hidden_size]) + self.shift)
        return hidden, HiddenState(hidden)


def assert_as_reference(cell: Cell, inputs: Tensor, state: State, lengths: Tensor | None = None) -> None:
    """Check outputs and gradients."""
    found = []
    for run_with in (fused.run, reference.run):
        outputs, _ = run_with(cell, inputs, lengths, state)
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *cell.parameters()])])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["lstm", "mogrifier"])
def test_one_kernel_serves_any_number_of_rows(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Few, many, one, and fewer from step to step."""
    cell = make_cell(name, input_size=5, hidden_size=16)
    in_cpp, compiled_before = calls_in_cpp(monkeypatch), set(cache._compiled)
    made = []
    for rows in (3, 150, 1, 40):
        for lengths in (None, torch.randint(0, 8, (rows,)), torch.full((rows,), 5)):
            if lengths is not None:
                lengths[0] = 5  # steps enough for a program in C++
            inputs = torch.randn(rows, 7, 5, requires_grad=True)
            assert_as_reference(cell, inputs, cell.initial_state(rows), lengths)
            made.append(set(cache._compiled) - compiled_before)
    assert made[0]
    assert all(each == made[0] for each in made)
    assert in_cpp
    assert all(in_cpp)


@pytest.mark.filterwarnings("ignore:rnnzoo")
@pytest.mark.parametrize("how", ["x.shape[0]", "len(x)"])
def test_cells_that_ask_how_many_rows_there_are(how: str) -> None:
    """Those that cannot be compiled for any number stay plain, and no other cell does."""

    class Asking(GatedCell):
        gate_count = 1

        def gates(self, projected: Tensor, recurrent: Tensor, state: HiddenState) -> tuple[Tensor, HiddenState]:
            rows = len(projected) if how == "len(x)" else projected.shape[0]
            hidden = torch.tanh(projected + recurrent + torch.ones(rows, self.hidden_size))
            return hidden, HiddenState(hidden)

    cell = Asking(input_size=5, hidden_size=16)
    failures, before = list(cache._failures), set(cache._compiled)
    for rows in (6, 70):
        inputs = torch.randn(rows, 7, 5, requires_grad=True)
        assert_as_reference(cell, inputs, cell.initial_state(rows), torch.randint(1, 8, (rows,)))
    assert cache._failures == failures
    made = [cache._compiled[key] for key in set(cache._compiled) - before]
    assert [isinstance(each, Compiled) for each in made] == [how != "len(x)"] * 2


def test_constants_of_a_cell_are_read_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of a buffer count, also those that are written there later, in C++ too."""
    in_cpp = calls_in_cpp(monkeypatch)
    cell = Shifted(input_size=5, hidden_size=16)
    inputs = torch.randn(8, 7, 5, requires_grad=True)
    for value in (0.0, 0.7):
        cell.shift.fill_(value)
        assert_as_reference(cell, inputs, cell.initial_state(8))
    assert in_cpp
    assert all(in_cpp)


def test_parameters_and_masks_lie_anyhow() -> None:
    """Compiled code trusts strides: those of a bias that is a column, and of one mask for all rows."""
    inputs = torch.randn(6, 7, 5, requires_grad=True)
    cell = make_cell("lstm", input_size=5, hidden_size=16)
    cell.bias = torch.nn.Parameter(torch.randn(64, 2)[:, 0])
    assert_as_reference(cell, inputs, cell.initial_state(6))
    dropped = RecurrentDropout(make_cell("gru", input_size=5, hidden_size=16), dropout=0.5)
    state = dropped.initial_state(6)
    fields = [each[:1].expand(6, -1) for each in flatten(state)]
    assert_as_reference(dropped, inputs, unflatten(state, fields))
    fields = [each.repeat(1, 2)[:, ::2] for each in flatten(state)]
    assert_as_reference(dropped, inputs, unflatten(state, fields))


def test_the_default_device_is_that_of_nothing_here() -> None:
    """Memory for C++ is made on the processor, whatever device the user's own tensors come to."""
    for size in (16, 17):
        cell = Shifted(input_size=5, hidden_size=size)
        inputs, state = torch.randn(8, 7, 5), cell.initial_state(8)
        if size == 16:  # already compiled; the other one is not even examined yet
            fused.run(cell, inputs, None, state)
        with torch.device("meta"):
            found, _ = fused.run(cell, inputs, None, state)
        torch.testing.assert_close(found, reference.run(cell, inputs, None, state)[0], rtol=1e-4, atol=1e-4)


def test_the_library_is_not_used_where_nothing_may_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """`RNNZOO_COMPILE=0` holds at once."""
    assert panels.library() is not None
    monkeypatch.setenv("RNNZOO_COMPILE", "0")
    assert panels.library() is None
    assert isinstance(Product(torch.randn(8, 8), times=9, dtype=None).matrix(back=False), Tensor)
