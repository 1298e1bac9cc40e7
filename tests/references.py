"""Independent references of every cell: float64 NumPy, one row and one step at a time, gate by gate.

Nothing here knows torch or rnnzoo. The letters are those of the papers; a state is a tuple of vectors [H].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
State = tuple[Array, ...]
Step = Callable[[Weights, Array, State], tuple[Array, State]]


class Reference(NamedTuple):
    """One cell in NumPy: its step, and what its weights and its state are made of."""

    step: Step
    gates: tuple[str, ...]  # in the order of their blocks
    fields: tuple[str, ...] = ("hidden",)  # of the state
    vectors: tuple[str, ...] = ()  # names of further parameters [H]

    def weights(self, seed: int, *, input_size: int, hidden_size: int) -> Weights:
        """Draw weights whose scale and bias differ from gate to gate, so that swapped gates show."""
        rng = np.random.default_rng(seed)
        blocks: dict[str, list[Array]] = {"input_weight": [], "recurrent_weight": [], "bias": []}
        for gate in range(len(self.gates)):
            scale, offset = 0.4 + 0.1 * gate, 0.3 * (gate + 1) * (-1) ** gate
            blocks["input_weight"].append(scale * rng.standard_normal((hidden_size, input_size)))
            blocks["recurrent_weight"].append(scale * rng.standard_normal((hidden_size, hidden_size)))
            blocks["bias"].append(offset + 0.2 * rng.standard_normal(hidden_size))
        weights = {name: np.concatenate(parts) for name, parts in blocks.items()}
        weights.update({name: 0.7 * rng.standard_normal(hidden_size) for name in self.vectors})
        return weights


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def rnn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    h = np.tanh(weights["input_weight"] @ x + weights["recurrent_weight"] @ h + weights["bias"])
    return h, (h,)


def rnn_relu_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    h = np.maximum(0.0, weights["input_weight"] @ x + weights["recurrent_weight"] @ h + weights["bias"])
    return h, (h,)


def lstm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c = state
    w_i, w_f, w_g, w_o = np.split(weights["input_weight"], 4)
    r_i, r_f, r_g, r_o = np.split(weights["recurrent_weight"], 4)
    b_i, b_f, b_g, b_o = np.split(weights["bias"], 4)
    i = sigmoid(w_i @ x + r_i @ h + b_i)
    f = sigmoid(w_f @ x + r_f @ h + b_f)
    g = np.tanh(w_g @ x + r_g @ h + b_g)
    o = sigmoid(w_o @ x + r_o @ h + b_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, (h, c)


def gru_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_r, w_z, w_n = np.split(weights["input_weight"], 3)
    r_r, r_z, r_n = np.split(weights["recurrent_weight"], 3)
    b_r, b_z, b_n = np.split(weights["bias"], 3)
    r = sigmoid(w_r @ x + r_r @ h + b_r)
    z = sigmoid(w_z @ x + r_z @ h + b_z)
    n = np.tanh(w_n @ x + b_n + r * (r_n @ h + weights["candidate_bias"]))
    h = (1.0 - z) * n + z * h
    return h, (h,)


def gru_reset_before_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_r, w_z, w_n = np.split(weights["input_weight"], 3)
    r_r, r_z, r_n = np.split(weights["recurrent_weight"], 3)
    b_r, b_z, b_n = np.split(weights["bias"], 3)
    r = sigmoid(w_r @ x + r_r @ h + b_r)
    z = sigmoid(w_z @ x + r_z @ h + b_z)
    n = np.tanh(w_n @ x + r_n @ (r * h) + b_n)
    h = (1.0 - z) * n + z * h
    return h, (h,)


RNN = Reference(rnn_step, gates=("h",))
RNN_RELU = Reference(rnn_relu_step, gates=("h",))
LSTM = Reference(lstm_step, gates=("i", "f", "g", "o"), fields=("hidden", "cell"))
GRU = Reference(gru_step, gates=("r", "z", "n"), vectors=("candidate_bias",))
GRU_RESET_BEFORE = Reference(gru_reset_before_step, gates=("r", "z", "n"))


def sequence(
    step: Step, weights: Weights, inputs: Array, lengths: Sequence[int], state: State, *, backward: bool = False
) -> tuple[Array, State]:
    """Run one cell over rows of different lengths, each row alone.

    Args:
        step: the cell.
        weights: its weights.
        inputs: [B, T, I].
        lengths: valid steps of each row.
        state: tuple of [B, H], the state before the first step.
        backward: go from each row's last valid step to its first.

    Returns:
        Outputs [B, T, H], zero past each row's length, and the tuple of final states [B, H].
    """
    outputs = np.zeros((*inputs.shape[:2], state[0].shape[1]))
    final = tuple(field.copy() for field in state)
    for row, length in enumerate(lengths):
        own: State = tuple(field[row] for field in state)
        for t in reversed(range(length)) if backward else range(length):
            outputs[row, t], own = step(weights, inputs[row, t], own)
        for field, value in zip(final, own, strict=True):
            field[row] = value
    return outputs, final


def stack(
    step: Step,
    weights: Sequence[Weights],
    inputs: Array,
    lengths: Sequence[int],
    states: Sequence[State],
    *,
    bidirectional: bool,
) -> tuple[Array, list[State]]:
    """Run layers of cells; weights and states lie layer 0 forward, layer 0 backward, layer 1 forward, ..."""
    directions = 2 if bidirectional else 1
    final = []
    for layer in range(len(weights) // directions):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            output, after = sequence(step, weights[place], inputs, lengths, states[place], backward=direction == 1)
            outputs.append(output)
            final.append(after)
        inputs = np.concatenate(outputs, axis=-1)
    return inputs, final
