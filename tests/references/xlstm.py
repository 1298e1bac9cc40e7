"""The cells of xLSTM in NumPy: c, n and C as they are, scaled by exp(m) only where the state says so."""

from __future__ import annotations

import math

import numpy as np

from references.base import Array, Reference, State, Weights, sigmoid


def slstm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    h, c, n, m = state
    a_i, a_f, a_g, a_o = np.split(weights["input_weight"] @ x + weights["recurrent_weight"] @ h + weights["bias"], 4)
    c, n = c * np.exp(m), n * np.exp(m)  # without stabiliser
    new_m = np.where(n == 0, a_i, np.maximum(np.log(sigmoid(a_f)) + m, a_i))
    c = sigmoid(a_f) * c + np.exp(a_i) * np.tanh(a_g)
    n = sigmoid(a_f) * n + np.exp(a_i)
    h = sigmoid(a_o) * c / n
    return h, (h, c / np.exp(new_m), n / np.exp(new_m), new_m)


def mlstm_step(weights: Weights, x: Array, state: State) -> tuple[Array, State]:
    _, memory, normaliser, m = state
    heads, d = normaliser.shape
    sums = weights["input_weight"] @ x + weights["bias"]
    q, k, v, o = (part.reshape(heads, d) for part in np.split(sums[: 4 * heads * d], 4))
    a_i, a_f = np.split(sums[4 * heads * d :], 2)
    hidden, new_memory, new_normaliser, new_m = [], [], [], []
    for head in range(heads):
        i, f = math.exp(a_i[head]), 1.0 / (1.0 + math.exp(-a_f[head]))
        key = k[head] / math.sqrt(d)
        big = f * memory[head] * math.exp(m[head]) + i * np.outer(key, v[head])  # without stabiliser
        n = f * normaliser[head] * math.exp(m[head]) + i * key
        now = max(math.log(f) + m[head], a_i[head])
        read = big.T @ q[head] / (max(abs(q[head] @ n), 1.0) + 1e-6 * math.exp(now))
        hidden.append(sigmoid(o[head]) * read)
        new_memory.append(big / math.exp(now))
        new_normaliser.append(n / math.exp(now))
        new_m.append(now)
    h = np.concatenate(hidden)
    return h, (h, np.array(new_memory), np.array(new_normaliser), np.array(new_m))


SLSTM = Reference(
    slstm_step,
    gates=("i", "f", "g", "o"),
    fields=("hidden", "cell", "normaliser", "stabiliser"),
    positive=("normaliser",),
)
MLSTM = Reference(
    mlstm_step,
    fields=("hidden", "memory", "normaliser", "stabiliser"),
    shapes=lambda i, h: {
        "input_weight": (4 * h + 2 * math.gcd(4, h), i),
        "bias": (4 * h + 2 * math.gcd(4, h),),
    },
    state_shapes=lambda h: (
        (h,),
        (math.gcd(4, h), h // math.gcd(4, h), h // math.gcd(4, h)),
        (math.gcd(4, h), h // math.gcd(4, h)),
        (math.gcd(4, h),),
    ),
    passive=("hidden",),
)
