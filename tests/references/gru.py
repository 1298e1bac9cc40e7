"""Gated recurrent units in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


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


GRU = Reference(gru_step, gates=("r", "z", "n"), vectors=("candidate_bias",))
GRU_RESET_BEFORE = Reference(gru_reset_before_step, gates=("r", "z", "n"))
