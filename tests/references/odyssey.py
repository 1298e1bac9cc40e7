"""The LSTM with peepholes and its variants in NumPy, part by part: what is taken away is an argument."""

from __future__ import annotations

from functools import partial

import numpy as np

from references.base import Array, Reference, State, Step, Weights, sigmoid


def identity(x: Array) -> Array:
    return x


def odyssey_step(
    weights: Weights,
    x: Array,
    state: State,
    *,
    blocks: tuple[str, ...] = ("i", "f", "g", "o"),
    coupled: bool = False,
    squash_input: Step = np.tanh,
    squash_output: Step = np.tanh,
) -> tuple[Array, State]:
    """As the paper has it, with g for its block input z and h for its block output y."""
    y, c, *gates_before = state
    sums = {
        name: w @ x + r @ y + b
        for name, w, r, b in zip(
            blocks,
            np.split(weights["input_weight"], len(blocks)),
            np.split(weights["recurrent_weight"], len(blocks)),
            np.split(weights["bias"], len(blocks)),
            strict=True,
        )
    }
    if gates_before:
        for row, gate in enumerate("ifo"):
            for column, before in enumerate(gates_before):
                n = len(y)
                matrix = weights["gate_weight"][row * n : (row + 1) * n, column * n : (column + 1) * n]
                sums[gate] = sums[gate] + matrix @ before
    one = np.ones_like(c)
    z = squash_input(sums["g"])
    i = sigmoid(sums["i"] + weights["input_peephole"] * c) if "i" in blocks else one
    f = sigmoid(sums["f"] + weights["forget_peephole"] * c) if "f" in blocks else one
    if coupled:
        f = one - i
    c = z * i + c * f
    o = sigmoid(sums["o"] + weights["output_peephole"] * c) if "o" in blocks else one
    y = squash_output(c) * o
    return y, ((y, c, i, f, o) if gates_before else (y, c))


def variant(**parts: object) -> Reference:
    """Return the reference of the cell with other parts."""
    blocks = tuple(parts.get("blocks", "ifgo"))
    names = {"i": "input_peephole", "f": "forget_peephole", "o": "output_peephole"}
    return Reference(
        partial(odyssey_step, **{**parts, "blocks": blocks}),
        gates=blocks,
        fields=("hidden", "cell"),
        vectors=tuple(names[gate] for gate in blocks if gate in names),
        initial_bias={"i": -1.0} if parts.get("coupled") else {"f": 1.0},
    )


PEEPHOLE = variant()
NIG = variant(blocks="fgo")
NFG = variant(blocks="igo")
NOG = variant(blocks="ifg")
NIAF = variant(squash_input=identity)
NOAF = variant(squash_output=identity)
CIFG = variant(blocks="igo", coupled=True)
FGR = Reference(
    odyssey_step,
    gates=("i", "f", "g", "o"),
    fields=("hidden", "cell", "input_gate", "forget_gate", "output_gate"),
    vectors=("input_peephole", "forget_peephole", "output_peephole"),
    shapes=lambda i, h: {
        "input_weight": (4 * h, i),
        "recurrent_weight": (4 * h, h),
        "gate_weight": (3 * h, 3 * h),
        "bias": (4 * h,),
        "input_peephole": (h,),
        "forget_peephole": (h,),
        "output_peephole": (h,),
    },
)
