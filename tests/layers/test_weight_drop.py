"""Weight drop: one mask for all steps, the same on every backend, and nothing left behind on the layers."""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from catalogue import CELLS, TOLERANCES, make_layer
from torch import nn

import rnnzoo
from rnnzoo.backends import native, reference
from rnnzoo.cells import CELLS as REGISTERED
from rnnzoo.cells.base import HiddenState
from rnnzoo.cells.wrappers import RecurrentDropout, drop_weights
from rnnzoo.errors import InputError
from rnnzoo.layers.dropout import hold_masks
from rnnzoo.layers.recurrent import Recurrent, base_cell
from rnnzoo.state import flatten

torch.set_num_threads(1)

B, T, I, H, P = 3, 6, 5, 4, 0.4  # noqa: E741
DROPPABLE = [
    case for case in CELLS.values() if "recurrent_weight" in case.reference.weights(0, input_size=I, hidden_size=H)
]
cells = pytest.mark.parametrize("case", DROPPABLE, ids=[case.name for case in DROPPABLE])
pairs = [(case, backend) for case in DROPPABLE for backend in case.backends]
over_backends = pytest.mark.parametrize(
    ("case", "backend"), pairs, ids=[f"{case.name}-{backend}" for case, backend in pairs]
)
EXACT = TOLERANCES[torch.float64]


def make(case, *, weight_drop=P, **options):
    layer, _ = make_layer(case, input_size=I, hidden_size=H, weight_drop=weight_drop, **options)
    return layer


def inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, T, I, generator=generator, dtype=torch.float64)


def gradients(layer, *arguments, seed=1):
    """Run in training from a seed; return outputs and the gradient of each parameter."""
    layer.zero_grad()
    torch.manual_seed(seed)
    outputs, _ = layer(*arguments)
    outputs.square().sum().backward()
    return outputs.detach(), {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}


@over_backends
@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_a_cell_whose_weights_are_masked_by_hand(case, backend, bidirectional):
    layer = make(case, num_layers=2, bidirectional=bidirectional, backend=backend)
    lengths = torch.tensor([T, 2, 0])
    outputs, found = gradients(layer, inputs(), lengths)
    plain = make(case, weight_drop=0.0, num_layers=2, bidirectional=bidirectional, backend="reference")
    torch.manual_seed(1)
    masks = [torch.nn.functional.dropout(torch.ones_like(cell.recurrent_weight), P) for cell in layer.cells]
    with torch.no_grad():
        for cell, mask in zip(plain.cells, masks, strict=True):
            cell.recurrent_weight.mul_(mask)
    expected, raw = plain(inputs(), lengths)[0], dict(plain.named_parameters())
    torch.testing.assert_close(outputs, expected, **EXACT)
    expected.square().sum().backward()
    for place, mask in enumerate(masks):
        assert 0 < mask.eq(0).double().mean() < 1
        raw[f"cells.{place}.recurrent_weight"].grad.mul_(mask)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, raw[name].grad, **EXACT)
        assert gradient.abs().max() > 0, name


@cells
def test_all_backends_agree_on_the_same_mask(case):
    results = [gradients(make(case, backend=backend), inputs()) for backend in case.backends]
    for (one, one_grad), (other, other_grad) in itertools.pairwise(results):
        torch.testing.assert_close(one, other, **EXACT)
        for name, gradient in one_grad.items():
            torch.testing.assert_close(gradient, other_grad[name], **EXACT)


@over_backends
def test_nothing_in_evaluation_and_nothing_at_zero(case, backend):
    plain = make(case, weight_drop=0.0, backend=backend)
    layer = make(case, backend=backend).eval()
    state = torch.get_rng_state()
    expected = plain(inputs())[0]
    assert torch.equal(layer(inputs())[0], expected)
    assert torch.equal(layer(inputs())[0], expected)
    assert torch.equal(torch.get_rng_state(), state)  # not one random number is drawn
    assert layer.hold_masks() is layer
    assert plain.hold_masks() is plain
    assert not torch.allclose(layer.train()(inputs())[0], expected)


