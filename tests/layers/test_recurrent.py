"""Recurrent layers: weights to and from torch, what each option does, and what is refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from catalogue import CELLS, make_layer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnzoo.backends import native, reference
from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.lengths import length_mask
from rnnzoo.state import flatten

torch.set_num_threads(1)

B, T, I, H = 4, 5, 3, 6  # noqa: E741
TORCH = [case for case in CELLS.values() if case.torch_layer is not None]
over_torch = pytest.mark.parametrize("case", TORCH, ids=[case.name for case in TORCH])
over_shapes = pytest.mark.parametrize(
    ("num_layers", "bidirectional"), [(1, False), (1, True), (2, False), (2, True)], ids=str
)
EXACT = {"rtol": 1e-12, "atol": 1e-13}


def torch_layer(case, num_layers, bidirectional, **options):
    torch.manual_seed(0)
    options = {**case.torch_options, "batch_first": True, **options}
    return case.torch_layer(I, H, num_layers, bidirectional=bidirectional, **options)


def own_layer(case, num_layers, bidirectional, **options):
    torch.manual_seed(1)
    return Recurrent(
        cell=case.name, input_size=I, hidden_size=H, num_layers=num_layers, bidirectional=bidirectional, **options
    )


def assert_states(state, final, **tolerance):
    """Compare our final state with torch's, [L·D, B, H] of h or a pair of those of (h, c)."""
    fields = final if isinstance(final, tuple) else (final,)
    for place, inner in enumerate(state):
        for got, expected in zip(inner, fields, strict=True):
            torch.testing.assert_close(got, expected[place], **tolerance)


@over_torch
@over_shapes
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_weights_from_torch(case, num_layers, bidirectional, bias, backend):
    source = torch_layer(case, num_layers, bidirectional, bias=bias).double()
    layer = own_layer(case, num_layers, bidirectional, backend=backend).double()
    layer.load_torch(source)
    inputs = torch.randn(B, T, I, dtype=torch.float64)
    expected, final = source(inputs)
    outputs, state = layer(inputs)
    torch.testing.assert_close(outputs, expected, **EXACT)
    assert_states(state, final, **EXACT)
    for cell, names in zip(layer.cells, source._all_weights, strict=True):
        assert torch.equal(cell.input_weight, getattr(source, names[0]))
        assert torch.equal(cell.recurrent_weight, getattr(source, names[1]))


@over_torch
@over_shapes
def test_lengths_are_those_of_torchs_packed_sequences(case, num_layers, bidirectional):
    source = torch_layer(case, num_layers, bidirectional).double()
    layer = own_layer(case, num_layers, bidirectional).double()
    layer.load_torch(source)
    inputs, lengths = torch.randn(B, T, I, dtype=torch.float64), torch.tensor([3, 1, T, 2])
    packed, final = source(pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False))
    expected, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)
    outputs, state = layer(inputs, lengths)
    torch.testing.assert_close(outputs, expected, **EXACT)
    assert_states(state, final, **EXACT)


@over_torch
@over_shapes
def test_weights_to_torch_and_back(case, num_layers, bidirectional):
    layer, _ = make_layer(
        case, input_size=I, hidden_size=H, num_layers=num_layers, bidirectional=bidirectional, dtype=torch.float32
    )
    target = layer.to_torch()
    assert type(target) is case.torch_layer
    inputs = torch.randn(B, T, I)
    expected, state = layer(inputs)
    outputs, final = target(inputs)
    torch.testing.assert_close(outputs, expected)
    assert_states(state, final)
    back = own_layer(case, num_layers, bidirectional)
    back.load_torch(target)
    for name, parameter in layer.named_parameters():
        assert torch.equal(back.get_parameter(name), parameter), name


@over_torch
def test_to_torch_keeps_the_float_type(case):
    layer, _ = make_layer(case, input_size=I, hidden_size=H, num_layers=2, bidirectional=True, dtype=torch.float64)
    inputs = torch.randn(B, T, I, dtype=torch.float64)
    target = layer.to_torch()
    assert {parameter.dtype for parameter in target.parameters()} == {torch.float64}
    torch.testing.assert_close(target(inputs)[0], layer(inputs)[0], **EXACT)


@over_torch
def test_to_torch_shares_nothing_and_keeps_mode_and_dropout(case):
    layer = own_layer(case, 2, True, dropout=0.25).eval()
    before = {name: parameter.detach().clone() for name, parameter in layer.named_parameters()}
    target = layer.to_torch()
    assert target.dropout == 0.25
    assert not target.training
    assert layer.train().to_torch().training
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.fill_(9.0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in layer.named_parameters())


