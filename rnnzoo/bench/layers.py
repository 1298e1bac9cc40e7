"""Recurrent layers: against torch's LSTM, against the plain loop, over ragged rows, over long ones, one step alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from rnnzoo.backends import reference
from rnnzoo.backends.base import Backend
from rnnzoo.backends.fused import run as fused
from rnnzoo.backends.scan import run as scan
from rnnzoo.bench.measure import Call, Comparison, Contest, Row, Setting, Task, has_fast_bf16, run_contest
from rnnzoo.cells import CELLS, make_cell
from rnnzoo.cells.base import Cell
from rnnzoo.layers.recurrent import Recurrent

SHAPES = ((64, 64, 512), (32, 50, 256))  # B, T, H
LSTM_BARS = (0.90, 1.00)
IN_BF16 = ("gru", "lstm_layer_norm", "mogrifier")  # measured at the first shape, where the processor is made for it
SCANNED = ("mingru", "minlstm", "qrnn", "rg_lru")


def cells(setting: Setting) -> list[Task]:
    """Each gated or staged cell through `fused`, forward and backward; some of them in bf16 too, where it is fast."""
    tasks = []
    for name in chosen(setting, [name for name in CELLS if CELLS.entry(name).facts["kind"] in ("gated", "staged")]):
        for place, shape in enumerate(SHAPES):
            work = "{} B {} T {} H {}".format(name, *(shape if not setting.quick else (2, 3, 4)))
            tasks.append(Task(work, partial(one_cell, name, place, work, setting)))
    for name in chosen(setting, IN_BF16) if has_fast_bf16(setting.device) else ():
        work = "{} in bf16 (autocast) B {} T {} H {}".format(name, *(SHAPES[0] if not setting.quick else (2, 3, 4)))
        tasks.append(Task(work, partial(one_cell_in_bf16, name, work, setting)))
    return tasks


def one_cell(name: str, place: int, work: str, setting: Setting) -> list[Row]:
    """Measure one cell at one shape; against its own reference at the smaller one only, which is slow enough."""
    rows, steps, size = (2, 3, 4) if setting.quick else SHAPES[place]
    cell = make_cell(name, input_size=size, hidden_size=size).to(setting.device)
    inputs = torch.randn(rows, steps, size, device=setting.device, requires_grad=True)
    lstm = nn.LSTM(size, size, batch_first=True).to(setting.device)
    grads = torch.randn(rows, steps, size, device=setting.device)
    baseline = 6.0 * rows * steps * 8 * size * size  # 2 for a product and a sum, 3 for forward and two gradients
    own = 6.0 * rows * steps * matrix_numbers(cell)
    calls: dict[str, Call] = {
        "fused": partial(there_and_back, cell, fused.run, inputs),
        "nn.LSTM": partial(lstm_there_and_back, lstm, inputs, grads),
    }
    bar = LSTM_BARS[place] if name == "lstm" else 1.15
    comparisons = [Comparison("fused", "nn.LSTM", bar, scale=own / baseline)]
    if place == len(SHAPES) - 1:
        calls["reference"] = partial(there_and_back, cell, reference.run, inputs)
        comparisons.append(Comparison("fused", "reference", 0.5))
    contest = Contest(work, calls, tuple(comparisons), flops={"fused": own, "nn.LSTM": baseline})
    return run_contest("cells", contest, setting)


def one_cell_in_bf16(name: str, work: str, setting: Setting) -> list[Row]:
    """Measure one cell under autocast, against itself in float32 and against torch's LSTM under autocast."""
    rows, steps, size = (2, 3, 4) if setting.quick else SHAPES[0]
    cell = make_cell(name, input_size=size, hidden_size=size).to(setting.device)
    inputs = torch.randn(rows, steps, size, device=setting.device, requires_grad=True)
    lstm = nn.LSTM(size, size, batch_first=True).to(setting.device)
    own = 6.0 * rows * steps * matrix_numbers(cell)
    baseline = 6.0 * rows * steps * 8 * size * size

    def ours(*, narrow: bool) -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=narrow):
            outputs, _ = fused.run(cell, inputs, None, None)
        outputs.backward(torch.ones_like(outputs))

    def theirs() -> None:
        with torch.autocast(setting.device, torch.bfloat16):
            outputs = lstm(inputs)[0]
        outputs.backward(torch.ones_like(outputs))

    calls: dict[str, Call] = {
        "fused": partial(ours, narrow=True),
        "fused in float32": partial(ours, narrow=False),
        "nn.LSTM in bf16": theirs,
    }
    comparisons = (
        Comparison("fused", "nn.LSTM in bf16", None, scale=own / baseline),
        Comparison("fused", "fused in float32", None),
    )
    contest = Contest(
        work,
        calls,
        comparisons,
        flops={"fused": own, "fused in float32": own, "nn.LSTM in bf16": baseline},
        dtype="bfloat16",
    )
    return run_contest("cells", contest, setting)


