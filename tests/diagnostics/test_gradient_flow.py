"""How far gradients reach back: known cases, an independent computation, every cell and every model."""

from __future__ import annotations

import math

import pytest
import torch
from small_models import SAMPLES, batch_of, build

from rnnzoo.batches import IGNORED
from rnnzoo.cells import CELLS
from rnnzoo.diagnostics.gradient_flow import measure_flow, own_names, summarise_lags
from rnnzoo.diagnostics.gradient_tape import Call, Tape, cells_by_place
from rnnzoo.errors import InputError
from rnnzoo.state import map_state

TEXT = "the cat sat on the mat and the cat sat on the mat again"
FORWARD = "recurrent.layer 0 forward"
LAGS = len(TEXT.split()) - 1


def classifier(cell, *texts, **options):
    """Return a classifier of one direction that reads the last output, in float64, with a batch of texts."""
    options = {"pooling": ["last"], "recurrent": {"bidirectional": False}, **options}
    model = build("SequenceClassifier", TEXT, cell=cell, **options).double()
    samples = [{"text": text, "label": "x"} for text in texts or (TEXT,)]
    return model, collate(model, samples)


def collate(model, samples):
    return model.processor.collate([{**model.processor.encode(each), "id": n} for n, each in enumerate(samples)])


def set_weights(cell, recurrent, bias=0.0):
    """Make a cell blind to its inputs."""
    with torch.no_grad():
        cell.input_weight.zero_()
        cell.bias.copy_(torch.as_tensor(bias).expand_as(cell.bias))
        if recurrent is not None:
            cell.recurrent_weight.copy_(recurrent)


def ratios(curve):
    return [after / before for before, after in zip(curve.median, curve.median[1:], strict=False)]


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_a_linear_elman_network_shrinks_or_grows_gradients_by_its_spectral_radius(radius):
    model, batch = classifier("rnn")
    cell = model.recurrent.cells[0]
    set_weights(cell, radius * torch.linalg.qr(torch.randn(8, 8))[0])  # h stays 0, where tanh has slope 1
    curve = measure_flow(model, batch).curves[FORWARD]
    assert len(curve.median) == LAGS
    assert ratios(curve) == pytest.approx([radius] * (len(curve.median) - 1))
    assert curve.per_step == pytest.approx(radius)


def test_the_factor_of_two_rows_is_between_theirs():
    norms = torch.tensor([[1.0, 4.0], [0.5, 4.0], [0.25, 4.0]], dtype=torch.float64)
    curve = summarise_lags(norms)
    assert curve.median == [2.5, 2.25, 2.125]
    assert curve.per_step == pytest.approx((2.125 / 2.5) ** 0.5)


def test_the_factor_ends_where_the_gradient_is_too_small_for_its_type():
    norms = torch.tensor([[1.0, 1.0], [0.1, 0.1], [0.01, 0.01], [0.0, 0.0]], dtype=torch.float64)
    assert summarise_lags(norms).per_step == pytest.approx(0.1)
    assert summarise_lags(0 * norms).per_step is None


def test_an_identity_network_of_rectified_units_keeps_them():
    model, batch = classifier("rnn_relu")
    set_weights(model.recurrent.cells[0], torch.eye(8), bias=0.1)  # all units active
    assert ratios(measure_flow(model, batch).curves[FORWARD]) == pytest.approx([1.0] * (LAGS - 1))


def test_the_memory_of_an_lstm_passes_what_its_forget_gate_lets_through():
    for forget in (0.9, 1.0):
        model, batch = classifier("lstm")
        logit = math.log(forget / (1 - forget)) if forget < 1 else 60.0
        bias = torch.zeros(4, 8)
        bias[1] = logit
        set_weights(model.recurrent.cells[0], torch.zeros(32, 8), bias.flatten())
        found = measure_flow(model, batch)
        assert ratios(found.curves[FORWARD]) == pytest.approx([forget] * (LAGS - 1))
        gate = {gate.gate: gate for gate in found.gates[FORWARD]}["f"]
        assert (gate.mean, gate.below, gate.above) == pytest.approx((forget, 0.0, float(forget > 0.95)))


def test_a_linear_recurrence_passes_its_coefficient():
    model, batch = classifier("mingru")
    set_weights(model.recurrent.cells[0], None, bias=0.3)
    found = measure_flow(model, batch)
    kept = found.gates[FORWARD][0]
    assert kept.gate == "|a|"
    assert ratios(found.curves[FORWARD]) == pytest.approx([kept.mean] * (LAGS - 1))


def test_lags_are_at_most_those_asked_for():
    model, batch = classifier("gru")
    whole, part = (measure_flow(model, batch, lags=lags).curves[FORWARD] for lags in (None, 3))
    assert part.median == pytest.approx(whole.median[:3])


