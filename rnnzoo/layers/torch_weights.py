"""Weights of recurrent layers from those of `torch.nn`, and back."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rnnzoo.cells.wrappers import Wrapper, base_cell
from rnnzoo.errors import InputError

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN, "rnn_relu": nn.RNN}  # by our name of the cell
MODES = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn", "RNN_RELU": "rnn_relu"}


class RecurrentLayers(Protocol):
    """What is read of `Recurrent`, which imports this module."""

    cells: nn.ModuleList
    norms: nn.ModuleList
    initial: nn.ParameterList
    cell_name: str
    input_size: int
    num_layers: int
    bidirectional: bool
    dropout: float
    weight_drop: float
    locked_dropout: bool
    residual: bool
    training: bool


def load_torch(layers: RecurrentLayers, module: nn.RNNBase) -> None:
    """Copy weights as `Recurrent.load_torch` says."""
    check_shapes(layers, module)
    with torch.no_grad():
        for each, names in zip(layers.cells, torch_names(module), strict=True):
            cell: Any = each
            weight, recurrent, *biases = (getattr(module, name) for name in names)
            cell.input_weight.copy_(weight)
            cell.recurrent_weight.copy_(recurrent)
            first, second = biases or (torch.zeros_like(cell.bias), torch.zeros_like(cell.bias))
            if layers.cell_name == "gru":  # the candidate's second bias is inside the reset product
                size = cell.hidden_size
                cell.candidate_bias.copy_(second[2 * size :])
                second = torch.cat([second[: 2 * size], torch.zeros_like(second[2 * size :])])
            cell.bias.copy_(first + second)


def check_shapes(layers: RecurrentLayers, module: nn.RNNBase) -> None:
    """See that a torch module is what the layers are.

    Raises:
        InputError: if not, with what either is.
    """
    cell: Any = layers.cells[0]
    own = (layers.cell_name, layers.input_size, cell.hidden_size, layers.num_layers, layers.bidirectional, 0)
    other = (
        MODES[module.mode], module.input_size, module.hidden_size,
        module.num_layers, module.bidirectional, module.proj_size,
    )  # fmt: skip
    if own != other or isinstance(cell, Wrapper):
        raise InputError(
            "Recurrent.load_torch",
            expected=f"(cell, input, hidden, layers, bidirectional, projection) = {own}, "
            "without recurrent dropout or zoneout",
            got=str(other),
        )


def to_torch(layers: RecurrentLayers) -> nn.RNNBase:
    """Make a torch module as `Recurrent.to_torch` says."""
    masked = isinstance(layers.cells[0], Wrapper) or layers.locked_dropout or layers.weight_drop > 0
    if layers.cell_name not in KINDS or layers.residual or len(layers.norms) or len(layers.initial) or masked:
        raise InputError(
            "Recurrent.to_torch",
            expected=f"one of the cells {', '.join(KINDS)} without options that torch lacks",
            got=f"cell {layers.cell_name!r} or such an option",
        )
    options: dict[str, Any] = {"nonlinearity": "relu"} if layers.cell_name == "rnn_relu" else {}
    weight: Tensor = base_cell(layers.cells[0]).input_weight  # type: ignore[arg-type, assignment]
    module = KINDS[layers.cell_name](
        layers.input_size,
        base_cell(layers.cells[0]).hidden_size,  # type: ignore[arg-type]
        layers.num_layers,
        batch_first=True,
        dropout=layers.dropout,
        bidirectional=layers.bidirectional,
        dtype=weight.dtype,
        device=weight.device,
        **options,
    )
    with torch.no_grad():
        for wrapped, names in zip(layers.cells, torch_names(module), strict=True):
            cell: Any = base_cell(wrapped)  # type: ignore[arg-type]
            input_weight, recurrent, first, second = (getattr(module, name) for name in names)
            input_weight.copy_(cell.input_weight)
            recurrent.copy_(cell.recurrent_weight)
            first.copy_(cell.bias)
            second.zero_()
            if layers.cell_name == "gru":
                second[2 * cell.hidden_size :].copy_(cell.candidate_bias)
    return module.train(layers.training)


def torch_names(module: nn.RNNBase) -> list[list[str]]:
    """Return the parameter names of each layer and direction of a torch layer: weights, then biases if it has any."""
    return [list(names) for names in module._all_weights]
