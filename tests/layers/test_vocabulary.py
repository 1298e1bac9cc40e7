"""The chunked loss against plain cross-entropy over all logits at once."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rnnzoo.errors import InputError
from rnnzoo.layers import vocabulary
from rnnzoo.layers.vocabulary import VocabularyHead

torch.set_num_threads(1)

HIDDEN, SIZE, ITEMS = 6, 11, 23
CHUNKS = pytest.mark.parametrize("rows", [1, 4, ITEMS, 100])
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
KINDS = pytest.mark.parametrize("kind", ["free", "tied", "projected"])


def make_head(kind="free", *, dtype=torch.float64, hidden=HIDDEN, size=SIZE):
    """Return a head and the embedding that it is tied to, if it is."""
    torch.manual_seed(0)
    embedding = None if kind == "free" else nn.Embedding(size, hidden - 2 if kind == "projected" else hidden)
    head = VocabularyHead(input_size=hidden, vocabulary_size=size, tied=embedding)
    nn.init.normal_(head.bias)
    return head.to(dtype), None if embedding is None else embedding.to(dtype)


def make_items(count=ITEMS, *, dtype=torch.float64, hidden=HIDDEN, size=SIZE, ignored=True):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, hidden, generator=generator, dtype=dtype) * 3
    targets = torch.randint(0, size, (count,), generator=generator)
    if ignored:
        targets[::5] = -100
        targets[1::7] = -1
    return inputs.requires_grad_(), targets


def plain(head, inputs, targets, smoothing=0.0):
    weight = head.weight if head.projection is None else head.weight @ head.projection.weight
    logits = inputs @ weight.T + head.bias
    known = targets >= 0
    return F.cross_entropy(logits[known], targets[known], label_smoothing=smoothing, reduction="sum")


def gradients(loss, head, inputs):
    parameters = [inputs, *head.parameters()]
    return torch.autograd.grad(loss, parameters)


@CHUNKS
@SMOOTHING
@KINDS
def test_loss_and_gradients(kind, smoothing, rows, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK_NUMBERS", rows * SIZE)
    head, _ = make_head(kind)
    inputs, targets = make_items()
    loss = head.loss(inputs, targets, label_smoothing=smoothing)
    expected = plain(head, inputs, targets, smoothing)
    assert loss.shape == ()
    assert_close(loss, expected)
    for found, wanted in zip(gradients(7 * loss, head, inputs), gradients(7 * expected, head, inputs), strict=True):
        assert_close(found, wanted)


def test_gradients_numerically():
    head, _ = make_head()
    inputs, targets = make_items(4)

    def loss(inputs, weight, bias):
        return vocabulary.ChunkedCrossEntropy.apply(inputs, weight, bias, targets.clamp(min=0), 0.2, True)[0]

    assert torch.autograd.gradcheck(loss, (inputs, head.weight, head.bias))


@pytest.mark.parametrize("needed", list(itertools.product([False, True], repeat=3)), ids=str)
def test_only_the_gradients_that_are_needed(needed):
    head, _ = make_head()
    inputs, targets = make_items()
    leaves = [inputs, head.weight, head.bias]
    for leaf, need in zip(leaves, needed, strict=True):
        leaf.requires_grad_(need)
    loss, expected = head.loss(inputs, targets), plain(head, inputs, targets)
    assert_close(loss, expected)
    assert loss.requires_grad == any(needed)
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    if wanted:
        assert_close(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted))
    with torch.no_grad():
        assert_close(head.loss(inputs, targets), expected)


def test_tied_weights_are_one_parameter():
    head, embedding = make_head("tied")
    assert head.weight is embedding.weight
    inputs, targets = make_items()
    tokens = torch.arange(ITEMS) % SIZE

    def both(loss):
        return torch.autograd.grad(loss(embedding(tokens) + inputs), embedding.weight)[0]

    found = both(lambda hidden: head.loss(hidden, targets))
    assert_close(found, both(lambda hidden: plain(head, hidden, targets)))


@CHUNKS
def test_targets_that_do_not_count(rows, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK_NUMBERS", rows * SIZE)
    head, _ = make_head()
    inputs, targets = make_items()
    known = targets >= 0
    assert_close(head.loss(inputs, targets), head.loss(inputs[known], targets[known]))
    (gradient,) = torch.autograd.grad(head.loss(inputs, targets, label_smoothing=0.1), inputs)
    assert (gradient[~known] == 0).all()
    assert (gradient[known] != 0).all()
    for nothing in (head.loss(inputs, torch.full_like(targets, -100)), head.loss(inputs[:0], targets[:0])):
        assert nothing.tolist() == 0.0
        for found in torch.autograd.grad(nothing, [inputs, *head.parameters()]):
            assert (found == 0).all()


@CHUNKS
@KINDS
def test_log_likelihoods(kind, rows, monkeypatch):
    monkeypatch.setattr(vocabulary, "CHUNK_NUMBERS", rows * SIZE)
    head, _ = make_head(kind)
    inputs, targets = make_items(24)
    hidden, wanted = inputs.reshape(2, 4, 3, HIDDEN), targets.reshape(2, 4, 3)
    found = head.log_likelihoods(hidden, wanted)
    logs = head(hidden).log_softmax(-1).gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    assert_close(found, torch.where(wanted >= 0, logs, 0.0))
    assert_close(-found.sum(), head.loss(inputs, targets))
    for mine, theirs in zip(
        gradients(-found.sum(), head, inputs), gradients(head.loss(inputs, targets), head, inputs), strict=True
    ):
        assert_close(mine, theirs)
    assert head.log_likelihoods(hidden[:0], wanted[:0]).shape == (0, 4, 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_large_logits_overflow_nothing(smoothing):
    head, _ = make_head(dtype=torch.float32)
    inputs, targets = make_items(dtype=torch.float32)
    loss, expected = (
        each(inputs * 1e4)
        for each in (
            lambda hidden: head.loss(hidden, targets, label_smoothing=smoothing),
            lambda hidden: plain(head, hidden, targets, smoothing),
        )
    )
    assert_close(loss, expected)
    assert all(each.isfinite().all() for each in gradients(loss, head, inputs))


class Largest(TorchDispatchMode):
    """Remembers the most numbers that any operation put out."""

    numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else [found]:
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return found


@SMOOTHING
def test_logits_of_all_items_are_never_held(smoothing, monkeypatch):
    items, size, hidden, rows = 400, 97, 8, 10
    monkeypatch.setattr(vocabulary, "CHUNK_NUMBERS", rows * size)
    head, _ = make_head(hidden=hidden, size=size)
    inputs, targets = make_items(items, hidden=hidden, size=size)
    least = max(items * hidden, size * hidden, rows * size)
    assert least < items * size / 10
    with Largest() as largest:
        head.loss(inputs, targets, label_smoothing=smoothing).backward()
    assert largest.numbers == least
    with Largest() as largest, torch.no_grad():
        head.log_likelihoods(inputs, targets)
    assert largest.numbers <= least
    with Largest() as largest:
        plain(head, inputs, targets)
    assert largest.numbers > 10 * rows * size, "the measure sees the logits of the plain loss"


def test_a_second_derivative_is_refused():
    head, _ = make_head()
    inputs, targets = make_items()
    for loss in (head.loss(inputs, targets), head.loss(inputs, targets).square()):
        with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
            torch.autograd.grad(loss, inputs, create_graph=True)


@SMOOTHING
@KINDS
def test_autocast(kind, smoothing):
    head, _ = make_head(kind, dtype=torch.float32)
    inputs, targets = make_items(200, dtype=torch.float32)
    expected = plain(head, inputs, targets, smoothing)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(inputs, targets, label_smoothing=smoothing)
        likelihoods = head.log_likelihoods(inputs, targets)
        assert head(inputs).dtype == torch.bfloat16
    assert loss.dtype == likelihoods.dtype == torch.float32
    assert_close(loss, expected, rtol=0.01, atol=0.0)
    assert_close(-likelihoods.sum(), plain(head, inputs, targets), rtol=0.01, atol=0.0)
    for found, wanted in zip(gradients(loss, head, inputs), gradients(expected, head, inputs), strict=True):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < 0.02 * wanted.norm()
    assert loss.tolist() != expected.tolist(), "the products ran in bfloat16"


def test_narrow_weights_have_the_gradient_of_one_chunk(monkeypatch):
    torch.manual_seed(0)
    head = VocabularyHead(input_size=8, vocabulary_size=40).bfloat16()
    hidden, targets = torch.randn(1000, 8).bfloat16(), torch.randint(40, (1000,))
    found = []
    for numbers in (40 * 10, 40 * 1000):
        monkeypatch.setattr(vocabulary, "CHUNK_NUMBERS", numbers)
        found.append(torch.autograd.grad(head.loss(hidden, targets), [head.weight, head.bias]))
    for got, expected in zip(*found, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, expected, rtol=0.02, atol=0.05)


def test_half_precision_weights():
    head, _ = make_head(dtype=torch.bfloat16)
    inputs, targets = make_items(dtype=torch.bfloat16)
    loss = head.loss(inputs, targets)
    assert loss.dtype == torch.float32
    assert_close(loss, plain(head, inputs, targets).float(), rtol=0.02, atol=0.0)
    assert {each.dtype for each in gradients(loss, head, inputs)} == {torch.bfloat16}


def test_tied_weights_of_another_size_are_refused():
    def build(tokens, size, **more):
        VocabularyHead(input_size=HIDDEN, vocabulary_size=SIZE, tied=nn.Embedding(tokens, size), **more)

    with pytest.raises(InputError, match="tied weights: expected an embedding of 11 vectors of 6 numbers, got 12 of 6"):
        build(SIZE + 1, HIDDEN)
    with pytest.raises(InputError, match="got 11 of 4"):
        build(SIZE, HIDDEN - 2, project=False)
    build(SIZE, HIDDEN - 2)