BASE: dict[str, Any] = {"cell": "lstm", "input_size": 4, "hidden_size": 4, "num_layers": 2}
CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {  # option → another value, and what else it needs
    "cell": ("gru", {}),
    "hidden_size": (5, {}),
    "num_layers": (3, {}),
    "bidirectional": (True, {}),
    "dropout": (0.5, {}),
    "recurrent_dropout": (0.5, {}),
    "zoneout": ({"hidden": 0.5, "cell": 0.3}, {}),
    "weight_drop": (0.5, {}),
    "locked_dropout": (True, {"dropout": 0.5}),
    "residual": (True, {}),
    "layer_norm": (True, {}),
    "cell_options": ({"forget_bias": 3.0}, {}),
}
APART = {"input_size", "learn_initial_state", "recompute", "backend"}  # each has a test of its own


def test_every_option_is_tested():
    assert set(inspect.signature(Recurrent).parameters) == set(CHANGES) | APART


def result(options, *, train=True):
    """Run layers made and run from the same random numbers."""
    torch.manual_seed(0)
    layer = Recurrent(**{**BASE, **options}).train(train)
    inputs = torch.randn(B, T, 4, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(1)
    return layer(inputs, torch.tensor([T, 3, 1, 0]))[0]


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_result(name):
    value, needs = CHANGES[name]
    before, after = result(needs), result({**needs, name: value})
    assert torch.equal(before, result(needs))  # the comparison is fair: the same options give the same numbers
    assert before.shape != after.shape or not torch.allclose(before, after)


@pytest.mark.parametrize("name", ["dropout", "recurrent_dropout", "weight_drop", "locked_dropout"])
def test_dropouts_do_nothing_in_evaluation(name):
    value, needs = CHANGES[name]
    torch.testing.assert_close(result({**needs, name: value}, train=False), result({}, train=False))


def test_input_size_is_that_of_the_inputs():
    layer = Recurrent(**{**BASE, "input_size": 7})
    assert (layer.input_size, layer.output_size) == (7, 4)
    assert layer(torch.zeros(B, T, 7))[0].shape == (B, T, 4)
    with pytest.raises(InputError, match=r"inputs of Recurrent: expected shape \[B, T, 7\], got \[4, 5, 4\]"):
        layer(torch.zeros(B, T, 4))


@pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.5])
def test_learned_initial_state(case, recurrent_dropout):
    if recurrent_dropout and case.kind != "gated":
        pytest.skip("refused, as another test shows")
    options = {"num_layers": 2, "bidirectional": True, "recurrent_dropout": recurrent_dropout}
    torch.manual_seed(0)
    cell = make_cell(case.name, input_size=I, hidden_size=H)
    learned = [name for name in case.reference.fields if name not in {*case.reference.passive, *cell.fixed_fields}]
    if not learned:
        with pytest.raises(InputError, match="learn_initial_state: expected a cell that reads a first state"):
            Recurrent(cell=case.name, input_size=I, hidden_size=H, learn_initial_state=True, **options)
        return
    torch.manual_seed(0)
    layer = Recurrent(cell=case.name, input_size=I, hidden_size=H, learn_initial_state=True, **options).eval()
    torch.manual_seed(0)
    plain = Recurrent(cell=case.name, input_size=I, hidden_size=H, **options).eval()
    inputs, lengths = torch.randn(B, T, I), torch.tensor([T, 3, 1, 0])
    torch.testing.assert_close(layer(inputs, lengths)[0], plain(inputs, lengths)[0])  # it begins at zero
    parameters = [parameter for name, parameter in layer.named_parameters() if name.startswith("initial")]
    assert len(parameters) == 4 * len(learned)
    with torch.no_grad():
        for place, parameter in enumerate(parameters):
            parameter.fill_(0.1 * (place + 1))
    outputs, final = layer(inputs, lengths)
    inner = [getattr(state, "inner", state) for state in final]
    fields = [getattr(state, name) for state in inner for name in learned]
    for place, field in enumerate(fields):  # the row of length 0 hands it back, in its own order
        torch.testing.assert_close(field[3], torch.full_like(field[3], 0.1 * (place + 1)))
    for state in inner:  # what the cell keeps for itself begins as it says
        for name in cell.fixed_fields:
            first = getattr(cell.initial_state(1), name)[0]
            torch.testing.assert_close(getattr(state, name)[3], first)
    assert not torch.allclose(outputs[:3, 0], plain(inputs, lengths)[0][:3, 0])
    outputs.square().sum().backward()
    for place, parameter in enumerate(parameters):
        assert parameter.grad is not None, learned[place % len(learned)]
        assert parameter.grad.any(), learned[place % len(learned)]