@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "mingru"])
def test_norms_are_those_of_a_plain_loop_over_each_row_alone(cell):
    texts = ["the cat sat on the mat", "sat on", "the cat sat", "on the mat and the cat"]
    model, batch = classifier(cell, *texts, num_layers=2)
    found = measure_flow(model, batch).curves
    top, bottom = (f"recurrent.layer {layer} forward" for layer in (1, 0))
    expected = {top: [], bottom: []}
    model.eval()
    for text in texts:
        alone = collate(model, [{"text": text, "label": "x"}])
        inputs, leaves = model.words(alone.tokens), {}
        for layer, place in enumerate((bottom, top)):
            own = model.recurrent.cells[layer]
            state, outputs, leaves[place] = own.initial_state(1), [], []
            for step in range(inputs.shape[1]):
                output, state = own.step(own.project(inputs[:, step]), state)
                state = map_state(lambda field: field + torch.zeros_like(field).requires_grad_(), state)
                leaf = map_state(torch.clone, state)  # what enters the next step, apart from the output
                leaves[place].append(list(leaf))
                state = leaf
                outputs.append(output)
            inputs = torch.stack(outputs, dim=1)
            if place == bottom:  # layer 1 reads the last output only, as far as this layer's own recurrence goes
                inputs = torch.cat([inputs[:, :-1].detach(), inputs[:, -1:]], dim=1)
        total, _ = model.objective(model.head(inputs[:, -1]), alone)
        for place, steps in leaves.items():
            flat = [field for step in steps[:-1] for field in step]
            parts = iter(torch.autograd.grad(total, flat, retain_graph=True, allow_unused=True))
            norms = []
            for step in steps[:-1]:
                given = [part for part in (next(parts) for _ in step) if part is not None]
                norms.append(math.sqrt(sum(float(part.square().sum()) for part in given)))
            expected[place].append(norms[::-1])
    for place, rows in expected.items():
        for lag, median in enumerate(found[place].median):
            reached = torch.tensor([row[lag] for row in rows if len(row) > lag], dtype=torch.float64)
            assert found[place].rows[lag] == len(reached)
            assert median == pytest.approx(float(reached.quantile(0.5))), (place, lag)


def test_the_lag_is_counted_from_the_last_step_that_has_a_loss():
    model = build("FrameLabeller", hidden_size=8, recurrent={"bidirectional": False}).double()
    frames = [[0.5, 1.0], [-1.0, 3.0], [2.0, 0.0], [1.0, 1.0], [0.0, 2.0]]
    batch = collate(model, [{"frames": frames, "labels": ["x", "y", "x", "x", "y"]}])
    batch = batch._replace(frames=batch.frames.double())
    late = batch._replace(targets=torch.where(torch.arange(5) > 2, IGNORED, batch.targets))
    short = batch._replace(frames=batch.frames[:, :3], targets=batch.targets[:, :3], lengths=torch.tensor([3]))
    first, second = (measure_flow(model, each) for each in (late, short))
    assert first.curves[FORWARD].median == pytest.approx(second.curves[FORWARD].median)
    assert len(first.curves[FORWARD].median) == 2
    for one, two in zip(first.gates[FORWARD], second.gates[FORWARD], strict=True):
        assert one.mean == pytest.approx(two.mean)  # frames after the last label do not count


def test_a_curve_ends_where_few_rows_go_on():
    model, batch = classifier("gru", TEXT, *["the cat sat"] * 7)
    curve = measure_flow(model, batch).curves[FORWARD]
    assert curve.rows == [8, 8]


def test_padding_changes_nothing():
    texts = ["the cat sat on the mat", "sat on the"]
    for cell in ("lstm", "mgu", "sru"):
        model, batch = classifier(cell, *texts)
        more = batch._replace(tokens=torch.nn.functional.pad(batch.tokens, (0, 4)))
        assert measure_flow(model, batch) == measure_flow(model, more)


def test_gates_are_counted_over_valid_steps_of_all_rows():
    model, batch = classifier("lstm", "the cat sat on the mat", "sat")
    cell = model.recurrent.cells[0]
    with torch.no_grad():
        cell.input_weight.mul_(8)
    model.eval()
    found = {gate.gate: gate for gate in measure_flow(model, batch).gates[FORWARD]}
    seen = []
    for row, length in enumerate(batch.lengths.tolist()):
        state = cell.initial_state(1)
        for step in range(length):
            projected = cell.project(model.words(batch.tokens[row : row + 1, step]))
            seen.append((projected + state.hidden @ cell.recurrent_weight.T).detach())
            _, state = cell.step(projected, state)
    blocks = torch.sigmoid(torch.cat(seen)).chunk(4, dim=-1)  # [7, H] each
    for name, values in zip("ifgo", blocks, strict=True):
        if name != "g":
            shares = (values < 0.05).double().mean(), (values > 0.95).double().mean(), values.mean()
            assert (found[name].below, found[name].above, found[name].mean) == pytest.approx([*map(float, shares)])


