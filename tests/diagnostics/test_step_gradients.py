"""The gradient by step: sums that must be the whole gradient, single steps computed by hand, every cell and model."""

from __future__ import annotations

import pytest
import torch
from small_models import SAMPLES, batch_of, build

from rnnzoo.cells import CELLS
from rnnzoo.diagnostics.gradient_tape import cells_by_place
from rnnzoo.diagnostics.step_gradients import separate_weights, step_gradients
from rnnzoo.errors import InputError

STEPWISE = {"SequenceTagger": {"crf": False}, "FrameLabeller": {}, "LanguageModel": {}, "Translator": {}}


def double(model):
    """Return a model in float64 with its batch."""
    batch = batch_of(model.double())
    wide = (f.double() if isinstance(f, torch.Tensor) and f.is_floating_point() else f for f in batch)
    return model, type(batch)(*wide)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "VectorClassifier"])
def test_the_sums_over_steps_are_the_gradient_of_the_whole_loss(name):
    model, batch = double(build(name, **STEPWISE.get(name, {})).train())
    found = step_gradients(model, batch)
    assert found.largest > 1e-4
    assert found.use_difference < 1e-12
    assert all(norms and max(norms) > 0 for norms in found.use_norms.values())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all("step" not in vars(cell) and "project" not in vars(cell) for cell in model.modules())
    if name in STEPWISE:
        assert sum(found.losses) == pytest.approx(found.loss)
        assert found.loss_difference < 1e-12
        assert len(found.losses) == len(found.loss_norms) == int(batch.lengths.max())
        assert "the sum of the losses of" in found.sentences()[0]
    else:
        assert (found.losses, found.loss_difference) == ([], None)
        assert "no sum over steps" in found.sentences()[0]


def test_the_loss_of_a_crf_is_no_sum_over_steps():
    model, batch = double(build("SequenceTagger", crf=True))
    assert step_gradients(model, batch).losses == []


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_the_same_weights_at_every_step(cell):
    model, batch = double(build("LanguageModel", cell=cell))
    found = step_gradients(model, batch)
    assert found.use_difference < 1e-11 * max(1.0, found.largest)
    assert found.loss_difference < 1e-11 * max(1.0, found.largest)


def test_the_gradient_through_each_use_is_that_of_a_loop_with_weights_of_its_own():
    model, batch = double(build("LanguageModel", cell="rnn"))
    found = step_gradients(model, batch)
    cell, inputs = model.recurrent.cells[0], model.vectors(batch.tokens).detach()
    weights = [[p.detach().clone().requires_grad_() for p in cell.parameters()] for _ in range(inputs.shape[1])]
    names = [name for name, _ in cell.named_parameters()]
    hidden, outputs = inputs.new_zeros(len(inputs), 8), []
    for step, own in enumerate(weights):
        by_name = dict(zip(names, own, strict=True))
        projected = inputs[:, step] @ by_name["input_weight"].T + by_name["bias"]
        hidden = torch.tanh(projected + hidden @ by_name["recurrent_weight"].T)
        outputs.append(hidden)
    total = model.head.loss(torch.stack(outputs, dim=1), batch.targets)
    (total / (batch.targets >= 0).sum()).backward()
    expected = [float(sum(p.grad.square().sum() for p in own)) ** 0.5 for own in weights]
    assert found.use_norms["recurrent.layer 0 forward"] == pytest.approx(expected)


def test_steps_are_counted_anew_in_each_sequence():
    model, batch = double(build("LanguageModel"))
    cells = cells_by_place(model)
    with separate_weights(model, cells) as uses:
        (model.objective(model(batch), batch).total + model.objective(model(batch), batch).total).backward()
    assert len(uses.norms(model.recurrent.cells[0])) == batch.tokens.shape[1]


def test_frozen_layers_are_taken_apart_too_and_stay_frozen():
    model, batch = double(build("LanguageModel"))
    model.freeze_parts("encoder")
    assert step_gradients(model, batch).use_difference < 1e-12
    assert not any(parameter.requires_grad for parameter in model.recurrent.parameters())


def test_a_model_without_recurrent_layers_is_refused():
    model = build("VectorClassifier")
    with pytest.raises(InputError, match="expected one with recurrent layers, got a VectorClassifier"):
        step_gradients(model, batch_of(model))
