"""Every cell in every pattern: a step of training, and an answer."""

from __future__ import annotations

import pytest
import torch
from catalogue import CELLS
from small_models import SAMPLES, batch_of, build

from rnnzoo.errors import InputError

OPTIONS = {  # beside the defaults: what passes the hidden state on from step to step
    "Translator": {"input_feeding": True},
    "Captioner": {"attention": "top_down"},
}
PATTERNS = [name for name in SAMPLES if name != "VectorClassifier"]  # that one has no cell
SEARCH = {"Translator": {"search": {"max_length": 4}}, "Captioner": {"search": {"max_length": 4}}}


def dead(model):
    return [key for key, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", PATTERNS)
def test_a_step_and_an_answer(name, cell):
    model = build(name, cell=cell, **SEARCH.get(name, {}))
    batch = batch_of(model)
    objective = model.objective(model(batch), batch)
    (objective.total / objective.items).backward()
    assert dead(model) == []
    grads = [parameter.grad for key, parameter in model.named_parameters() if "cells" in key or "recurrent" in key]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in grads) > 0
    model.eval()
    with torch.inference_mode():
        answers = model.answers(model(batch), batch)
    assert len(answers) == len(SAMPLES[name])


VARIANTS = [
    ("Translator", {"attention": "none"}),
    ("Translator", {"recurrent": {"learn_initial_state": True}}),
    ("Captioner", {"attention": "none", "image_as": "state"}),
    ("Captioner", {"attention": "none", "image_as": "input"}),
    ("Captioner", {"attention": "top_down"}),
]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_no_parameter_is_without_a_gradient(name, options, cell):
    """Else it would be of no use, and several processes would stop at it; what is read is behind these gradients."""
    given = options.get("attention") == "none" and options.get("image_as") != "input"  # the first state tells it all
    if cell == "mlstm" and (given or "recurrent" in options):  # its first state is its own
        with pytest.raises(InputError, match=r"expected .*, got .*mlstm"):
            build(name, cell=cell, **options)
        return
    model = build(name, cell=cell, **options)
    batch = batch_of(model)
    model.objective(model(batch), batch).total.backward()
    assert dead(model) == []


@pytest.mark.parametrize("name", OPTIONS)
def test_a_cell_that_puts_out_less_than_it_holds(name):
    model = build(name, cell="lstm_projected", **OPTIONS[name], **SEARCH[name])
    batch = batch_of(model)
    model.objective(model(batch), batch).total.backward()
    model.eval()
    with torch.inference_mode():
        assert len(model.answers(model(batch), batch)) == len(SAMPLES[name])