def test_clipping_scales_all_norms_or_bounds_each_number():
    model, batch = classifier("lstm")
    none, norm, value = (
        measure_flow(model, batch, clip=clip, by_value=by) for clip, by in ((0, False), (0.01, False), (1e-4, True))
    )
    assert none.clipped == none.norms == norm.norms
    assert norm.clipped["all"] == pytest.approx(0.01)
    scale = 0.01 / none.norms["all"]
    assert norm.clipped == pytest.approx({name: each * scale for name, each in none.norms.items()})
    count = sum(parameter.numel() for parameter in model.parameters())
    assert 0 < value.clipped["all"] <= 1e-4 * math.sqrt(count)
    loud = measure_flow(model, batch, clip=1e9)
    assert loud.clipped == none.norms
    total, items = model.eval().objective(model(batch), batch)
    (total / items).backward()
    squares = sum(float(each.grad.square().sum()) for each in model.parameters() if each.grad is not None)
    assert none.norms["all"] == pytest.approx(math.sqrt(squares))


def test_every_cell_has_curves_and_names_its_gates_rightly():
    for name in CELLS:
        model, batch = classifier(name)
        found = measure_flow(model, batch)
        curve = found.curves[FORWARD]
        assert len(curve.median) == LAGS, name
        assert all(math.isfinite(each) and each > 0 for each in curve.median), name
        names = own_names(model.recurrent.cells[0], "gate_names")
        listed = [gate.gate for gate in found.gates[FORWARD] if gate.gate != "|a|"]
        if names:
            assert listed == list(dict.fromkeys(names)), f"gate_names of {name}: a step computes {len(listed)} sigmoids"


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "VectorClassifier"])
def test_every_model_is_measured_and_left_as_it_was(name):
    model = build(name).train()
    batch = batch_of(model)
    backends = {place: layers.backend for place, layers in model.named_modules() if hasattr(layers, "backend")}
    found = measure_flow(model, batch)
    places = cells_by_place(model)
    assert set(found.curves) == set(places) == set(found.norms) - {"all"}
    assert all(curve.median and curve.median[0] > 0 for curve in found.curves.values())
    assert all([gate.gate for gate in gates] == ["f", "i", "o"] for gates in found.gates.values())
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert backends == {place: layers.backend for place, layers in model.named_modules() if hasattr(layers, "backend")}
    assert all("step" not in vars(cell) and not cell._forward_hooks for cell in places.values())


def test_a_decoder_that_runs_step_by_step_is_measured_over_its_target():
    model = build("Translator", input_feeding=True, attention="additive")
    curve = measure_flow(model, batch_of(model)).curves["decoder.recurrent.layer 0 forward"]
    assert curve.rows == [2, 2, 1]  # targets of 3 and 4 tokens with the end


def test_steps_outside_of_a_whole_call_are_a_sequence_until_rows_are_added():
    tape = Tape()
    calls = [Call(torch.zeros(rows, 1), [], [], [], None) for rows in (3, 3, 2, 2, 1, 2)]
    tape.begin()
    tape.add(calls[0])
    tape.add(calls[1])
    tape.close()
    for call in calls[2:]:
        tape.add(call)
    assert [[len(call.output) for call in sequence] for sequence in tape.sequences] == [[3, 3], [2, 2, 1], [2]]


def test_lags_that_no_sequence_has_are_refused():
    model, batch = classifier("gru", TEXT, "the cat sat")
    assert measure_flow(model, batch, lags=LAGS).curves[FORWARD].rows[0] == 2
    with pytest.raises(InputError, match=f"lags: expected at most {LAGS}, the longest .* got {LAGS + 1}"):
        measure_flow(model, batch, lags=LAGS + 1)


def test_clipping_by_norm_scales_all_lags_alike_and_by_value_none():
    model, batch = classifier("lstm")
    norm, value, loud = (
        measure_flow(model, batch, clip=clip, by_value=by) for clip, by in ((0.01, False), (0.01, True), (1e9, False))
    )
    assert norm.scale == pytest.approx(0.01 / norm.norms["all"])
    assert (value.scale, loud.scale) == (None, 1.0)


def test_each_word_that_a_character_layer_reads_is_a_row():
    model = build("SequenceTagger", characters={"kind": "rnn", "size": 4, "output_size": 6})
    found = measure_flow(model, batch_of(model))
    backward = next(
        curve for place, curve in found.curves.items() if place.endswith("characters.recurrent.layer 0 forward")
    )
    assert backward.rows == [4, 4]  # the, cat, sat, mat


def test_wrapped_cells_and_dropout_are_measured_without_it():
    texts = ["the cat sat on the mat", "sat on the"]
    plain, batch = classifier("lstm", *texts)
    dropped, _ = classifier("lstm", recurrent={"bidirectional": False, "recurrent_dropout": 0.5, "weight_drop": 0.3})
    inner = {name.replace("cells.0.", "cells.0.cell."): value for name, value in plain.state_dict().items()}
    dropped.load_state_dict(inner)
    dropped.train()
    assert measure_flow(dropped, batch).curves == measure_flow(plain, batch).curves


def test_what_cannot_be_measured_is_refused():
    model = build("VectorClassifier")
    with pytest.raises(InputError, match="expected one with recurrent layers, got a VectorClassifier"):
        measure_flow(model, batch_of(model))
    model, batch = classifier("rnn")
    with pytest.raises(InputError, match="lags: expected at least 1, got 0"):
        measure_flow(model, batch, lags=0)
