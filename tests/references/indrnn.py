"""Independently recurrent networks in NumPy."""

from __future__ import annotations

import numpy as np

from references.base import Array, Reference, State, Weights


def indrnn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    h = np.maximum(0.0, weights["input_weight"] @ x + weights["recurrent_scale"] * h + weights["bias"])
    return h, (h,)


INDRNN = Reference(
    indrnn_step, shapes=lambda i, h: {"input_weight": (h, i), "recurrent_scale": (h,), "bias": (h,)}
)  # fmt: skip