def matrix_numbers(cell: Cell) -> int:
    """Return the numbers in all matrices of a cell: each takes part in one product of a row and step."""
    return sum(value.numel() for value in cell.parameters() if value.dim() > 1)


def ragged(setting: Setting) -> list[Task]:
    """A bidirectional LSTM over rows of different lengths, as `Recurrent` runs it and packed."""
    tasks = []
    for shortest, bar in ((24, 0.60), (5, 0.75)):
        work = f"bidirectional LSTM, lengths {shortest}-30, B 64 H 256"
        tasks.append(Task(work, partial(one_ragged, shortest, bar, work, setting)))
    return tasks


def one_ragged(shortest: int, bar: float, work: str, setting: Setting) -> list[Row]:
    """Measure one spread of lengths."""
    rows, size = (3, 4) if setting.quick else (64, 256)
    layer = Recurrent(cell="lstm", input_size=size, hidden_size=size, bidirectional=True).to(setting.device)
    lstm = layer.to_torch()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shortest, 31, (rows,), generator=generator)
    lengths[0] = 30
    inputs = torch.randn(rows, 30, size, device=setting.device, requires_grad=True)
    calls: dict[str, Call] = {
        "Recurrent": lambda: layer(inputs, lengths.to(setting.device))[0].sum().backward(),
        "packed nn.LSTM": lambda: packed(lstm, inputs, lengths).sum().backward(),
    }
    useful = dict.fromkeys(calls, 6.0 * float(lengths.sum()) * 2 * 8 * size * size)  # both directions, no padding
    contest = Contest(work, calls, (Comparison("Recurrent", "packed nn.LSTM", bar),), flops=useful)
    return run_contest("ragged", contest, setting)


def packed(lstm: nn.Module, inputs: Tensor, lengths: Tensor) -> Tensor:
    """Run torch's LSTM over packed rows and return padded outputs: the usual way."""
    rows = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    outputs: Tensor = pad_packed_sequence(lstm(rows)[0], batch_first=True)[0]
    return outputs


def scan_suite(setting: Setting) -> list[Task]:
    """Linear cells over long rows, forward and backward."""
    tasks = []
    for name in chosen(setting, SCANNED):
        work = f"{name} B 16 T 1024 H 256"
        tasks.append(Task(work, partial(one_scan, name, work, setting)))
    return tasks


def one_scan(name: str, work: str, setting: Setting) -> list[Row]:
    """Measure one linear cell."""
    rows, steps, size = (2, 5, 4) if setting.quick else (16, 1024, 256)
    cell = make_cell(name, input_size=size, hidden_size=size).to(setting.device)
    inputs = torch.randn(rows, steps, size, device=setting.device, requires_grad=True)
    lstm = nn.LSTM(size, size, batch_first=True).to(setting.device)
    grads = torch.randn(rows, steps, size, device=setting.device)
    contest = Contest(
        work,
        {
            "scan": partial(there_and_back, cell, scan.run, inputs),
            "nn.LSTM": partial(lstm_there_and_back, lstm, inputs, grads),
        },
        (Comparison("scan", "nn.LSTM", 0.25),),
        flops={
            "scan": 6.0 * rows * steps * matrix_numbers(cell),
            "nn.LSTM": 6.0 * rows * steps * 8 * size * size,
        },
    )
    return run_contest("scan", contest, setting)


def step(setting: Setting) -> list[Task]:
    """One step of an LSTM for one row, without a gradient."""
    work = "LSTM 512, B 1, one step"
    return [Task(work, partial(one_step, work, setting))]


def one_step(work: str, setting: Setting) -> list[Row]:
    """Measure a step."""
    size = 4 if setting.quick else 512
    layer = Recurrent(cell="lstm", input_size=size, hidden_size=size).to(setting.device).eval()
    lstm = layer.to_torch()
    inputs = torch.randn(1, size, device=setting.device)
    state = layer.initial_state(1)
    known = tuple(field.unsqueeze(0) for field in state[0])

    @torch.inference_mode()
    def ours() -> None:
        layer.step(inputs, state)

    @torch.inference_mode()
    def plain() -> None:
        lstm(inputs.unsqueeze(1), known)

    calls: dict[str, Call] = {"step": ours, "nn.LSTM": plain}
    flops = dict.fromkeys(calls, 2.0 * 8 * size * size)
    return run_contest("step", Contest(work, calls, (Comparison("step", "nn.LSTM", 0.4),), flops), setting)


def there_and_back(cell: Cell, run: Backend, inputs: Tensor) -> None:
    """Run a cell, and differentiate the sum of its outputs."""
    outputs, _ = run(cell, inputs, None, None)
    outputs.backward(torch.ones_like(outputs))


def lstm_there_and_back(lstm: nn.Module, inputs: Tensor, grads: Tensor) -> None:
    """Run torch's LSTM, and differentiate."""
    lstm(inputs)[0].backward(grads)


def chosen(setting: Setting, names: Sequence[str]) -> list[str]:
    """Return those of `names` that the setting asks for."""
    return [name for name in names if not setting.cells or name in setting.cells]
