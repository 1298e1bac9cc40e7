"""Every cell and every backend, once, with what the laws need to know of it.

`test_catalogue.py` fails if something is registered but not listed here, or listed but not registered. A new cell
needs one line in `CELLS` and one reference in `references.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from references import (
    Reference,
    Weights,
    elman,
    gru,
    indrnn,
    linear,
    lstm,
    minimal,
    mogrifier,
    multiplicative,
    mut,
    normalised,
    odyssey,
    projected,
    xlstm,
)
from torch import nn

from rnnzoo.cells.base import Cell
from rnnzoo.cells.wrappers import RecurrentDropout
from rnnzoo.layers.recurrent import Recurrent


class CellCase(NamedTuple):
    """What the tests know of a cell."""

    name: str
    reference: Reference
    kind: str  # gated, staged, linear or general: what the hidden state is allowed to do
    backends: tuple[str, ...]  # all that run it
    torch_layer: type[nn.RNNBase] | None = None  # the layer of torch with the same equations
    torch_options: Mapping[str, Any] = MappingProxyType({})
    options: Mapping[str, Any] = MappingProxyType({})  # every option of the cell, with a value that is not its default


class BackendCase(NamedTuple):
    """What the tests know of a backend."""

    name: str
    module: str


FUSED = ("reference", "fused")
NATIVE = ("reference", "native", "fused")
CELLS = {
    case.name: case
    for case in (
        CellCase("rnn", elman.RNN, "gated", NATIVE, nn.RNN),
        CellCase("rnn_relu", elman.RNN_RELU, "gated", NATIVE, nn.RNN, {"nonlinearity": "relu"}),
        CellCase("irnn", elman.IRNN, "gated", NATIVE, options={"identity_scale": 0.5, "input_deviation": 0.1}),
        CellCase("indrnn", indrnn.INDRNN, "staged", FUSED, options={"activation": "tanh", "memory_steps": 7}),
        CellCase("ugrnn", minimal.UGRNN, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("mgu", minimal.MGU, "staged", FUSED),
        CellCase("gru", gru.GRU, "gated", NATIVE, nn.GRU),
        CellCase("gru_reset_before", gru.GRU_RESET_BEFORE, "staged", FUSED),
        CellCase("mut1", mut.MUT1, "staged", FUSED, options={"project_input": True}),
        CellCase("mut2", mut.MUT2, "staged", FUSED, options={"project_input": True}),
        CellCase("mut3", mut.MUT3, "staged", FUSED),
        CellCase("janet", minimal.JANET, "gated", FUSED, options={"beta": 0.0, "forget_bias": 2.5, "memory_steps": 50}),
        CellCase("lstm", lstm.LSTM, "gated", NATIVE, nn.LSTM, options={"forget_bias": 2.5}),
        CellCase("nig", odyssey.NIG, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("nfg", odyssey.NFG, "gated", FUSED),
        CellCase("nog", odyssey.NOG, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("niaf", odyssey.NIAF, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("noaf", odyssey.NOAF, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("cifg", odyssey.CIFG, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("peephole", odyssey.PEEPHOLE, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("fgr", odyssey.FGR, "staged", FUSED, options={"forget_bias": 2.5}),
        CellCase(
            "lstm_projected",
            projected.LSTM_PROJECTED,
            "staged",
            FUSED,
            options={"projection_size": 3, "forget_bias": 2.5},
        ),
        CellCase(
            "lstm_layer_norm", normalised.LSTM_LAYER_NORM, "gated", FUSED, options={"forget_bias": 2.5, "epsilon": 0.1}
        ),
        CellCase(
            "lstm_state_norm", normalised.LSTM_STATE_NORM, "gated", FUSED, options={"forget_bias": 2.5, "epsilon": 0.1}
        ),
        CellCase("gru_layer_norm", normalised.GRU_LAYER_NORM, "gated", FUSED, options={"epsilon": 0.1}),
        CellCase(
            "multiplicative_lstm", multiplicative.MULTIPLICATIVE_LSTM, "staged", FUSED, options={"forget_bias": 2.5}
        ),
        CellCase(
            "mogrifier", mogrifier.MOGRIFIER, "staged", FUSED, options={"rounds": 2, "rank": 2, "forget_bias": 2.5}
        ),
        CellCase("slstm", xlstm.SLSTM, "gated", FUSED, options={"forget_bias": 2.5}),
        CellCase("mlstm", xlstm.MLSTM, "general", ("reference",), options={"heads": 2}),
        CellCase("mingru", linear.MINGRU, "linear", ("reference", "scan"), options={"forget_bias": 2.5}),
        CellCase("mingru_log", linear.MINGRU_LOG, "linear", ("reference", "scan"), options={"forget_bias": 2.5}),
        CellCase("minlstm", linear.MINLSTM, "linear", ("reference", "scan"), options={"forget_bias": 2.5}),
        CellCase("minlstm_log", linear.MINLSTM_LOG, "linear", ("reference", "scan"), options={"forget_bias": 2.5}),
        CellCase("qrnn", linear.QRNN, "linear", ("reference", "scan"), options={"window": 1, "forget_bias": 2.5}),
        CellCase(
            "sru", linear.SRU, "linear", ("reference", "scan"), options={"forget_bias": 2.5, "highway_bias": -2.0}
        ),
        CellCase(
            "lru",
            linear.LRU,
            "linear",
            ("reference", "scan"),
            options={"min_radius": 0.9, "max_radius": 0.5, "max_phase": 0.3},
        ),
        CellCase("rg_lru", linear.RG_LRU, "linear", ("reference", "scan"), options={"block_count": 2}),
        CellCase(
            "hgrn", linear.HGRN, "linear", ("reference", "scan"), options={"lower_bound": 0.5, "forget_bias": 2.5}
        ),
    )
}

BACKENDS = {
    case.name: case
    for case in (
        BackendCase("reference", "rnnzoo.backends.reference"),
        BackendCase("native", "rnnzoo.backends.native"),
        BackendCase("fused", "rnnzoo.backends.fused.run"),
        BackendCase("scan", "rnnzoo.backends.scan.run"),
    )
}

TOLERANCES = {
    torch.float32: {"rtol": 1e-4, "atol": 2e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
}


def load_weights(cell: Cell, weights: Weights) -> None:
    """Copy NumPy weights into a cell; their names must be those of its parameters."""
    target = cell.cell if isinstance(cell, RecurrentDropout) else cell
    target.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})


def make_layer(
    case: CellCase,
    *,
    input_size: int = 3,
    hidden_size: int = 4,
    num_layers: int = 1,
    bidirectional: bool = False,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> tuple[Recurrent, list[Weights]]:
    """Build recurrent layers with the weights of the reference; return them with these weights, cell by cell."""
    layer = Recurrent(
        cell=case.name,
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        bidirectional=bidirectional,
        **options,
    ).to(dtype)
    drawn = []
    for place, cell in enumerate(layer.cells):
        weights = case.reference.weights(place, input_size=cell.input_size, hidden_size=hidden_size)
        load_weights(cell, weights)
        drawn.append(weights)
    return layer, drawn


def random_state(case: CellCase, layer: Recurrent, batch_size: int, *, seed: int = 7) -> tuple[Any, ...]:
    """Draw a state of the layers that differs in every number, as leaves of the graph that want gradients."""
    rng = np.random.default_rng(seed)
    states = []
    for cell in layer.cells:
        first = cell.initial_state(batch_size)
        drawn = case.reference.state(rng, batch_size, cell.hidden_size)
        fields = (torch.from_numpy(value).to(like.dtype) for value, like in zip(drawn, first, strict=True))
        states.append(type(first)(*(field.requires_grad_() for field in fields)))
    return tuple(states)