@cells
def test_the_mask_is_drawn_for_each_call_and_held_over_chunks_and_steps_by_a_view(case):
    layer = make(case, num_layers=2)
    assert not torch.allclose(layer(inputs())[0], layer(inputs())[0])
    held = layer.hold_masks()
    whole, final = held(inputs())
    first, state = held(inputs()[:, :2])
    second, state = held(inputs()[:, 2:], None, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, **EXACT)
    state = held.initial_state(B)
    steps = []
    for t in range(T):
        output, state = held.step(inputs()[:, t], state)
        steps.append(output)
    torch.testing.assert_close(torch.stack(steps, dim=1), whole, **EXACT)
    for one, other in zip(flatten(state), flatten(final), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_steps_in_training_want_a_view():
    layer = make(CELLS["lstm"])
    state = layer.initial_state(B)
    with pytest.raises(InputError, match=r"Recurrent\.step in training: .*got weight_drop.*hold_masks\(\)"):
        layer.step(inputs()[:, 0], state)
    layer.eval().step(inputs()[:, 0], state)


@cells
def test_weights_are_registered_once_under_the_names_of_plain_layers(case):
    layer, plain = make(case, num_layers=2), make(case, weight_drop=0.0, num_layers=2)
    layer(inputs())
    assert layer.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in layer.named_parameters()] == [name for name, _ in plain.named_parameters()]
    other = make(case, weight_drop=0.0, num_layers=2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs())[0], layer.eval()(inputs())[0])
    layer.load_state_dict(plain.state_dict())
    assert torch.equal(plain(inputs())[0], layer(inputs())[0])


@over_backends
def test_an_optimizer_moves_the_raw_weights_where_the_mask_let_the_gradient_through(case, backend):
    layer = make(case, backend=backend)
    before = layer.cells[0].recurrent_weight.detach().clone()
    _, found = gradients(layer, inputs())
    gradient = found["cells.0.recurrent_weight"]
    torch.optim.SGD(layer.parameters(), lr=0.5).step()
    torch.testing.assert_close(layer.cells[0].recurrent_weight.detach(), before - 0.5 * gradient, **EXACT)
    assert gradient.eq(0).any()  # dropped weights stay


@cells
def test_copies_are_independent_and_a_view_leaves_nothing_behind(case):
    layer = make(case)
    names = set(vars(layer.cells[0]))
    layer(inputs())[0].sum().backward()
    layer.hold_masks()(inputs())
    assert set(vars(layer.cells[0])) == names
    assert isinstance(layer.cells[0].recurrent_weight, nn.Parameter)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.cells[0].recurrent_weight.zero_()
    assert layer.cells[0].recurrent_weight.abs().max() > 0
    torch.manual_seed(3)
    assert twin(inputs())[0].isfinite().all()


@over_backends
def test_autocast(case, backend):
    layer = make(case, backend=backend).float()
    full, _ = gradients(layer, inputs().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low, found = gradients(layer, inputs().float())
    torch.testing.assert_close(low.float(), full, rtol=0.1, atol=0.1)  # the same mask
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert found["cells.0.recurrent_weight"].abs().max() > 0


@pytest.mark.slow
@over_backends
def test_export_of_evaluation(case, backend):
    layer = make(case, backend=backend).eval()
    program = torch.export.export(layer, (inputs(),))
    torch.testing.assert_close(program.module()(inputs())[0], layer(inputs())[0], **EXACT)


@pytest.mark.parametrize("case", [case for case in CELLS.values() if case.kind == "gated"], ids=lambda c: c.name)
def test_works_inside_recurrent_dropout(case):
    layer = make(case, recurrent_dropout=0.3)
    assert isinstance(layer.cells[0], RecurrentDropout)
    _, found = gradients(layer, inputs())
    assert found["cells.0.cell.recurrent_weight"].abs().max() > 0
    held = layer.hold_masks()
    assert isinstance(held.cells[0], RecurrentDropout)
    assert base_cell(held.cells[0]).recurrent_weight.eq(0).any()
    assert base_cell(layer.cells[0]).recurrent_weight.ne(0).all()


@cells
def test_the_view_of_a_cell_is_run_by_the_same_backends(case):
    cell = REGISTERED[case.name](input_size=I, hidden_size=H)
    view = drop_weights(cell, P)
    assert type(view) is type(cell)
    assert native.refusal(view) == native.refusal(cell)
    assert view.input_weight is cell.input_weight
    kept = view.recurrent_weight != 0
    torch.testing.assert_close(view.recurrent_weight[kept], cell.recurrent_weight[kept] / (1 - P))
    outputs, _ = reference.run(view, torch.randn(B, T, I), None, None)
    assert outputs.shape == (B, T, cell.output_size)


def test_the_share_of_dropped_weights():
    cell = drop_weights(REGISTERED["lstm"](input_size=1, hidden_size=100), 0.3)
    assert cell.recurrent_weight.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.01)


