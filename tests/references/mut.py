"""MUT1, MUT2 and MUT3 in NumPy; the paper's cells where x is as long as h, the projected ones elsewhere."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def mut1_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_r, w_z, *w_n = weights["input_weight"].reshape(-1, len(h), len(x))
    r_r, r_n = np.split(weights["recurrent_weight"], 2)
    b_r, b_z, b_n = np.split(weights["bias"], 3)
    z = sigmoid(w_z @ x + b_z)
    r = sigmoid(w_r @ x + r_r @ h + b_r)
    n = np.tanh(r_n @ (r * h) + np.tanh(w_n[0] @ x if w_n else x) + b_n)
    h = n * z + h * (1.0 - z)
    return h, (h,)


def mut2_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    *w_r, w_z, w_n = weights["input_weight"].reshape(-1, len(h), len(x))
    r_r, r_z, r_n = np.split(weights["recurrent_weight"], 3)
    b_r, b_z, b_n = np.split(weights["bias"], 3)
    z = sigmoid(w_z @ x + r_z @ h + b_z)
    r = sigmoid((w_r[0] @ x if w_r else x) + r_r @ h + b_r)
    n = np.tanh(r_n @ (r * h) + w_n @ x + b_n)
    h = n * z + h * (1.0 - z)
    return h, (h,)


def mut3_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    w_r, w_z, w_n = np.split(weights["input_weight"], 3)
    r_r, r_z, r_n = np.split(weights["recurrent_weight"], 3)
    b_r, b_z, b_n = np.split(weights["bias"], 3)
    z = sigmoid(w_z @ x + r_z @ np.tanh(h) + b_z)
    r = sigmoid(w_r @ x + r_r @ h + b_r)
    n = np.tanh(r_n @ (r * h) + w_n @ x + b_n)
    h = n * z + h * (1.0 - z)
    return h, (h,)


MUT1 = Reference(
    mut1_step,
    shapes=lambda i, h: {
        "input_weight": ((2 if i == h else 3) * h, i),
        "recurrent_weight": (2 * h, h),
        "bias": (3 * h,),
    },
)
MUT2 = Reference(
    mut2_step,
    shapes=lambda i, h: {
        "input_weight": ((2 if i == h else 3) * h, i),
        "recurrent_weight": (3 * h, h),
        "bias": (3 * h,),
    },
)
MUT3 = Reference(mut3_step, gates=("r", "z", "n"))
