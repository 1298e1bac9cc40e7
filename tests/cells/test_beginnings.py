"""How cells begin whose papers want another start than `GatedCell`, and which of their options are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from catalogue import CELLS

from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError

I, H = 5, 64  # noqa: E741


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_irnn_begins_with_the_identity(scale):
    cell = make_cell("irnn", input_size=200, hidden_size=H, identity_scale=scale, input_deviation=0.01)
    torch.testing.assert_close(cell.recurrent_weight, scale * torch.eye(H))
    assert cell.input_weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not cell.bias.any()
    still = make_cell("irnn", input_size=I, hidden_size=H)
    held = still.initial_state(1)._replace(hidden=torch.rand(1, H))
    for _ in range(10):
        _, after = still.step(torch.zeros(1, H), held)
        assert torch.equal(after.hidden, held.hidden)  # nothing comes in, nothing is lost


@pytest.mark.parametrize(("steps", "bound"), [(None, 1.0), (1, 2.0), (10, 2**0.1)])
def test_indrnn_bounds_what_a_unit_multiplies_by(steps, bound):
    torch.manual_seed(0)
    scale = make_cell("indrnn", input_size=I, hidden_size=2000, memory_steps=steps).recurrent_scale
    assert scale.min() >= 0
    assert 0.98 * bound < scale.max() <= bound
    assert scale.mean().item() == pytest.approx(bound / 2, rel=0.05)


def test_janet_begins_with_memories_of_all_lengths():
    torch.manual_seed(0)
    cell = make_cell("janet", input_size=I, hidden_size=2000, memory_steps=101)
    forget, candidate = cell.bias.detach().split(2000)
    assert not candidate.any()
    spans = forget.exp()  # a unit with the bias log(s) keeps s / (s + 1) a step, so it remembers about s steps
    assert spans.min() >= 1
    assert spans.max() <= 100
    assert spans.mean().item() == pytest.approx(50.5, rel=0.05)


@pytest.mark.parametrize("name", ["mut1", "mut2"])
def test_a_mut_is_the_papers_cell_where_sizes_allow(name):
    blocks = {
        options: make_cell(name, input_size=size, hidden_size=8, project_input=project).input_weight.shape
        for options, size, project in (("bare", 8, False), ("forced", 8, True), ("other size", 3, False))
    }
    assert blocks == {"bare": (16, 8), "forced": (24, 8), "other size": (24, 3)}


@pytest.mark.parametrize("name", ["mut1", "mut2"])
def test_the_papers_mut_equals_its_reference(name):
    step = CELLS[name].reference.step
    for size in (4, 3):
        cell = make_cell(name, input_size=size, hidden_size=4).double()
        weights = {key: value.detach().numpy() for key, value in cell.named_parameters()}
        inputs, hidden = torch.randn(2, size, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
        output, _ = cell.step(cell.project(inputs), cell.initial_state(2)._replace(hidden=hidden))
        for row in range(2):
            expected, _ = step(weights, inputs[row].numpy(), (hidden[row].numpy(),))
            np.testing.assert_allclose(output[row].detach().numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["nig", "nfg", "nog", "niaf", "noaf", "cifg", "peephole", "fgr"])
def test_peepholes_begin_at_zero(name):
    cell = make_cell(name, input_size=I, hidden_size=H)
    found = {key: value for key, value in cell.named_parameters() if key.endswith("_peephole")}
    lacking = {"nig": "input", "nfg": "forget", "nog": "output", "cifg": "forget"}.get(name)
    assert set(found) == {f"{gate}_peephole" for gate in ("input", "forget", "output") if gate != lacking}
    assert not any(value.any() for value in found.values())


def test_full_gate_recurrence_without_it_is_the_peephole_lstm():
    full, plain = (make_cell(name, input_size=I, hidden_size=H) for name in ("fgr", "peephole"))
    assert torch.equal(full.bias, plain.bias)
    torch.testing.assert_close(full.gate_weight @ full.gate_weight.T, torch.eye(3 * H), rtol=0, atol=1e-5)
    full.load_state_dict({**plain.state_dict(), "gate_weight": torch.zeros(3 * H, 3 * H)})
    inputs = torch.randn(2, I)
    one, other = (cell.step(cell.project(inputs), cell.initial_state(2))[0] for cell in (full, plain))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("indrnn", {"activation": "rlu"}, "did you mean 'relu'"),
        ("indrnn", {"memory_steps": 0}, "memory_steps: expected at least 1, got 0"),
        ("janet", {"memory_steps": 2}, "memory_steps: expected at least 3, got 2"),
    ],
)
def test_values_out_of_range_are_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        make_cell(name, input_size=I, hidden_size=H, **options)
