"""Cells that are linear in their hidden state, in NumPy."""

from __future__ import annotations

import math

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def g(u: Array) -> Array:
    return np.array([x + 0.5 if x >= 0 else 1.0 / (1.0 + math.exp(-x)) for x in u])


def affine(weights: Weights, x: Array, count: int) -> list[Array]:
    """Return W x + b gate by gate."""
    return [
        weight @ x + bias
        for weight, bias in zip(
            np.split(weights["input_weight"], count), np.split(weights["bias"], count), strict=True
        )
    ]  # fmt: skip


def mingru_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    u_z, u_n = affine(weights, x, 2)
    z = sigmoid(u_z)
    h = (1.0 - z) * h + z * u_n
    return h, (h,)


def mingru_log_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    """As the paper has it: a sum of exponentials of logarithms."""
    (h,) = state
    u_z, u_n = affine(weights, x, 2)
    log_keep = -np.logaddexp(0.0, u_z)
    log_z = -np.logaddexp(0.0, -u_z)
    h = np.exp(log_keep) * h + np.exp(log_z + np.log(g(u_n)))
    return h, (h,)


def minlstm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    u_f, u_i, u_n = affine(weights, x, 3)
    f, i = sigmoid(u_f), sigmoid(u_i)
    h = f / (f + i) * h + i / (f + i) * u_n
    return h, (h,)


def minlstm_log_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    """As the paper has it: a sum of exponentials of logarithms."""
    (h,) = state
    u_f, u_i, u_n = affine(weights, x, 3)
    difference = np.logaddexp(0.0, -u_f) - np.logaddexp(0.0, -u_i)  # log i - log f
    log_f, log_i = -np.logaddexp(0.0, difference), -np.logaddexp(0.0, -difference)
    h = np.exp(log_f) * h + np.exp(log_i + np.log(g(u_n)))
    return h, (h,)


def qrnn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    c, previous = state
    now, before = np.split(weights["input_weight"], 2, axis=1)
    u_z, u_f, u_o = np.split(now @ x + previous + weights["bias"], 3)
    f = sigmoid(u_f)
    c = f * c + (1.0 - f) * np.tanh(u_z)
    return sigmoid(u_o) * c, (c, before @ x)


def sru_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (c,) = state
    size = len(c)
    rows = weights["input_weight"].reshape(-1, size, len(x))
    b_f, b_r = np.split(weights["bias"], 2)
    passed = x if len(rows) == 3 else rows[3] @ x
    f = sigmoid(rows[1] @ x + b_f)
    r = sigmoid(rows[2] @ x + b_r)
    c = f * c + (1.0 - f) * (rows[0] @ x)
    return r * np.tanh(c) + (1.0 - r) * passed * math.sqrt(3.0), (c,)  # α for a bias of 0


def lru_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    real, imaginary = state
    h = real + 1j * imaginary
    eigenvalues = np.exp(-np.exp(weights["decay_log"]) + 1j * np.exp(weights["phase_log"]))
    b_real, b_imaginary, d = np.split(weights["input_weight"], 3)
    c_real, c_imaginary = np.split(weights["output_weight"], 2, axis=1)
    h = eigenvalues * h + np.exp(weights["scale_log"]) * ((b_real + 1j * b_imaginary) @ x)
    return ((c_real + 1j * c_imaginary) @ h).real + d @ x, (h.real, h.imag)


def rg_lru_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    u = weights["input_weight"] @ x + weights["bias"]
    blocks = weights["gate_weight"]
    count, width = len(blocks) // 2, blocks.shape[1]
    products = np.zeros((2, len(u)))
    for gate in range(2):
        for block in range(count):
            rows = slice(block * width, (block + 1) * width)
            products[gate, rows] = blocks[gate * count + block] @ u[rows]
    b_r, b_i = np.split(weights["gate_bias"], 2)
    r, i = sigmoid(products[0] + b_r), sigmoid(products[1] + b_i)
    a = np.exp(-8.0 * r * np.log1p(np.exp(weights["decay"])))
    h = a * h + np.sqrt(1.0 - a**2) * (i * u)
    return h, (h,)


def hgrn_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    (h,) = state
    u_f, u_n, u_o = affine(weights, x, 3)
    f = sigmoid(u_f)  # a lower bound of 0
    h = f * h + (1.0 - f) * (u_n * sigmoid(u_n))
    gated = sigmoid(u_o) * h
    return weights["norm_weight"] * gated / np.sqrt(np.mean(gated**2) + 1e-6), (h,)


def stacked(count: int) -> dict[str, object]:
    return {"shapes": lambda i, h: {"input_weight": (count * h, i), "bias": (count * h,)}}


MINGRU = Reference(mingru_step, **stacked(2))
MINGRU_LOG = Reference(mingru_log_step, **stacked(2))
MINLSTM = Reference(minlstm_step, **stacked(3))
MINLSTM_LOG = Reference(minlstm_log_step, **stacked(3))
QRNN = Reference(
    qrnn_step,
    fields=("hidden", "previous"),
    shapes=lambda i, h: {"input_weight": (3 * h, 2 * i), "bias": (3 * h,)},
    state_shapes=lambda h: ((h,), (3 * h,)),
)
SRU = Reference(
    sru_step, shapes=lambda i, h: {"input_weight": ((3 if i == h else 4) * h, i), "bias": (2 * h,)}
)  # fmt: skip
LRU = Reference(
    lru_step,
    fields=("hidden", "imaginary"),
    shapes=lambda i, h: {
        "decay_log": (h,),
        "phase_log": (h,),
        "scale_log": (h,),
        "input_weight": (3 * h, i),
        "output_weight": (h, 2 * h),
    },
)
RG_LRU = Reference(
    rg_lru_step,
    shapes=lambda i, h: {
        "input_weight": (h, i),
        "bias": (h,),
        "gate_weight": (2 * math.gcd(16, h), h // math.gcd(16, h), h // math.gcd(16, h)),
        "gate_bias": (2 * h,),
        "decay": (h,),
    },
)
HGRN = Reference(
    hgrn_step, shapes=lambda i, h: {"input_weight": (3 * h, i), "bias": (3 * h,), "norm_weight": (h,)}
)  # fmt: skip