def test_a_given_state_goes_before_the_learned_one():
    layer = Recurrent(cell="gru", input_size=I, hidden_size=H, learn_initial_state=True)
    inputs = torch.randn(B, T, I)
    state = layer.initial_state(B)
    zeros = tuple(type(inner)(*map(torch.zeros_like, inner)) for inner in state)
    before = layer(inputs, None, zeros)[0]
    with torch.no_grad():
        layer.initial[0].fill_(1.0)
    assert torch.equal(layer(inputs, None, zeros)[0], before)
    assert not torch.allclose(layer(inputs)[0], before)


@pytest.mark.parametrize("backend", ["reference", "native", "auto"])
def test_backend_is_the_one_that_runs(backend, monkeypatch):
    calls = []
    for name, module in (("reference", reference), ("native", native)):

        def spy(*arguments, name=name, run=module.run):
            calls.append(name)
            return run(*arguments)

        monkeypatch.setattr(module, "run", spy)
    Recurrent(**BASE, bidirectional=True, backend=backend)(torch.zeros(B, T, 4))
    assert calls == [backend if backend != "auto" else "native"] * 4


def test_residual_adds_the_input_where_the_sizes_agree():
    torch.manual_seed(0)
    plain = Recurrent(cell="rnn", input_size=I, hidden_size=H, num_layers=3)
    layer = Recurrent(cell="rnn", input_size=I, hidden_size=H, num_layers=3, residual=True)
    layer.load_state_dict(plain.state_dict())
    inputs = torch.randn(B, T, I)
    expected = inputs
    for place, cell in enumerate(plain.cells):
        output, _ = reference.run(cell, expected, None, None)
        expected = output + expected if place else output  # the first layer's input has another size
    torch.testing.assert_close(layer(inputs)[0], expected)


def test_layer_norm_comes_before_the_residual():
    torch.manual_seed(0)
    layer = Recurrent(cell="rnn", input_size=H, hidden_size=H, layer_norm=True, residual=True)
    inputs = torch.randn(B, T, H)
    output, _ = reference.run(layer.cells[0], inputs, None, None)
    expected = nn.functional.layer_norm(output, (H,)) + inputs
    torch.testing.assert_close(layer(inputs)[0], expected)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_padding_stays_zero_and_rows_stay_apart_with_every_option(bidirectional, residual, layer_norm):
    torch.manual_seed(0)
    layer = Recurrent(
        cell="lstm", input_size=I, hidden_size=H, num_layers=3, dropout=0.5, locked_dropout=True,
        recurrent_dropout=0.5, bidirectional=bidirectional, residual=residual, layer_norm=layer_norm,
        learn_initial_state=True,
    )  # fmt: skip
    for norm in layer.norms:
        nn.init.constant_(norm.bias, 0.7)  # so that padding would show
    inputs, lengths = torch.randn(B, T, I), torch.tensor([T, 3, 1, 0])
    padding = ~length_mask(lengths, T)
    assert layer(inputs, lengths)[0][padding].eq(0).all()
    layer.eval()
    outputs, _ = layer(inputs, lengths)
    assert outputs[padding].eq(0).all()
    for row, length in enumerate(lengths.tolist()):
        alone, _ = layer(inputs[row : row + 1, :length])
        torch.testing.assert_close(alone[0], outputs[row, :length])


def counting_layer(**options) -> Recurrent:
    """Build rectified layers that show the masks.

    The first layer puts out ones at every step; the second hands on what it gets, so its outputs are the mask.
    """
    layer = Recurrent(cell="rnn_relu", input_size=1, hidden_size=50, num_layers=2, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cells[0].bias.fill_(1.0)
        layer.cells[1].input_weight.copy_(torch.eye(50))
    return layer


def test_dropout_draws_a_mask_for_every_step():
    torch.manual_seed(0)
    mask = counting_layer(dropout=0.25)(torch.zeros(B, 20, 1))[0].detach()
    torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 4 / 3]))
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert all(not torch.equal(mask[:, 0], mask[:, t]) for t in range(1, 20))


