"""What holds for every cell on every backend: the laws of `rnnzoo.testing`, and the numbers of NumPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from catalogue import BACKENDS, CELLS, make_layer, random_state
from references import stack

from rnnzoo.backends import BACKENDS as REGISTERED
from rnnzoo.backends import select
from rnnzoo.backends.select import choose
from rnnzoo.cells import make_cell
from rnnzoo.errors import InputError
from rnnzoo.kernels.products import panels
from rnnzoo.testing import check_cell

torch.set_num_threads(1)

B, T, I, H = 4, 5, 3, 4  # noqa: E741
LENGTHS = {"none": None, "full": [T] * B, "mixed": [0, 1, T, 3], "short": [2, 0, 1, 3], "empty": [0] * B}
PAIRS = [(case, backend) for case in CELLS.values() for backend in case.backends]

over_cells = pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
over_pairs = pytest.mark.parametrize(("case", "backend"), PAIRS, ids=[f"{c.name}-{b}" for c, b in PAIRS])


@over_cells
def test_laws(case):
    check_cell(case.name, input_size=I, hidden_size=H, backends=case.backends)


@pytest.mark.slow
@over_cells
def test_laws_with_every_option(case):
    for name, value in case.options.items():
        check_cell(case.name, input_size=H, hidden_size=H, backends=case.backends, **{name: value})


@over_pairs
def test_equals_numpy(case, backend):
    for bidirectional, num_layers in ((False, 1), (True, 2)):
        layer, weights = make_layer(
            case, input_size=I, hidden_size=H, num_layers=num_layers, bidirectional=bidirectional, backend=backend
        )
        inputs = np.random.default_rng(5).standard_normal((B, T, I))
        state = random_state(case, layer, B)
        states = [tuple(field.detach().numpy() for field in inner) for inner in state]
        for name, lengths in LENGTHS.items():
            setting = f"{num_layers} layers, lengths {name}"
            rows = None if lengths is None else torch.tensor(lengths)
            with torch.no_grad():
                outputs, final = layer(torch.from_numpy(inputs), rows, state)
            expected, finals = stack(
                case.reference.step, weights, inputs, lengths or [T] * B, states, bidirectional=bidirectional,
                output_size=layer.cells[0].output_size,
            )  # fmt: skip
            np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-10, atol=1e-12, err_msg=setting)
            for got, inner in zip(final, finals, strict=True):
                assert got._fields == case.reference.fields
                for field, value in zip(got._fields, inner, strict=True):
                    message = f"{field}, {setting}"
                    np.testing.assert_allclose(getattr(got, field).numpy(), value, 1e-10, 1e-12, err_msg=message)


def test_a_state_of_another_batch_size_is_refused():
    """In a process of its own, because kernels that trust the size read past the end of the state and crash."""
    program = f"""
import torch
from rnnzoo.errors import InputError
from rnnzoo.layers.recurrent import Recurrent
accepted = []
for cell, backend in {[(case.name, backend) for case, backend in PAIRS]}:
    for rows in (1, 5):
        layer = Recurrent(cell=cell, input_size=3, hidden_size=64, backend=backend)
        try:
            layer(torch.zeros(4, 5, 3), None, layer.initial_state(rows))
        except InputError:
            continue
        except Exception as error:
            accepted.append((cell, backend, rows, type(error).__name__))
        else:
            accepted.append((cell, backend, rows, "no error"))
assert not accepted, accepted
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-1500:]}"


@pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
def test_auto_takes_a_backend_that_can_run_the_cell_and_says_why(case):
    cell = make_cell(case.name, input_size=I, hidden_size=H)
    for inputs in (None, torch.zeros(2, 3, I), torch.zeros(4096, 1, I)):
        choice = choose(cell, "auto", inputs)
        assert choice.name in case.backends
        assert choice.run is REGISTERED[choice.name]
        assert choice.reason


@pytest.mark.parametrize(
    ("name", "rows", "size", "able", "expected"),
    [
        ("lstm", 1, 512, "train in C++", "native"),
        ("lstm", 4096, 8, "train in C++", "native"),
        ("lstm", 64, 512, "train in C++", "fused"),
        ("lstm", 64, 511, "train in C++", "native"),
        ("lstm", 64, 512, "train in C++, narrow", "native"),
        ("lstm", 64, 512, "train in C++, autocast", "native"),
        ("lstm", 64, 512, "train in C++ with bf16, autocast", "native"),
        ("lstm", 64, 512, "train in C++, transformed", "native"),
        ("lstm", 64, 512, "run in C++", "native"),
        ("lstm", 64, 128, "run in C++, ragged", "fused"),
        ("lstm", 63, 128, "train in C++, ragged", "native"),
        ("lstm", 64, 128, "train in C++, nearly equal", "native"),
        ("lstm", 64, 128, "train in C++, ragged, narrow", "native"),
        ("lstm", 64, 128, "train in C++, ragged, autocast", "native"),
        ("lstm", 64, 128, "train in C++ with bf16, ragged, autocast", "fused"),
        ("lstm", 64, 128, "train in C++ with bf16, ragged, narrow", "native"),
        ("lstm", 64, 128, "compile, ragged", "native"),
        ("lstm", 64, 512, "compile", "native"),
        ("rnn", 1, 8, "train in C++", "native"),
        ("rnn_relu", 4096, 8, "train in C++", "fused"),
        ("rnn", 4096, 8, "run in C++", "native"),
        ("rnn", 4096, 8, "train in C++ with bf16, autocast", "fused"),
        ("gru", 1, 8, "train in C++", "native"),
        ("gru", 4096, 8, "run in C++", "fused"),
        ("gru", 4096, 8, "compile", "fused"),
        ("gru", 4096, 8, "nothing", "native"),
        ("gru_reset_before", 1, 8, "compile", "fused"),
        ("gru_reset_before", 1, 8, "nothing", "reference"),
        ("gru_reset_before", 4096, 8, "nothing", "fused"),
    ],
)
def test_auto_knows_what_is_fast(monkeypatch, name, rows, size, able, expected):
    monkeypatch.setattr(select, "can_compile", lambda device: able != "nothing")
    known = {torch.float32, torch.bfloat16} if "bf16" in able else {torch.float32}
    monkeypatch.setattr(panels, "offers_products", lambda dtype: "C++" in able and dtype in known)
    monkeypatch.setattr(select, "is_traced_or_transformed", lambda: "transformed" in able)
    cell = make_cell(name, input_size=I, hidden_size=size).to(torch.bfloat16 if "narrow" in able else torch.float32)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled="autocast" in able)
    with torch.set_grad_enabled("train" in able), autocast:
        lengths = torch.full((rows,), 2)
        lengths[: rows * 4 // 5 if "equal" in able else 1] = 3
        given = lengths if "ragged" in able or "equal" in able else None
        assert choose(cell, "auto", torch.zeros(rows, 3, I), given).name == expected


@pytest.mark.parametrize("case", CELLS.values(), ids=list(CELLS))
def test_unknown_backends_are_refused(case):
    with pytest.raises(InputError, match=r"backend: expected one of .*did you mean 'native'") as caught:
        choose(make_cell(case.name, input_size=I, hidden_size=H), "natve")
    assert all(name in str(caught.value) for name in ("auto", *BACKENDS))