class WeightlessCell(REGISTERED["rnn"]):
    """A cell without recurrent weights."""

    def __init__(self, *, input_size, hidden_size):
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        del self.recurrent_weight

    def initial_state(self, batch_size):
        return HiddenState(self.bias.new_zeros(batch_size, self.hidden_size))


def test_cells_without_recurrent_weights_are_refused(monkeypatch):
    monkeypatch.setattr("rnnzoo.layers.recurrent.make_cell", lambda _, **sizes: WeightlessCell(**sizes))
    with pytest.raises(InputError, match="weight_drop: expected a cell with recurrent weights, got 'weightless'"):
        Recurrent(cell="weightless", input_size=I, hidden_size=H, weight_drop=P)
    Recurrent(cell="weightless", input_size=I, hidden_size=H)


def test_torch_has_no_weight_drop():
    with pytest.raises(InputError, match=r"Recurrent\.to_torch"):
        make(CELLS["lstm"]).to_torch()


def test_masks_are_held_in_all_parts_of_a_module():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleDict({"one": make(CELLS["gru"]), "two": nn.Linear(H, H)})
            self.nothing = None

    pair = Pair()
    parts = pair.parts
    held = hold_masks(pair)
    assert pair.parts is parts
    assert isinstance(held, Pair)
    assert held.parts["two"] is pair.parts["two"]
    assert torch.equal(held.parts["one"](inputs())[0], held.parts["one"](inputs())[0])
    assert isinstance(pair.parts["one"].cells[0].recurrent_weight, nn.Parameter)
    assert hold_masks(pair.eval()) is pair


PROCESS = """
import sys
import torch
import torch.distributed as dist
from rnnzoo.layers.recurrent import Recurrent
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
results = {}
for cell, backend in PAIRS:
    torch.manual_seed(0)
    layer = Recurrent(cell=cell, input_size=5, hidden_size=4, num_layers=2, weight_drop=0.4, backend=backend)
    wrapped = torch.nn.parallel.DistributedDataParallel(layer)
    inputs = torch.randn(2, 3, 6, 5)[rank]
    kept = []
    for run in (layer, wrapped):  # by itself, then together with the other process, with the same mask
        layer.zero_grad()
        torch.manual_seed(7 + rank)
        run(inputs)[0].square().sum().backward()
        kept.append({name: parameter.grad.clone() for name, parameter in layer.named_parameters()})
    results[cell, backend] = kept
torch.save(list(results.values()), f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_get_the_mean_gradient_of_their_masks(tmp_path):
    program = f"PAIRS = {[(case.name, backend) for case, backend in pairs]}" + PROCESS
    environment = {
        **os.environ,
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": str(Path(rnnzoo.__file__).parents[1]),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(rank), str(tmp_path)], env=environment)
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for (one, together), (other, same) in zip(*ranks, strict=True):
        for name, gradient in together.items():
            torch.testing.assert_close(gradient, (one[name] + other[name]) / 2)
            assert torch.equal(gradient, same[name])
        masked = [each["cells.1.recurrent_weight"].eq(0) for each in (one, other)]
        assert not torch.equal(*masked)  # each has a mask of its own