def test_locked_dropout_is_constant_over_time_and_differs_between_rows():
    torch.manual_seed(0)
    layer = counting_layer(dropout=0.25, locked_dropout=True)
    mask = layer(torch.zeros(80, T, 1))[0].detach()
    torch.testing.assert_close(mask.unique(), torch.tensor([0.0, 4 / 3]))
    assert (mask == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    assert len(mask[:, 0].unique(dim=0)) == 80
    assert not torch.equal(layer(torch.zeros(80, T, 1))[0], mask)  # the next call draws anew
    assert layer.eval()(torch.zeros(80, T, 1))[0].eq(1).all()


def doubling_layer(**options) -> Recurrent:
    """Build h' = max(0, 1 + m h): a dropped unit stays at 1, a kept one grows to 3, 7, 15, ... for m = 2."""
    layer = Recurrent(cell="rnn_relu", input_size=1, hidden_size=50, recurrent_dropout=0.5, **options)
    with torch.no_grad():
        for wrapped in layer.cells:
            wrapped.cell.input_weight.zero_()
            wrapped.cell.recurrent_weight.copy_(torch.eye(50))
            wrapped.cell.bias.fill_(1.0)
    return layer


def test_recurrent_dropout_has_one_mask_for_all_steps_of_a_sequence():
    torch.manual_seed(0)
    layer = doubling_layer()
    outputs, state = layer(torch.zeros(80, T, 1))
    kept = outputs[:, 1] > 2  # [B, H], from the second step
    powers = 2.0 ** torch.arange(1, T + 1) - 1  # 1, 3, 7, ...
    expected = torch.where(kept.unsqueeze(1), powers.reshape(1, T, 1), 1.0)
    assert torch.equal(outputs, expected)
    assert torch.equal(state[0].mask, 2.0 * kept)
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert len(kept.unique(dim=0)) == 80  # every row has its own
    assert not torch.equal(layer(torch.zeros(80, T, 1))[0], outputs)  # and the next sequences have others


def test_recurrent_dropout_keeps_its_mask_over_chunks():
    torch.manual_seed(0)
    layer = doubling_layer()
    inputs = torch.zeros(B, T, 1)
    start = layer.initial_state(B)
    whole, final = layer(inputs, None, start)
    first, state = layer(inputs[:, :2], None, start)
    second, state = layer(inputs[:, 2:], None, state)
    assert torch.equal(torch.cat([first, second], 1), whole)
    assert all(map(torch.equal, flatten(state), flatten(final)))


def test_recurrent_dropout_keeps_the_mask_of_short_rows():
    torch.manual_seed(0)
    layer = doubling_layer()
    start = layer.initial_state(B)
    _, final = layer(torch.zeros(B, T, 1), torch.tensor([0, 1, 3, T]), start)
    assert torch.equal(final[0].mask, start[0].mask)


def test_recurrent_dropout_draws_for_each_layer_and_direction():
    torch.manual_seed(0)
    layer = Recurrent(cell="gru", input_size=I, hidden_size=50, num_layers=2, bidirectional=True, recurrent_dropout=0.5)
    masks = torch.stack([state.mask for state in layer.initial_state(B)])  # [L·D, B, H]
    assert len(masks.flatten(0, 1).unique(dim=0)) == 4 * B


@pytest.mark.parametrize("case", [case for case in CELLS.values() if case.kind == "gated"], ids=lambda c: c.name)
def test_recurrent_dropout_is_the_identity_in_evaluation(case):
    options = {"num_layers": 2, "bidirectional": True, "backend": "reference"}
    layer, _ = make_layer(case, recurrent_dropout=0.5, **options)
    plain, _ = make_layer(case, **options)
    inputs, lengths = torch.randn(B, T, 3, dtype=torch.float64), torch.tensor([T, 3, 1, 0])
    expected, final = plain(inputs, lengths)
    assert not torch.allclose(layer(inputs, lengths)[0], expected)
    outputs, state = layer.eval()(inputs, lengths)
    assert torch.equal(outputs, expected)
    assert all(map(torch.equal, flatten([dropped.inner for dropped in state]), flatten(final)))


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"cell": "lstmm"}, "did you mean 'lstm'"),
        ({"backend": "natve"}, "did you mean 'native'"),
        ({"cell_options": {"forget_bais": 1.0}}, "did you mean 'forget_bias'"),
        ({"cell": "gru", "cell_options": {"forget_bias": 1.0}}, "options of cell 'gru': expected no options"),
        ({"input_size": 0}, "input_size: expected at least 1, got 0"),
        ({"hidden_size": 0}, "hidden_size: expected at least 1, got 0"),
        ({"num_layers": 0}, "num_layers: expected at least 1, got 0"),
        ({"dropout": 1.0}, "dropout: expected a share"),
        ({"dropout": -0.1}, "dropout: expected a share"),
        ({"dropout": float("nan")}, "dropout: expected a share"),
        ({"recurrent_dropout": 1.0}, "recurrent_dropout: expected a share"),
        ({"recurrent_dropout": -0.1}, "recurrent_dropout: expected a share"),
        ({"dropout": 0.5, "num_layers": 1}, "dropout: expected 0 for a single layer"),
        ({"locked_dropout": True}, "locked_dropout: expected a dropout above 0"),
        ({"residual": True, "num_layers": 1, "input_size": 3}, "residual: expected a layer"),
        ({"residual": True, "num_layers": 1, "bidirectional": True}, "residual: expected a layer"),
        ({"cell": "gru_reset_before", "backend": "native"}, "backend: expected one that can run"),
        ({"recurrent_dropout": 0.5, "backend": "native"}, "backend: expected one that can run"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(options, where):
    with pytest.raises(InputError, match=where):
        Recurrent(**{**BASE, **options})


@pytest.mark.parametrize("shape", [(B, I), (B, T, I + 1), (B, T, 1, I)], ids=str)
def test_inputs_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=r"inputs of Recurrent: expected shape \[B, T, 3\]"):
        Recurrent(input_size=I, hidden_size=H)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (torch.tensor([1, 2, T + 1, 0]), f"numbers from 0 to {T}, got {T + 1} of row 2"),
        (torch.tensor([1, 2, T, -1]), f"numbers from 0 to {T}, got -1 of row 3"),
        (torch.tensor([1, 2, T]), r"shape \[4\], got \[3\]"),
        (torch.tensor([1.0, 2.0, 3.0, 0.0]), "whole numbers, got torch.float32"),
        ([1, 2, 3, 0], r"a tensor, got \[1, 2, 3, 0\]; give torch\.tensor"),
    ],
    ids=str,
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_that_cannot_be_are_refused(bidirectional, lengths, expected):
    layer = Recurrent(input_size=I, hidden_size=H, bidirectional=bidirectional)
    with pytest.raises(InputError, match=f"lengths of Recurrent: expected {expected}"):
        layer(torch.zeros(B, T, I), lengths)


