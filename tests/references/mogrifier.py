"""The Mogrifier in NumPy."""

from __future__ import annotations

from references.base import Array, Reference, State, Weights, sigmoid
from references.lstm import lstm_step


def mogrifier_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    """As the paper has it, with Q for rounds 1, 3 and 5, and R for rounds 2 and 4."""
    h, c = state
    q_1, r_2, q_3, r_4, q_5 = (weights[f"modulations.{k}"] for k in range(5))
    x_1 = 2.0 * sigmoid(q_1 @ h) * x
    h_2 = 2.0 * sigmoid(r_2 @ x_1) * h
    x_3 = 2.0 * sigmoid(q_3 @ h_2) * x_1
    h_4 = 2.0 * sigmoid(r_4 @ x_3) * h_2
    x_5 = 2.0 * sigmoid(q_5 @ h_4) * x_3
    return lstm_step(weights, x_5, (h_4, c))


def shapes(i: int, h: int) -> dict[str, tuple[int, ...]]:
    rounds = {f"modulations.{k}": (h, i) if k % 2 else (i, h) for k in range(5)}
    return {"input_weight": (4 * h, i), "recurrent_weight": (4 * h, h), "bias": (4 * h,), **rounds}


MOGRIFIER = Reference(mogrifier_step, gates=("i", "f", "g", "o"), fields=("hidden", "cell"), shapes=shapes)
