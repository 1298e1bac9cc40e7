from __future__ import annotations

import pytest
import torch

from rnnzoo.batches import IGNORED, UNSEEN
from rnnzoo.errors import InputError
from rnnzoo.models.losses import cross_entropy, sample_cross_entropy, squared_error
from rnnzoo.models.options import LossOptions, RecurrentOptions, as_options
from rnnzoo.models.tasks import ClassTask, LabelSetTask, NumberTask, class_weight_vector


def logits_and_targets():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 5)
    targets = torch.randint(5, (3, 4))
    targets[0, 3] = IGNORED
    targets[1, 0] = UNSEEN
    targets[2, :] = IGNORED
    return logits, targets


def test_cross_entropy_is_the_sum_over_known_targets():
    logits, targets = logits_and_targets()
    total, items = cross_entropy(logits, targets)
    logs = logits.log_softmax(-1)
    expected = -sum(logs[b, t, targets[b, t]] for b in range(3) for t in range(4) if targets[b, t] >= 0)
    assert items == 6
    assert total.item() == pytest.approx(expected.item(), abs=1e-5)


def test_class_weights_weigh_sum_and_count():
    logits, targets = logits_and_targets()
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 0.5])
    total, items = cross_entropy(logits, targets, weights=weights)
    known = targets >= 0
    expected = torch.nn.functional.cross_entropy(logits[known], targets[known], weight=weights)
    assert (total / items).item() == pytest.approx(expected.item(), abs=1e-6)


def test_reported_loss_has_neither_smoothing_nor_weights():
    logits, targets = logits_and_targets()
    plain = ClassTask(labels=list("abcde"), loss=LossOptions(), item="word")
    bent = ClassTask(labels=list("abcde"), loss=LossOptions(0.3, {"a": 5.0}), item="word")
    assert bent.objective(logits, targets).total != plain.objective(logits, targets).total
    for one, other in zip(plain.sample_losses(logits, targets), bent.sample_losses(logits, targets), strict=True):
        assert torch.equal(one, other)


def test_sample_losses_add_up_to_the_objective():
    logits, targets = logits_and_targets()
    losses = sample_cross_entropy(logits, targets)
    total, items = cross_entropy(logits, targets)
    assert losses.totals.sum().item() == pytest.approx(total.item(), abs=1e-5)
    assert losses.counts.tolist() == [3, 3, 0]
    assert items == losses.counts.sum()


def test_a_batch_without_a_known_target_has_a_gradient_of_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    total, items = cross_entropy(logits, torch.tensor([IGNORED, UNSEEN]))
    total.backward()
    assert items == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["class", "set", "number"])
def test_losses_are_computed_wide_in_a_model_of_any_type(kind, dtype):
    loss = LossOptions(class_weights={"a": 0.3})
    if kind == "class":
        task, targets = ClassTask(labels=["a", "b"], loss=loss, item="frame"), torch.tensor([[0, 1, 0, -1]] * 2)
        outputs = torch.randn(2, 4, 2)
    elif kind == "set":
        task, targets, outputs = (
            LabelSetTask(labels=["a", "b"], loss=loss),
            torch.tensor([[1, 0, 0]] * 2),
            torch.randn(2, 2),
        )
    else:
        task, targets = NumberTask(names=["x"], restore=lambda x: x), torch.randn(70_001, 1)
        outputs = targets + 1
    task, outputs = task.to(dtype), outputs.to(dtype).requires_grad_()
    found = task.objective(outputs, targets)
    wanted = torch.promote_types(dtype, torch.float32)
    assert found.total.dtype == found.items.dtype == wanted
    items = {"class": 3.2, "set": 2.6, "number": 70_001}[kind]
    assert float(found.items) == pytest.approx(
        items, rel=1e-2 if dtype == torch.bfloat16 and kind != "number" else 1e-3
    )
    (gradient,) = torch.autograd.grad(found.total / found.items, outputs)
    assert gradient.isfinite().all()
    assert float(gradient.float().abs().sum()) > 0
    assert task.sample_losses(outputs, targets).totals.dtype == wanted


def test_a_label_is_answered_where_it_is_counted():
    task = LabelSetTask(labels=["a", "b", "c"], loss=LossOptions())
    (answer,) = task.answers(torch.tensor([[1e-6, -1e-6, 2.0]]))
    assert answer["labels"] == ["a", "c"]


def test_squared_error_leaves_out_missing_targets():
    outputs = torch.tensor([[1.0, 2.0]], requires_grad=True)
    errors = squared_error(outputs, torch.tensor([[3.0, float("nan")]]))
    errors.sum().backward()
    assert errors.tolist() == [[4.0, 0.0]]
    assert outputs.grad.tolist() == [[-4.0, 0.0]]


def test_label_sets_smooth_towards_a_half():
    outputs, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0, 0.0]])
    task = LabelSetTask(labels=["a", "b"], loss=LossOptions(label_smoothing=0.2, class_weights={"b": 3.0}))
    total, items = task.objective(outputs, targets)
    assert items == 4.0
    assert total.item() == pytest.approx(4 * torch.log(torch.tensor(2.0)).item(), abs=1e-6)
    assert task.answers(torch.tensor([[2.0, -2.0]]))[0]["labels"] == ["a"]


def test_numbers_are_reported_in_the_units_of_the_data():
    task = NumberTask(names=["kg"], restore=lambda values: values * 10 + 100)
    metrics = task.build_metrics()
    task.update_metrics(metrics, torch.tensor([0]), torch.tensor([[1.0]]), torch.tensor([[0.5]]))
    assert float(metrics["errors"].compute()["mae"]) == pytest.approx(5.0)
    assert float(metrics["loss"].compute()["loss"]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("weights", "message"), [({"x": 1.0}, "expected one of a, b"), ({"a": -1.0}, "a weight of at least 0")]
)
def test_bad_class_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        class_weight_vector(weights, ["a", "b"])


def test_options_refuse_unknown_keys_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'residual'"):
        as_options(RecurrentOptions, {"residul": True}, "model.recurrent")
    assert as_options(RecurrentOptions, None, "model.recurrent") == RecurrentOptions()
