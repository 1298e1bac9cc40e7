"""Simple recurrent networks in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights


def rnn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    h = np.tanh(weights["input_weight"] @ x + weights["recurrent_weight"] @ h + weights["bias"])
    return h, (h,)


def rnn_relu_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    h = np.maximum(0.0, weights["input_weight"] @ x + weights["recurrent_weight"] @ h + weights["bias"])
    return h, (h,)


RNN = Reference(rnn_step, gates=("h",))
RNN_RELU = Reference(rnn_relu_step, gates=("h",))
IRNN = Reference(
    rnn_relu_step, shapes=lambda i, h: {"input_weight": (h, i), "recurrent_weight": (h, h), "bias": (h,)}
)  # fmt: skip
