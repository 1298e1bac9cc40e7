"""Gated cells with layer normalisation in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def layer_norm(values: Array, gain: Array) -> Array:
    centred = values - values.sum() / len(values)
    return gain * centred / np.sqrt((centred**2).sum() / len(values) + 1e-5)


def lstm_sums(weights: Weights, x: Array, h: Array) -> list[Array]:
    """Return what enters the gates i, f, g and o."""
    of_input = layer_norm(weights["input_weight"] @ x, weights["input_gain"])
    of_state = layer_norm(weights["recurrent_weight"] @ h, weights["recurrent_gain"])
    return np.split(of_input + of_state + weights["bias"], 4)


def lstm_layer_norm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c = state
    a_i, a_f, a_g, a_o = lstm_sums(weights, x, h)
    c = sigmoid(a_f) * c + sigmoid(a_i) * np.tanh(a_g)
    h = sigmoid(a_o) * np.tanh(layer_norm(c, weights["cell_gain"]) + weights["cell_bias"])
    return h, (h, c)


def lstm_state_norm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c = state
    a_i, a_f, a_g, a_o = lstm_sums(weights, x, h)
    c = layer_norm(sigmoid(a_f) * c + sigmoid(a_i) * np.tanh(a_g), weights["cell_gain"]) + weights["cell_bias"]
    h = sigmoid(a_o) * np.tanh(c)
    return h, (h, c)


def gru_layer_norm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    n = 2 * len(h)
    w, r, b = weights["input_weight"], weights["recurrent_weight"], weights["bias"]
    x_gain, h_gain = weights["input_gain"], weights["recurrent_gain"]
    sums = layer_norm(w[:n] @ x, x_gain[:n]) + layer_norm(r[:n] @ h, h_gain[:n]) + b[:n]
    reset, update = np.split(sigmoid(sums), 2)
    remembered = layer_norm(r[n:] @ h, h_gain[n:]) + weights["candidate_bias"]
    candidate = np.tanh(layer_norm(w[n:] @ x, x_gain[n:]) + b[n:] + reset * remembered)
    h = (1.0 - update) * candidate + update * h
    return h, (h,)


def lstm_shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
    return {
        "input_weight": (4 * h, i),
        "recurrent_weight": (4 * h, h),
        "bias": (4 * h,),
        "input_gain": (4 * h,),
        "recurrent_gain": (4 * h,),
        "cell_gain": (h,),
        "cell_bias": (h,),
    }


LSTM_LAYER_NORM = Reference(
    lstm_layer_norm_step,
    gates=("i", "f", "g", "o"),
    fields=("hidden", "cell"),
    vectors=("cell_bias",),
    shapes=lstm_shapes,
)
LSTM_STATE_NORM = LSTM_LAYER_NORM._replace(step=lstm_state_norm_step)
GRU_LAYER_NORM = Reference(
    gru_layer_norm_step,
    gates=("r", "z", "n"),
    vectors=("candidate_bias",),
    shapes=lambda i, h: {
        "input_weight": (3 * h, i),
        "recurrent_weight": (3 * h, h),
        "bias": (3 * h,),
        "input_gain": (3 * h,),
        "recurrent_gain": (3 * h,),
        "candidate_bias": (h,),
    },
)
