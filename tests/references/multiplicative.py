"""The multiplicative LSTM in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def multiplicative_lstm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c = state
    w_m, w_i, w_f, w_g, w_o = np.split(weights["input_weight"], 5)
    r_m, r_i, r_f, r_g, r_o = np.split(weights["recurrent_weight"], 5)
    b_i, b_f, b_g, b_o = np.split(weights["bias"], 4)
    m = (w_m @ x) * (r_m @ h)
    i = sigmoid(w_i @ x + r_i @ m + b_i)
    f = sigmoid(w_f @ x + r_f @ m + b_f)
    g = np.tanh(w_g @ x + r_g @ m + b_g)
    o = sigmoid(w_o @ x + r_o @ m + b_o)
    c = f * c + i * g
    h = o * np.tanh(c)
    return h, (h, c)


MULTIPLICATIVE_LSTM = Reference(
    multiplicative_lstm_step,
    fields=("hidden", "cell"),
    shapes=lambda i, h: {"input_weight": (5 * h, i), "recurrent_weight": (5 * h, h), "bias": (4 * h,)},
)
