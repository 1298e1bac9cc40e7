"""Gates over a text: the right numbers, for each model that reads text and each cell that names its gates."""

from __future__ import annotations

import pytest
import torch
from small_models import SAMPLES, build

from rnnzoo.cells import CELLS
from rnnzoo.diagnostics.gate_values import gate_values
from rnnzoo.diagnostics.gradient_flow import own_names
from rnnzoo.diagnostics.gradient_tape import recording
from rnnzoo.errors import InputError

FORWARD = "recurrent.layer 0 forward"
READERS = {"SequenceClassifier", "SequenceTagger", "LanguageModel", "Translator"}


def by_hand(model, text, cell):
    """Return the activations of an LSTM or GRU over a text, step by step from its weights."""
    inputs = model.vectors(torch.tensor([[model.processor.end_id, *model.processor.encode_prompt(text)]]))[0]
    own, size = model.recurrent.cells[0], model.recurrent.cells[0].hidden_size
    hidden, memory = torch.zeros(size), torch.zeros(size)
    steps = []
    for x in inputs:
        projected, recurrent = own.project(x), own.recurrent_weight @ hidden
        if cell == "lstm":
            i, f, g, o = (projected + recurrent).split(size)
            values = {"i": i.sigmoid(), "f": f.sigmoid(), "o": o.sigmoid(), "g": g.tanh()}
            memory = values["f"] * memory + values["i"] * values["g"]
            values["tanh c'"] = memory.tanh()
            hidden = values["o"] * memory.tanh()
        else:
            r, z, _ = (projected + recurrent).split(size)
            n = projected[2 * size :] + r.sigmoid() * (recurrent[2 * size :] + own.candidate_bias)
            values = {"r": r.sigmoid(), "z": z.sigmoid(), "n": n.tanh()}
            hidden = (1 - values["z"]) * values["n"] + values["z"] * hidden
        steps.append(values)
    return {name: torch.stack([values[name] for values in steps]).detach() for name in steps[0]}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gates_are_those_of_the_equations(cell):
    model = build("LanguageModel", cell=cell)
    with torch.no_grad():
        model.recurrent.cells[0].bias.uniform_(-2, 2)  # different for each gate: a mistaken name shows
    [found] = gate_values(model, "the cat sat on").values()
    assert found.tokens == ["\n", "the", "cat", "sat"]  # the last one is only predicted
    expected = by_hand(model, "the cat sat", cell)
    assert list(found.values) == list(expected)  # in the order of the papers
    for name, values in expected.items():
        torch.testing.assert_close(found.values[name], values)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_model_that_reads_text_shows_its_gates_and_others_are_refused(name):
    model = build(name)
    if name not in READERS:
        with pytest.raises(InputError, match=f"expected recurrent layers that read text, got a {name}"):
            gate_values(model, "the cat sat")
        return
    found = gate_values(model.train(), "the cat sat")
    assert model.training
    layers = {layer.partition(".layer")[0] for layer in found}
    assert layers == {"encoder" if name == "Translator" else "recurrent"}
    for layer in found.values():
        assert all(len(values) == len(layer.tokens) for values in layer.values.values())
    with pytest.raises(InputError, match="text: expected at least one token, got ''"):
        gate_values(build("SequenceTagger"), "")


def test_the_backward_direction_is_shown_in_the_order_of_the_text():
    model = build("SequenceClassifier")
    whole, part = gate_values(model, "the cat sat"), gate_values(model, "cat sat")
    backward = "recurrent.layer 0 backward"
    torch.testing.assert_close(whole[backward].values["f"][1:], part[backward].values["f"])
    torch.testing.assert_close(whole[FORWARD].values["f"][:1], gate_values(model, "the")[FORWARD].values["f"])


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_computes_the_gates_that_it_names_or_is_refused(cell):
    model = build("SequenceClassifier", cell=cell, recurrent={"bidirectional": False})
    own = model.recurrent.cells[0]
    gates, tangents = own_names(own, "gate_names"), own_names(own, "tanh_names")
    if not gates:
        with pytest.raises(InputError, match=f"a cell whose gates have names, such as lstm or gru, got {cell}"):
            gate_values(model, "the cat sat")
        return
    with recording(model) as tapes:
        list(model.answer([{"text": "the cat sat"}]))
    call = tapes[FORWARD].sequences[0][0]
    assert len(call.sigmoids) == len(gates)
    assert not tangents or len(call.tangents) == len(tangents)
    found = gate_values(model, "the cat sat")[FORWARD].values
    assert set(found) == {*gates, *tangents}
