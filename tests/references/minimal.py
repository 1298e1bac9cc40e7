"""Cells with a single gate in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def ugrnn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_z, w_n = np.split(weights["input_weight"], 2)
    r_z, r_n = np.split(weights["recurrent_weight"], 2)
    b_z, b_n = np.split(weights["bias"], 2)
    z = sigmoid(w_z @ x + r_z @ h + b_z)
    n = np.tanh(w_n @ x + r_n @ h + b_n)
    h = z * h + (1.0 - z) * n
    return h, (h,)


def mgu_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_f, w_n = np.split(weights["input_weight"], 2)
    r_f, r_n = np.split(weights["recurrent_weight"], 2)
    b_f, b_n = np.split(weights["bias"], 2)
    f = sigmoid(w_f @ x + r_f @ h + b_f)
    n = np.tanh(w_n @ x + r_n @ (f * h) + b_n)
    h = (1.0 - f) * h + f * n
    return h, (h,)


def janet_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_s, w_n = np.split(weights["input_weight"], 2)
    r_s, r_n = np.split(weights["recurrent_weight"], 2)
    b_s, b_n = np.split(weights["bias"], 2)
    s = w_s @ x + r_s @ h + b_s
    n = np.tanh(w_n @ x + r_n @ h + b_n)
    h = sigmoid(s) * h + (1.0 - sigmoid(s - 1.0)) * n  # β is 1
    return h, (h,)


UGRNN = Reference(ugrnn_step, gates=("z", "n"), initial_bias={"z": 1.0})
MGU = Reference(mgu_step, gates=("f", "n"), initial_bias={})
JANET = Reference(janet_step, gates=("f", "n"))
