"""What runs on GPUs has the numbers of the plain loop in float64 on a CPU. Skipped where there is no GPU."""

from __future__ import annotations

import gc
import warnings

import pytest
import torch
from catalogue import CELLS, make_layer

from rnnzoo.backends import BACKENDS, reference
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.scan import recurrence
from rnnzoo.backends.scan import run as scan
from rnnzoo.cells import make_cell
from rnnzoo.kernels import cuda_graphs
from rnnzoo.kernels.compile import cache
from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.state import flatten, map_state

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore:RNN module weights"),  # see rnnzoo.backends.native
]

B, T, I, H = 4, 7, 5, 8  # noqa: E741
PAIRS = [(case, backend) for case in CELLS.values() for backend in case.backends]
LENGTHS = {"none": None, "mixed": [0, 1, T, 3]}
over_pairs = pytest.mark.parametrize(("case", "backend"), PAIRS, ids=[f"{c.name}-{b}" for c, b in PAIRS])
over_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=list(LENGTHS))


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Products in whole float32: cuDNN takes TF32 unless told otherwise."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def compiling(monkeypatch):
    """Compile and record as early as can be, with nothing left of earlier tests."""
    for name in ("_seen", "_compiled", "_layouts"):
        monkeypatch.setattr(cache, name, type(getattr(cache, name))())
    for name in ("_seen", "_graphs"):
        monkeypatch.setattr(cuda_graphs, name, type(getattr(cuda_graphs, name))())
    for module in (cache, cuda_graphs):
        monkeypatch.setattr(module, "_failures", [])
    monkeypatch.setenv("RNNZOO_COMPILE", "1")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="rnnzoo:.*")
        yield


def solve(run, cell, lengths, *, seed, device):
    """Return outputs, final state and all gradients for numbers of a seed, in float64 on a CPU, else in float32."""
    dtype = torch.float64 if device == "cpu" else torch.float32
    generator = torch.Generator().manual_seed(seed)

    def draw(like, scale=1.0):
        numbers = torch.rand(like.shape, generator=generator, dtype=torch.float64) * scale
        return numbers.to(device, dtype)

    inputs = draw(torch.empty(B, T, I), 2.0).sub_(1.0).requires_grad_()
    fixed = cell.initial_state(B)
    state = map_state(lambda field: (field.abs() + draw(field).to(field.dtype)).requires_grad_(), fixed)
    rows = None if lengths is None else torch.tensor(lengths, device=device)
    outputs, final = run(cell, inputs, rows, state)
    results = [outputs, *flatten(final)]
    loss = sum((draw(value).to(value.dtype) * value).sum().real for value in results)
    leaves = [inputs, *flatten(state), *cell.parameters()]
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [
        *results,
        *(torch.zeros_like(leaf) if each is None else each for each, leaf in zip(found, leaves, strict=True)),
    ]


def both(case):
    """Return a cell on the GPU in float32 and the same one on the CPU in float64."""
    layer, _ = make_layer(case, input_size=I, hidden_size=H, dtype=torch.float32)
    theirs = make_layer(case, input_size=I, hidden_size=H, dtype=torch.float64)[0].cells[0]
    ours = layer.cells[0]
    theirs.load_state_dict(ours.state_dict())
    return ours.to("cuda"), theirs


def assert_same(ours, theirs, rtol=1e-3, atol=1e-4):
    for place, (got, expected) in enumerate(zip(ours, theirs, strict=True)):
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(
            got.detach().cpu().to(expected.dtype), expected.detach(), rtol=rtol, atol=atol * scale,
            msg=lambda text, place=place: f"{place}: {text}",
        )  # fmt: skip


@over_lengths
@over_pairs
def test_plain(case, backend, lengths):
    ours, theirs = both(case)
    expected = solve(reference.run, theirs, lengths, seed=1, device="cpu")
    assert_same(solve(BACKENDS[backend], ours, lengths, seed=1, device="cuda"), expected)


@over_pairs
def test_compiled_and_recorded(compiling, case, backend):
    """Other numbers in each call: what was recorded reads them, and keeps nothing."""
    if backend in ("reference", "native"):
        pytest.skip("neither compiled nor recorded")
    ours, theirs = both(case)
    for lengths in LENGTHS.values():
        for seed in range(4):
            expected = solve(reference.run, theirs, lengths, seed=seed, device="cpu")
            assert_same(solve(BACKENDS[backend], ours, lengths, seed=seed, device="cuda"), expected)
    if backend == "fused":
        assert len(cuda_graphs._graphs) == 2 * len(LENGTHS), cuda_graphs._failures
    assert not cache._failures