def test_single_steps_both_ways_are_refused():
    layer = Recurrent(input_size=I, hidden_size=H, bidirectional=True)
    with pytest.raises(InputError, match=r"Recurrent\.step: expected layers of one direction"):
        layer.step(torch.zeros(B, I), layer.initial_state(B))


@pytest.mark.parametrize(
    "module",
    [
        nn.GRU(I, H), nn.RNN(I, H), nn.LSTM(I + 1, H), nn.LSTM(I, H + 1), nn.LSTM(I, H, 2),
        nn.LSTM(I, H, bidirectional=True), nn.LSTM(I, H, proj_size=2),
    ],
    ids=str,
)  # fmt: skip
def test_weights_of_another_torch_layer_are_refused(module):
    layer = Recurrent(cell="lstm", input_size=I, hidden_size=H)
    before = [parameter.detach().clone() for parameter in layer.parameters()]
    with pytest.raises(InputError, match=r"Recurrent\.load_torch"):
        layer.load_torch(module)
    assert all(map(torch.equal, layer.parameters(), before))


def test_the_nonlinearity_of_torchs_layer_counts():
    with pytest.raises(InputError, match="rnn_relu"):
        Recurrent(cell="rnn", input_size=I, hidden_size=H).load_torch(nn.RNN(I, H, nonlinearity="relu"))


def test_weights_from_torch_with_recurrent_dropout_are_refused():
    with pytest.raises(InputError, match="without recurrent dropout"):
        Recurrent(input_size=I, hidden_size=H, recurrent_dropout=0.5).load_torch(nn.LSTM(I, H))


@pytest.mark.parametrize(
    "options",
    [{"cell": "gru_reset_before"}, {"residual": True}, {"layer_norm": True}, {"learn_initial_state": True}],
    ids=str,
)
def test_what_torch_does_not_have_is_not_exported(options):
    with pytest.raises(InputError, match=r"Recurrent\.to_torch"):
        Recurrent(**{**BASE, **options}).to_torch()
