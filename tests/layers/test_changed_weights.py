"""Weights that are changed from outside: pruned, normalised, parametrized ones train as in torch's own layers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from catalogue import CELLS
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelPruning
from small_models import SAMPLES, batch_of, build
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from rnnzoo.cells.views import signature
from rnnzoo.cells.wrappers import base_cell
from rnnzoo.layers.recurrent import Recurrent

B, T, I, H = 3, 5, 4, 6  # noqa: E741
CHANGES = {
    "prune": lambda module, name: prune.l1_unstructured(module, name, 0.5),
    "old weight_norm": weight_norm,
    "old spectral_norm": spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "orthogonal": parametrizations.orthogonal,
}
pytestmark = pytest.mark.filterwarnings("ignore")


def inputs(seed=0):
    return torch.randn(B, T, I, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("options", [{}, {"backend": "reference"}, {"backend": "fused"}, {"recompute": True}], ids=str)
def test_a_changed_lstm_trains_as_that_of_torch(what, options):
    torch.manual_seed(0)
    theirs = nn.LSTM(I, H, batch_first=True)
    ours = Recurrent(cell="lstm", input_size=I, hidden_size=H, **options)
    ours.load_torch(theirs)
    nn.init.zeros_(theirs.bias_hh_l0)
    theirs.bias_hh_l0.requires_grad_(False)
    theirs.bias_ih_l0.data.copy_(ours.cells[0].bias)
    for module, name in ((theirs, "weight_hh_l0"), (ours.cells[0], "recurrent_weight")):
        torch.manual_seed(1)  # of the vector with which spectral_norm starts
        CHANGES[what](module, name)
    optimizers = [
        torch.optim.SGD([each for each in layers.parameters() if each.requires_grad], lr=0.5)
        for layers in (theirs, ours)
    ]
    for step in range(4):
        for layers, optimizer in zip((theirs, ours), optimizers, strict=True):
            optimizer.zero_grad()
            layers(inputs(step))[0].square().mean().backward()
            optimizer.step()
    theirs.eval()
    ours.eval()
    torch.testing.assert_close(ours(inputs(9))[0], theirs(inputs(9))[0])
    torch.testing.assert_close(ours.cells[0].recurrent_weight, theirs.weight_hh_l0)
    assert any(parameter.grad.abs().sum() > 0 for key, parameter in ours.named_parameters() if "recurrent" in key)


WRAPPED = [
    {"zoneout": 0.3},
    {"recurrent_dropout": 0.3},
    {"recurrent_dropout": 0.3, "zoneout": 0.3},
    {"weight_drop": 0.4},
    {"weight_drop": 0.4, "recurrent_dropout": 0.3, "recompute": True},
]


@pytest.mark.parametrize("change", ["prune", "parametrized"])
@pytest.mark.parametrize("options", WRAPPED, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru_reset_before", "peephole"])
def test_wrappers_take_changed_weights_over(cell, options, change):
    """The same random numbers are drawn for layers whose weights have the values of the changed ones."""
    layers = Recurrent(cell=cell, input_size=I, hidden_size=H, num_layers=2, **options).double()
    plain = copy.deepcopy(layers)
    calls = []
    for number, (wrapped, other) in enumerate(zip(layers.cells, plain.cells, strict=True)):
        changed, expected = base_cell(wrapped), base_cell(other)
        changed.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
        for name, parameter in list(expected.named_parameters(recurse=False)):
            mask = (torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) > 0.4).to(parameter)
            if change == "prune":
                prune.custom_from_mask(changed, name, mask)
            else:
                parametrize.register_parametrization(changed, name, Masked(mask))
            parameter.data.mul_(mask)
    for run in (sequences, steps):
        calls.clear()
        results = []
        for each in (layers, plain):
            torch.manual_seed(3)
            outputs, count = run(each)
            gradient = torch.autograd.grad(outputs.square().sum(), [*each.parameters()])
            results.append((outputs, [value.abs().sum() for value in gradient]))
        assert calls == [0, 1] * count
        assert all(total > 0 for _, totals in results for total in totals)
        torch.testing.assert_close(results[0][0], results[1][0])


class Masked(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.mask = mask
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return weight * self.mask


def sequences(layers):
    return layers(inputs().double(), torch.tensor([T, 2, 0]))[0], 1


def steps(layers):
    held = layers.hold_masks()
    state = held.initial_state(B)
    outputs = []
    for step in range(T):
        output, state = held.step(inputs()[:, step].double(), state)
        outputs.append(output)
    return torch.stack(outputs, 1), T


@pytest.mark.parametrize("name", CELLS)
def test_a_parametrization_is_computed_once_a_call(name):
    layers = Recurrent(cell=name, input_size=I, hidden_size=H)
    counted = []
    for key, parameter in list(layers.cells[0].named_parameters(recurse=False)):
        counted.append(Masked(torch.ones_like(parameter)))
        parametrize.register_parametrization(layers.cells[0], key, counted[-1])
    for each in counted:
        each.calls = 0
    layers(inputs())
    assert [each.calls for each in counted] == [1] * len(counted)


@pytest.mark.parametrize("name", ["peephole", "mingru"])
def test_a_cell_that_is_pruned_again_keeps_its_signature(name):
    """Compiled kernels are found by it: no mask, and no weight of one call, is a part of it."""
    layers = Recurrent(cell=name, input_size=I, hidden_size=H)
    signatures = set()
    for _ in range(4):
        for key, _ in list(layers.cells[0].named_parameters(recurse=False)):
            prune.random_unstructured(layers.cells[0], key.removesuffix("_orig"), 0.1)
        layers.cells[0](inputs(), None, layers.cells[0].initial_state(B), run=keep_signature(signatures))
    assert len(signatures) == 1


def keep_signature(signatures):
    def run(cell, inputs, lengths, state):
        signatures.add(signature(cell))
        return inputs, state

    return run


@pytest.mark.parametrize("cell", ["lstm", "gru", "mingru", "lstm_layer_norm", "gru_reset_before"])
def test_compiled_kernels_see_changed_weights(cell, monkeypatch):
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    layers = {
        backend: Recurrent(cell=cell, input_size=I, hidden_size=H, backend=backend) for backend in ("auto", "reference")
    }
    layers["reference"].load_state_dict(layers["auto"].state_dict())
    for each in layers.values():
        for key, parameter in list(each.cells[0].named_parameters(recurse=False)):
            mask = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)) > 0.4
            prune.custom_from_mask(each.cells[0], key, mask)
    for _ in range(3):
        outputs = []
        for each in layers.values():
            each.zero_grad()
            outputs.append(each(inputs(), torch.tensor([T, 2, 0]))[0])
            outputs[-1].square().sum().backward()
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter -= 0.1 * parameter.grad
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


VARIANTS = [
    *((name, {}) for name in SAMPLES),
    ("Translator", {"coverage": 0.5}),
    ("Translator", {"attention": "general"}),
    ("Captioner", {"attention": "top_down"}),
    ("LanguageModel", {"tied": True}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_every_weight_of_every_model_can_be_pruned(name, options):
    model = build(name, **options)
    batch = batch_of(model)
    for module in model.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            if not isinstance(module, nn.ParameterList):  # which is never called, neither here nor in torch
                prune.custom_from_mask(module, key, (torch.rand(parameter.shape) > 0.3).to(parameter))
    for _ in range(2):
        model.zero_grad()
        model.objective(model(batch), batch).total.backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []
    model.eval()
    with torch.inference_mode():
        assert len(model.answers(model(batch), batch)) == len(SAMPLES[name])


def test_the_callback_of_lightning_prunes_while_a_model_trains(tmp_path):
    model = build("SequenceTagger")
    batch = batch_of(model)
    data = torch.utils.data.DataLoader([batch] * 4, batch_size=None)
    warnings.simplefilter("ignore")
    pruning = ModelPruning(
        "l1_unstructured", amount=0.3, parameters_to_prune=[(model.recurrent.cells[0], "recurrent_weight")]
    )
    before = model.recurrent.cells[0].recurrent_weight.detach().clone()
    trainer = Trainer(
        max_epochs=2, callbacks=[pruning], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data)
    weight = model.recurrent.cells[0].recurrent_weight
    assert isinstance(weight, nn.Parameter)  # made permanent
    assert weight.eq(0).float().mean() == pytest.approx(1 - 0.7**2, abs=0.02)
    kept = weight != 0
    assert not torch.equal(weight[kept], before[kept])
