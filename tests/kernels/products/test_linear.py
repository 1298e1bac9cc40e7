"""Products through oneDNN: the numbers of plain torch, whatever lies how in memory; and when they are not taken."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from matrix_layouts import LAYOUTS, laid_out
from torch import Tensor, nn

from rnnzoo.kernels.products import linear as product
from rnnzoo.kernels.products.linear import Product, WeightGrad, dense, faster_products, linear, multiply


@pytest.fixture(autouse=True)
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take oneDNN for products of every size, on every processor that has it; return what grows with each of them."""
    if not product.can_block(torch.float32):
        pytest.skip("needs a torch with oneDNN")
    monkeypatch.setattr(product, "mkl_is_slow", lambda: True)
    for name in ("MIN_MULTIPLICATIONS_FOR_ONEDNN", "LEAST_ROWS", "LEAST_COLUMNS"):
        monkeypatch.setattr(product, name, 1)
    monkeypatch.setattr(product, "PART", 5)
    sizes: list[int] = []

    def counted(matrix: Tensor) -> Tensor:
        sizes.append(matrix.numel())
        return dense(matrix)

    monkeypatch.setattr(product, "dense", counted)
    return sizes


@pytest.mark.parametrize("right_layout", LAYOUTS)
@pytest.mark.parametrize("left_layout", LAYOUTS)
@pytest.mark.parametrize("biased", [False, True])
def test_multiply(left_layout: str, right_layout: str, biased: bool) -> None:
    """A Bᵀ + b is that of float64."""
    left, right, bias = torch.randn(7, 6), torch.randn(5, 6), torch.randn(5)
    found = multiply(laid_out(left, left_layout), laid_out(right, right_layout), bias if biased else None)
    expected = left.double() @ right.double().t() + (bias if biased else 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_a_bias_lies_anyhow() -> None:
    """Strides of the bias, of which oneDNN knows nothing, are heeded; a bias of another type or device is torch's."""
    left, right = torch.randn(7, 6), torch.randn(5, 6)
    for bias in (torch.randn(5, 2)[:, 0], torch.randn(1).expand(5)):
        torch.testing.assert_close(multiply(left, right, bias), left @ right.t() + bias)
        torch.testing.assert_close(linear(left, right, bias), left @ right.t() + bias)
    with pytest.raises(RuntimeError):
        linear(left, right, torch.randn(5, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        linear(left, right, torch.randn(5, device="meta"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of traces
def test_transformations_of_torch_get_torchs_products(taken: list[int]) -> None:
    """`torch.func`, forward mode, traces, batched gradients and compiled programs know nothing of oneDNN's."""
    inputs, weight = torch.randn(7, 6), torch.randn(5, 6)

    def loss(weight: Tensor) -> Tensor:
        return linear(inputs, weight).square().sum()

    expected = 2 * (inputs @ weight.t()).t() @ inputs
    torch.testing.assert_close(torch.func.grad(loss)(weight), expected)
    torch.testing.assert_close(
        torch.func.jvp(loss, (weight,), (torch.ones_like(weight),))[1], expected.sum(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        torch.func.vmap(linear, (None, 0))(inputs, weight.expand(3, 5, 6)), (inputs @ weight.t()).expand(3, 7, 5)
    )
    traced = torch.jit.trace(linear, (inputs, weight), check_trace=False)
    assert "linear_pointwise" not in str(traced.graph)
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs, weight), inputs @ weight.t())
    assert not taken
    leaf = weight.clone().requires_grad_()
    outputs = linear(inputs, leaf)
    assert taken
    several = torch.randn(3, 7, 5)
    (found,) = torch.autograd.grad(outputs, leaf, several, is_grads_batched=True)
    torch.testing.assert_close(found, several.transpose(1, 2) @ inputs)


def test_weights_of_inference_mode_serve_where_no_gradient_is_wanted() -> None:
    """As with torch's own."""
    with torch.inference_mode():
        weight = torch.randn(5, 6)
    torch.testing.assert_close(linear(torch.ones(7, 6), weight), weight.sum(1).expand(7, 5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_onednn_is_given_nothing_with_gaps(layout: str) -> None:
    """A part of a wider matrix would be multiplied by its reference, which is a hundred times slower."""
    matrix = laid_out(torch.randn(7, 6), layout)
    found = dense(matrix)
    assert found.is_contiguous() or found.t().is_contiguous()
    assert (found.data_ptr() == matrix.data_ptr()) == (layout in ("contiguous", "transposed"))
    assert torch.equal(found, matrix)


def test_small_and_narrow_products_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the measured limits, neither a small product nor one with few columns goes to oneDNN."""
    monkeypatch.undo()
    monkeypatch.setattr(product, "mkl_is_slow", lambda: True)
    assert product.prefers_onednn(torch.empty(512, 256), torch.empty(1024, 256))
    assert not product.prefers_onednn(torch.empty(32, 16), torch.empty(1024, 16))
    assert not product.prefers_onednn(torch.empty(8192, 2048), torch.empty(17, 2048))
    assert not product.prefers_onednn(torch.empty(2, 4096), torch.empty(4096, 4096))


def test_multiply_takes_repeated_rows() -> None:
    """Rows that are one in memory (`expand`) are multiplied as if they were not."""
    left, right = torch.randn(1, 6).expand(7, 6), torch.randn(1, 6).expand(5, 6)
    torch.testing.assert_close(multiply(left, right), left @ right.t())
    column = torch.randn(7, 1).expand(7, 6)
    torch.testing.assert_close(multiply(column, right), column @ right.t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_of_a_weight(dtype: torch.dtype) -> None:
    """Parts of any number of rows add up to gᵀ a, in float32 or wider."""
    grads, operands = torch.randn(13, 4).to(dtype), torch.randn(13, 3).to(dtype)
    total = WeightGrad(torch.empty(4, 3, dtype=dtype), dtype=None)
    total.add(grads[:6].unflatten(0, (2, 3)), operands[:6].unflatten(0, (2, 3)))
    total.add(grads[6:], operands[6:])
    total.add(grads[:0], operands[:0])
    found = total.total()
    assert found.shape == (4, 3)
    assert found.is_contiguous()
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(
        found.double(), grads.double().t() @ operands.double(), rtol=tolerance, atol=10 * tolerance
    )


@pytest.mark.parametrize("times", [1, 10])
def test_product_and_its_adjoint(times: int) -> None:
    """Laid out once or not, a product and its adjoint have the numbers of plain torch."""
    weight, operand, grad = torch.randn(5, 6), torch.randn(7, 6), torch.randn(7, 5)
    made = Product(weight, times=times, dtype=None)
    forth, back = torch.ones(7, 5), torch.ones(7, 6)
    made.put(operand, forth)
    made.put(grad, back, back=True)
    torch.testing.assert_close(forth, operand @ weight.t())
    torch.testing.assert_close(back, grad @ weight)
    made.put(operand, forth, add=True)
    made.put(grad, back, back=True, add=True)
    torch.testing.assert_close(forth, 2 * operand @ weight.t())
    torch.testing.assert_close(back, 2 * grad @ weight)


def test_a_product_in_a_narrow_type_is_added_to_a_wide_one() -> None:
    """Under autocast the projected input may be wider than the products that are added to it."""
    weight, operand = torch.randn(5, 6), torch.randn(7, 6)
    out = torch.ones(7, 5)
    Product(weight, times=1, dtype=torch.bfloat16).put(operand, out, add=True)
    torch.testing.assert_close(out, operand @ weight.t() + 1, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6)])
def test_linear_and_its_gradients(shape: tuple[int, ...], biased: bool, taken: list[int]) -> None:
    """`linear` is torch's, gradients included, also where the graph of the gradient is wanted."""
    inputs, weight, bias = torch.randn(shape), torch.randn(5, 6), torch.randn(5)
    inputs, weight, bias = (value.requires_grad_() for value in (inputs, weight, bias))
    leaves = [inputs, weight, *([bias] if biased else [])]
    ours, theirs = (run(inputs, weight, bias if biased else None) for run in (linear, F.linear))
    assert taken
    torch.testing.assert_close(ours, theirs)
    for graph in (False, True):
        found, expected = (
            torch.autograd.grad(each.square().sum(), leaves, retain_graph=True, create_graph=graph)
            for each in (ours, theirs)
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    again, wanted = (torch.autograd.grad(sum(g.sin().sum() for g in each), weight) for each in (found, expected))
    torch.testing.assert_close(again, wanted, rtol=1e-2, atol=1e-2)  # float32, twice through large sums


def test_faster_products_reach_every_module(taken: list[int]) -> None:
    """A user's own cell that calls torch's `linear` gets the faster products, within the context alone."""
    layer, inputs = nn.Linear(6, 5), torch.randn(7, 6)
    with faster_products():
        inside = layer(inputs)
        assert taken
        named = F.linear(input=inputs, weight=layer.weight, bias=layer.bias)
    taken.clear()
    outside = layer(inputs)
    assert not taken
    torch.testing.assert_close(inside, outside)
    torch.testing.assert_close(named, outside)


def test_what_is_left_to_torch() -> None:
    """Products without numbers, float64, autocast, another processor, and oneDNN switched off by the user."""
    left, right = torch.randn(7, 6), torch.randn(5, 6)
    assert product.prefers_onednn(left, right)
    assert not product.prefers_onednn(left[:0], right)
    assert not product.prefers_onednn(left.double(), right.double())
    before = torch.backends.mkldnn.set_flags(_enabled=False)[0]
    try:
        assert not product.prefers_onednn(left, right)
    finally:
        torch.backends.mkldnn.set_flags(_enabled=before)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(left, right).dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(left, right[:, :3])