def test_a_second_run_leaves_the_first_alone(compiling):
    """Two runs of the same shapes before either goes back, as in two layers."""
    cell = make_cell("peephole", input_size=I, hidden_size=H).cuda()
    plain = make_cell("peephole", input_size=I, hidden_size=H).cuda()
    plain.load_state_dict(cell.state_dict())
    for _ in range(3):
        first, second = (torch.randn(B, T, I, device="cuda", requires_grad=True) for _ in range(2))
        found = []
        for run, each in ((fused.run, cell), (reference.run, plain)):
            one, two = run(each, first, None, None)[0], run(each, second, None, None)[0]
            found.append([one, two, *torch.autograd.grad((one * two).sum(), [first, second, *each.parameters()])])
        assert_same(found[0], [each.cpu() for each in found[1]])
    assert cuda_graphs._graphs


def test_new_weights_are_read(compiling):
    cell = make_cell("lstm", input_size=I, hidden_size=H).cuda()
    layer = Recurrent(cell="lstm", input_size=I, hidden_size=H, num_layers=2).cuda().eval()
    inputs = torch.randn(B, T, I, device="cuda")
    for _ in range(4):
        with torch.no_grad():
            for parameter in (*cell.parameters(), *layer.parameters()):
                parameter.add_(0.1 * torch.randn_like(parameter))
        assert_same([fused.run(cell, inputs, None, None)[0]], [reference.run(cell, inputs, None, None)[0].cpu()])
        with torch.inference_mode():
            one, _ = layer.step(inputs[:, 0], layer.initial_state(B))
        assert_same([one], [layer.plain_step(inputs[:, 0], layer.initial_state(B))[0].cpu()])
    assert cuda_graphs._graphs


@pytest.mark.parametrize("name", ["lstm", "gru", "mogrifier", "mingru", "qrnn", "lru", "slstm", "mlstm"])
def test_steps_are_the_sequence(compiling, name):
    for fresh in range(3):  # another module may lie where the one before was
        layer = Recurrent(cell=name, input_size=I, hidden_size=H, num_layers=2, residual=bool(fresh % 2)).cuda().eval()
        inputs = torch.randn(B, T, I, device="cuda")
        with torch.inference_mode():
            whole, _ = layer(inputs)
            state, outputs = layer.initial_state(B), []
            for step in range(T):
                output, state = layer.step(inputs[:, step], state)
                outputs.append(output)
        state = layer.initial_state(B)
        with torch.no_grad():  # and outside of inference mode
            for step in range(T):
                output, state = layer.step(inputs[:, step], state)
        assert_same([torch.stack(outputs, 1), output], [whole.cpu(), outputs[-1].cpu()])
        del layer
        gc.collect()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("rows", "steps", "units"), [(1, 1, 1), (2, 64, 16), (3, 150, 20), (1, 65, 600), (5, 4, 33)])
def test_the_scan_in_triton_is_the_loop(monkeypatch, dtype, rows, steps, units):
    torch.manual_seed(steps)
    monkeypatch.delenv("RNNZOO_COMPILE")
    decay, addition, g_hidden = (torch.rand(rows, steps, units, dtype=dtype) for _ in range(3))
    initial, g_final = (torch.randn(rows, units, dtype=dtype) for _ in range(2))
    found = []
    for device in ("cuda", "cpu"):
        if device == "cuda":
            assert recurrence.on_gpu(decay.cuda()) is not None
        a, h, first, g_h, carried = (
            each.to(device) for each in (decay, addition.clone(), initial, g_hidden, g_final.clone())
        )
        recurrence.recur(a, h, first)
        rooms = torch.full_like(a, 9.0), torch.full_like(a, 9.0)
        recurrence.recur_back(a, h, first, g_h, carried, *rooms)
        found.append([h, *rooms, carried])
    assert_same(*found)


@pytest.mark.parametrize("name", ["lstm", "gru_reset_before", "slstm", "mingru", "rg_lru"])
def test_bfloat16(compiling, name):
    """Under autocast, as Lightning's bf16-mixed has it."""
    torch.manual_seed(0)
    cell = make_cell(name, input_size=I, hidden_size=H).cuda()
    exact = make_cell(name, input_size=I, hidden_size=H).double()
    exact.load_state_dict(cell.state_dict())
    run = scan.run if name in ("mingru", "rg_lru") else fused.run
    for _ in range(3):
        inputs = torch.randn(B, T, I, device="cuda", requires_grad=True)
        with torch.autocast("cuda", torch.bfloat16):
            outputs, final = run(cell, inputs, None, None)
        found = torch.autograd.grad(outputs.float().square().sum(), [inputs, *cell.parameters()])
        same = inputs.detach().cpu().double().requires_grad_()
        theirs, _ = reference.run(exact, same, None, None)
        expected = torch.autograd.grad(theirs.square().sum(), [same, *exact.parameters()])
        assert all(field.dtype == torch.float32 for field in flatten(final))
        assert_same([outputs, *found], [theirs, *expected], rtol=0.05, atol=0.05)
