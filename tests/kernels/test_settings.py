"""Within a training on a CPU, numbers do not depend on what the process ran before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from small_models import batch_of, build

import rnnzoo
from rnnzoo.kernels.settings import compile_on_first_use, on_first_use

CPU, GPU = torch.device("cpu"), torch.device("cuda")

# A batch is run first of all, and again after thirty runs of other batches: the same bits, forward and back.
PROCESS = """
import torch
from rnnzoo.backends.scan import run as scan
from rnnzoo.kernels.settings import compile_on_first_use
from rnnzoo.layers.recurrent import Recurrent

torch.set_num_threads(1)
compile_on_first_use(True)
scan.PART_NUMBERS = 2**10  # several parts
layers = {}
for cell in ("peephole", "mingru"):
    torch.manual_seed(0)
    layers[cell] = Recurrent(cell=cell, input_size=8, hidden_size=16)

def run(layer, rows, steps):
    torch.manual_seed(rows)
    inputs, lengths = torch.randn(rows, steps, 8), torch.randint(1, steps + 1, (rows,))
    layer.zero_grad()
    outputs, _ = layer(inputs, lengths)
    outputs.square().sum().backward()
    return [outputs.detach(), *(each.grad.clone() for each in layer.parameters())]

first = {cell: run(layer, 20, 30) for cell, layer in layers.items()}
for layer in layers.values():
    for rows in range(1, 31):
        run(layer, rows, 5)
for cell, layer in layers.items():
    assert all(map(torch.equal, run(layer, 20, 30), first[cell])), cell
"""


def test_the_variable_is_read_in_one_file():
    root = Path(rnnzoo.__file__).parent
    readers = [
        path for path in root.rglob("*.py") if 'environ.get("RNNZOO_COMPILE"' in path.read_text(encoding="utf-8")
    ]
    assert [path.relative_to(root).as_posix() for path in readers] == ["testing/__init__.py"]  # which sets it, and back


def test_the_first_batch_of_a_process_has_the_numbers_of_a_later_one():
    environment = {key: value for key, value in os.environ.items() if key != "RNNZOO_COMPILE"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(rnnzoo.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", PROCESS], check=True, timeout=300, env=environment)


@pytest.mark.parametrize(
    ("mode", "training", "expected"),
    [("", False, ""), ("", True, "cpu"), ("0", True, ""), ("1", False, "cpu cuda"), ("1", True, "cpu cuda")],
)
def test_what_is_compiled_at_its_first_use(monkeypatch, mode, training, expected):
    monkeypatch.setenv("RNNZOO_COMPILE", mode)
    compile_on_first_use(training)
    try:
        assert [device.type for device in (CPU, GPU) if on_first_use(device)] == expected.split()
    finally:
        compile_on_first_use(False)


@pytest.mark.filterwarnings("ignore")
def test_a_training_does_so_from_its_first_batch_to_its_last(monkeypatch, tmp_path):
    monkeypatch.delenv("RNNZOO_COMPILE")
    model = build("VectorClassifier")
    batch = batch_of(model)
    seen = []
    for name in ("training_step", "validation_step"):
        step = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *a, step=step: (seen.append(on_first_use(CPU)), step(*a))[1])
    data = torch.utils.data.DataLoader([batch], batch_size=None)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(model, data, data)
    assert seen == [True] * 3  # the check before the training too
    assert not on_first_use(CPU)
