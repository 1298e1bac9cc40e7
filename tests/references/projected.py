"""The projected LSTM in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def lstm_projected_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c = state
    w_i, w_f, w_g, w_o = np.split(weights["input_weight"], 4)
    r_i, r_f, r_g, r_o = np.split(weights["recurrent_weight"], 4)
    b_i, b_f, b_g, b_o = np.split(weights["bias"], 4)
    i = sigmoid(w_i @ x + r_i @ h + b_i)
    f = sigmoid(w_f @ x + r_f @ h + b_f)
    g = np.tanh(w_g @ x + r_g @ h + b_g)
    o = sigmoid(w_o @ x + r_o @ h + b_o)
    c = f * c + i * g
    h = weights["projection_weight"] @ (o * np.tanh(c))
    return h, (h, c)


LSTM_PROJECTED = Reference(
    lstm_projected_step,
    fields=("hidden", "cell"),
    shapes=lambda i, h: {
        "input_weight": (4 * h, i),
        "recurrent_weight": (4 * h, h // 2),
        "projection_weight": (h // 2, h),
        "bias": (4 * h,),
    },
    state_shapes=lambda h: ((h // 2,), (h,)),
)
