"""Zoneout: the paper's equations with given masks, on every backend, and how the masks are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from catalogue import CELLS, TOLERANCES, load_weights
from small_models import SAMPLES
from small_models import build as build_model

from rnnzoo.backends import BACKENDS, reference
from rnnzoo.backends.fused import run as fused
from rnnzoo.cells import make_cell
from rnnzoo.cells.wrappers import RecurrentDropout, Zoneout, base_cell, drop_weights
from rnnzoo.errors import InputError
from rnnzoo.kernels.compile import cache
from rnnzoo.layers.bridge import Bridge
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.state import flatten, map_state

B, T, I, H = 3, 5, 4, 6  # noqa: E741
LENGTHS = (None, [T, 0, 2])
STAGED = [case for case in CELLS.values() if case.kind in ("gated", "staged")]
WITH_MEMORY = [case.name for case in STAGED if "cell" in case.reference.fields and case.name != "slstm"]
EXACT = TOLERANCES[torch.float64]

staged = pytest.mark.parametrize("case", STAGED, ids=lambda case: case.name)


def rates_of(case):
    """Return the rates that a cell can have: of h, and of c where there is one."""
    return {"hidden": 0.4, **({"cell": 0.3} if case.name in WITH_MEMORY else {})}


def build(case, rates, *, masks=None):
    """Return a cell in zoneout, its weights, inputs and a state; with given masks [B, T, M] or its own."""
    cell = Zoneout.of(make_cell(case.name, input_size=I, hidden_size=H).double(), rates)
    weights = case.reference.weights(3, input_size=I, hidden_size=H)
    load_weights(base_cell(cell), weights)
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((B, T, I))
    drawn = case.reference.state(rng, B, H)
    state = type(cell.initial_state(1))(*(torch.from_numpy(field).requires_grad_() for field in drawn))
    if masks is not None:

        def project(values):
            """Put in the masks of these inputs, wherever they lie."""
            known = torch.from_numpy(inputs).flatten(0, 1)
            which = torch.cdist(values.detach().flatten(0, -2), known).argmin(1)
            given = masks.flatten(0, 1)[which].unflatten(0, values.shape[:-1])
            return torch.cat([cell.cell.project(values), given.to(values.dtype)], dim=-1)

        cell.project = project
    return cell, weights, inputs, state


def draw_masks(case, rates, seed=5):
    """Draw masks of all steps [B, T, M], as columns of h, then of c."""
    rng = np.random.default_rng(seed)
    sizes = dict(zip(case.reference.fields, case.reference.state(rng, 1, H), strict=True))
    return np.concatenate(
        [rng.random((B, T, sizes[name].shape[1])) < rate for name, rate in rates.items()], axis=-1
    ).astype(float)


def by_hand(case, weights, inputs, lengths, state, rates, masks):
    """Run the NumPy reference, row by row, with its new state zoned out by given masks (or their mean)."""
    outputs, finals = [], []
    for row, length in enumerate(lengths or [T] * B):
        own = tuple(field[row] for field in state)
        put = []
        for t in range(length):
            output, new = case.reference.step(weights, inputs[row, t], own)
            assert np.array_equal(output, new[0])
            start, zoned = 0, dict(zip(case.reference.fields, new, strict=True))
            for name, old in zip(case.reference.fields, own, strict=True):
                if name in rates:
                    keep = rates[name] if masks is None else masks[row, t, start : start + len(old)]
                    start += len(old)
                    zoned[name] = keep * old + (1 - keep) * zoned[name]
            own = tuple(zoned.values())
            put.append(own[0])
        size = len(own[0])
        outputs.append(np.concatenate([np.array(put).reshape(length, size), np.zeros((T - length, size))]))
        finals.append(own)
    return np.stack(outputs), [np.stack(field) for field in zip(*finals, strict=True)]


@staged
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_equals_numpy_with_given_masks_or_their_mean(case, train):
    rates = rates_of(case)
    masks = draw_masks(case, rates) if train else None
    cell, weights, inputs, state = build(case, rates, masks=torch.from_numpy(masks) if train else None)
    cell.train(train)
    for lengths in LENGTHS:
        rows = None if lengths is None else torch.tensor(lengths)
        start = [field.detach().numpy() for field in state]
        expected, finals = by_hand(case, weights, inputs, lengths, start, rates, masks)
        for run in (reference.run, fused.run):
            with torch.no_grad():
                outputs, final = run(cell, torch.from_numpy(inputs), rows, state)
            np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-9, atol=1e-11)
            for name, got, value in zip(final._fields, final, finals, strict=True):
                np.testing.assert_allclose(got.numpy(), value, rtol=1e-9, atol=1e-11, err_msg=name)


def differentiate(cell, inputs, state, outputs, final):
    generator = torch.Generator().manual_seed(2)
    values = [value for value in (outputs, *flatten(final)) if value.requires_grad]
    loss = sum((torch.randn(value.shape, generator=generator, dtype=value.dtype) * value).sum() for value in values)
    found = torch.autograd.grad(loss, [inputs, *flatten(state), *cell.parameters()], allow_unused=True)
    return [outputs, *flatten(final), *(torch.zeros(()) if value is None else value for value in found)]


@staged
def test_all_backends_have_the_gradients_of_the_reference(case):
    rates = rates_of(case)
    cell, _, values, state = build(case, rates, masks=torch.from_numpy(draw_masks(case, rates)))
    inputs = torch.from_numpy(values).requires_grad_()
    for lengths in (None, torch.tensor(LENGTHS[1])):
        found = []
        for run in (reference.run, fused.run):
            outputs, final = run(cell, inputs, lengths, state)
            cell.eval()  # the mode at the time of the backward pass is no matter
            found.append(differentiate(cell, inputs, state, outputs, final))
            cell.train()
        for got, expected in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_compiled_kernels(monkeypatch, train):
    """Also where two cells differ in nothing but a rate."""
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    case, before = CELLS["lstm"], set(cache._compiled)
    for rates in ({"hidden": 0.4, "cell": 0.3}, {"hidden": 0.1, "cell": 0.3}):
        masks = torch.from_numpy(draw_masks(case, rates)) if train else None
        cell, _, values, state = build(case, rates, masks=masks)
        cell.train(train)
        inputs = torch.from_numpy(values).requires_grad_()
        found = [
            differentiate(cell, inputs, state, *run(cell, inputs, torch.tensor(LENGTHS[1]), state))
            for run in (reference.run, fused.run)
        ]
        for got, expected in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, **EXACT)
    assert set(cache._compiled) > before


@pytest.mark.parametrize("run", [reference.run, fused.run], ids=["reference", "fused"])
def test_each_unit_step_and_field_has_a_mask_of_its_own(run):
    """h̃ is 1 everywhere: what is kept can be told from what is new."""
    cell = Zoneout(make_cell("rnn", input_size=1, hidden_size=50), hidden_rate=0.25)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.cell.bias.fill_(20.0)
    torch.manual_seed(0)
    outputs, _ = run(cell, torch.zeros(40, 20, 1), None, None)
    reached = outputs.detach()
    assert set(reached.unique().tolist()) == {0.0, 1.0}
    assert (reached[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    kept = ((reached[:, 1:] == 0).float().sum() / (reached[:, :-1] == 0).float().sum()).item()
    assert kept == pytest.approx(0.25, abs=0.05)  # drawn anew at each step
    assert len(reached[:, 0].unique(dim=0)) == 40  # and for each row
    assert not torch.equal(run(cell, torch.zeros(40, 20, 1), None, None)[0], outputs)


def test_masks_of_h_and_c_are_drawn_apart_with_their_own_rates():
    cell = Zoneout(make_cell("lstm", input_size=1, hidden_size=50), hidden_rate=0.1, cell_rate=0.5)
    torch.manual_seed(0)
    projected = cell.project(torch.zeros(400, 1))
    assert projected.shape == (400, 4 * 50 + 2 * 50)
    hidden, memory = projected[:, 200:].chunk(2, dim=1)
    assert set(projected[:, 200:].unique().tolist()) == {0.0, 1.0}
    assert hidden.mean().item() == pytest.approx(0.1, abs=0.01)
    assert memory.mean().item() == pytest.approx(0.5, abs=0.015)
    both = (hidden * memory).mean().item()
    assert both == pytest.approx(0.05, abs=0.01)
    assert cell.eval().project(torch.zeros(2, 1)).shape == (2, 4 * 50)
    only = Zoneout(make_cell("lstm", input_size=1, hidden_size=50), hidden_rate=0.0, cell_rate=0.5)
    assert only.project(torch.zeros(2, 1)).shape == (2, 5 * 50)


def test_single_steps_in_training_draw_masks_too():
    torch.manual_seed(0)
    layer = Recurrent(cell="gru", input_size=I, hidden_size=200, zoneout=0.3)
    state = map_state(lambda field: torch.full_like(field, 0.5), layer.initial_state(20))
    shares = []
    for _ in range(5):
        output, after = layer.step(torch.randn(20, I), state)
        assert torch.equal(output, after[0].hidden)
        shares.append((after[0].hidden == state[0].hidden).float().mean().item())
        state = after
    assert shares == [pytest.approx(0.3, abs=0.05)] * 5
    layer.eval()
    steps, whole = [], torch.randn(20, T, I)
    start = state
    for t in range(T):
        output, state = layer.step(whole[:, t], state)
        steps.append(output)
    torch.testing.assert_close(torch.stack(steps, 1), layer(whole, None, start)[0])


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name in ("reference", "fused")])
def test_padding_and_rows_in_training(backend):
    torch.manual_seed(0)
    layer = Recurrent(cell="lstm", input_size=I, hidden_size=H, num_layers=2, bidirectional=True, zoneout=0.3,
                      recurrent_dropout=0.2, backend=backend)  # fmt: skip
    inputs, lengths = torch.randn(B, T, I), torch.tensor([T, 0, 2])
    results = []
    for value in (0.0, 1e3):
        torch.manual_seed(1)
        padded = torch.where((torch.arange(T) < lengths.unsqueeze(1)).unsqueeze(-1), inputs, value)
        results.append(layer(padded, lengths)[0])
    assert torch.equal(*results)
    assert results[0][1].eq(0).all()
    assert results[0][2, 2:].eq(0).all()


def test_wrappers_in_wrappers_are_seen_through():
    layer = Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.3, recurrent_dropout=0.2, weight_drop=0.4)
    outer = layer.cells[0]
    assert isinstance(outer, RecurrentDropout)
    assert isinstance(outer.cell, Zoneout)
    assert type(base_cell(outer)).__name__ == "LSTMCell"
    view = layer.hold_masks().cells[0]
    assert base_cell(view).recurrent_weight.eq(0).any()
    assert base_cell(outer).recurrent_weight.ne(0).all()
    assert type(drop_weights(outer.cell, 0.5)) is Zoneout
    outputs, _ = layer(torch.randn(B, T, I), torch.tensor([T, 0, 2]))
    outputs.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "VectorClassifier"])
def test_every_model_hands_it_to_all_of_its_recurrent_layers(name):
    model = build_model(name, recurrent={"zoneout": {"hidden": 0.1, "cell": 0.5}})
    found = [layers for layers in model.modules() if isinstance(layers, Recurrent)]
    assert found
    for layers in found:
        assert [(cell.hidden_rate, cell.cell_rate) for cell in layers.cells] == [(0.1, 0.5)] * len(layers.cells)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_layers_that_are_recomputed_see_the_same_masks_again(backend):
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        layer = Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.4, recompute=recompute, backend=backend)
        inputs = torch.randn(B, T, I, requires_grad=True)
        outputs, _ = layer(inputs)
        torch.rand(7)  # others draw numbers before the gradient is asked for
        found.append([outputs, *torch.autograd.grad(outputs.square().sum(), [inputs, *layer.parameters()])])
    assert all(map(torch.equal, *found))


def test_dropout_goes_around_zoneout():
    dropped = RecurrentDropout(make_cell("gru", input_size=I, hidden_size=H), dropout=0.2)
    with pytest.raises(InputError, match="zoneout: expected a cell without dropout, got RecurrentDropout; put the"):
        Zoneout(dropped, hidden_rate=0.3)


def test_what_sets_states_knows_of_it():
    encoder = Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.3, bidirectional=True)
    decoder = Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.3, recurrent_dropout=0.2)
    state = Bridge(encoder=encoder, decoder=decoder)(encoder(torch.randn(B, T, I))[1])
    assert decoder(torch.randn(B, T, I), None, state)[0].shape == (B, T, H)
    learned = Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.3, learn_initial_state=True)
    assert len(learned.initial) == 2
    with pytest.raises(InputError, match=r"Recurrent\.to_torch"):
        learned.to_torch()
    with pytest.raises(InputError, match="without recurrent dropout or zoneout"):
        Recurrent(cell="lstm", input_size=I, hidden_size=H, zoneout=0.3).load_torch(torch.nn.LSTM(I, H))


@pytest.mark.parametrize("run", [reference.run, fused.run], ids=["reference", "fused"])
def test_autocast(run):
    cell = Zoneout(make_cell("lstm", input_size=I, hidden_size=H), hidden_rate=0.4, cell_rate=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = run(cell, torch.randn(B, T, I), None, None)
    outputs.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in cell.parameters())


def test_one_number_is_the_rate_of_h_and_of_a_memory_where_there_is_one():
    for case in STAGED:
        cell = Zoneout.of(make_cell(case.name, input_size=I, hidden_size=H), 0.2)
        assert (cell.hidden_rate, cell.cell_rate) == (0.2, 0.2 if case.name in WITH_MEMORY else 0.0), case.name
    plain = make_cell("lstm", input_size=I, hidden_size=H)
    assert Zoneout.of(plain, 0.0) is plain
    assert Zoneout.of(plain, {"hidden": 0.0}) is plain
    assert Zoneout.of(plain, {"cell": 0.5}).hidden_rate == 0.0


@pytest.mark.parametrize(
    ("name", "rates", "message"),
    [
        ("lstm", 1.0, "zoneout.hidden: expected a rate of at least 0 and below 1, got 1.0"),
        ("lstm", -0.1, "zoneout.hidden: expected a rate"),
        ("lstm", float("nan"), "zoneout.hidden: expected a rate"),
        ("lstm", {"hidden": 0.1, "cell": 1.5}, "zoneout.cell: expected a rate"),
        ("lstm", {"hiden": 0.1}, "zoneout: expected rates of hidden and cell, got 'hiden'; did you mean 'hidden'"),
        ("gru", {"cell": 0.1}, "zoneout.cell: expected a cell with a memory c of its own, got GRUCell, .* has hidden"),
        ("slstm", {"cell": 0.1}, "zoneout.cell: expected a cell with a memory c of its own, got SLSTMCell"),
        ("mingru", 0.1, "zoneout: expected a gated or staged cell, got MinGRUCell; use dropout between layers"),
        ("mlstm", 0.1, "zoneout: expected a gated or staged cell, got MLSTMCell"),
    ],
)
def test_what_cannot_be_is_refused(name, rates, message):
    with pytest.raises(InputError, match=message):
        Recurrent(cell=name, input_size=I, hidden_size=H, zoneout=rates)
