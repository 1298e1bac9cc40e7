"""Independent references of every cell: float64 NumPy, one row and one step at a time, gate by gate.

Nothing here knows torch or rnnzoo. The letters are those of the papers; a state is a tuple of vectors [H].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = dict[str, Array]
State = tuple[Array, ...]
Step = Callable[[Weights, Array, State], tuple[Array, State]]


class Reference(NamedTuple):
    """One cell in NumPy: its step, and what its weights and its state are made of.

    Without `shapes` the weights are those of a `GatedCell`: one block a gate. With `shapes` they are what it says;
    with `gates` as well, those of a `GatedCell` and others.
    """

    step: Step
    gates: tuple[str, ...] = ()  # in the order of their blocks
    fields: tuple[str, ...] = ("hidden",)  # of the state
    vectors: tuple[str, ...] = ()  # names of further parameters [H]
    shapes: Callable[[int, int], dict[str, tuple[int, ...]]] | None = None  # (I, H) → name → shape
    state_shapes: Callable[[int], tuple[tuple[int, ...], ...]] | None = None  # H → shape of each field of a row
    positive: tuple[str, ...] = ()  # fields of the state that are above 0 in every state that can be reached
    passive: tuple[str, ...] = ()  # fields of the state that a step sets and never reads
    initial_bias: Mapping[str, float] = MappingProxyType({"f": 1.0})  # gate → its bias at the start, unless 0

    def weights(self, seed: int, *, input_size: int, hidden_size: int) -> Weights:
        """Draw weights whose scale and offset differ from gate to gate, so that swapped gates show."""
        rng = np.random.default_rng(seed)
        if self.shapes is not None:
            return {
                name: draw(rng, place, shape, hidden_size)
                for place, (name, shape) in enumerate(self.shapes(input_size, hidden_size).items())
            }
        blocks: dict[str, list[Array]] = {"input_weight": [], "recurrent_weight": [], "bias": []}
        for gate in range(len(self.gates)):
            scale, offset = 0.4 + 0.1 * gate, 0.3 * (gate + 1) * (-1) ** gate
            blocks["input_weight"].append(scale * rng.standard_normal((hidden_size, input_size)))
            blocks["recurrent_weight"].append(scale * rng.standard_normal((hidden_size, hidden_size)))
            blocks["bias"].append(offset + 0.2 * rng.standard_normal(hidden_size))
        weights = {name: np.concatenate(parts) for name, parts in blocks.items()}
        weights.update({name: 0.7 * rng.standard_normal(hidden_size) for name in self.vectors})
        return weights

    def state(self, rng: np.random.Generator, batch_size: int, hidden_size: int) -> State:
        """Draw a state of `batch_size` rows that differs in every number."""
        shapes = ((hidden_size,),) * len(self.fields) if self.state_shapes is None else self.state_shapes(hidden_size)
        drawn = [0.5 * rng.standard_normal((batch_size, *shape)) for shape in shapes]
        return tuple(
            np.abs(field) + 0.1 if name in self.positive else field
            for name, field in zip(self.fields, drawn, strict=True)
        )


def draw(rng: np.random.Generator, place: int, shape: tuple[int, ...], hidden_size: int) -> Array:
    """Draw one parameter: each block of H rows has its own scale, and vectors their own offset."""
    values = (0.4 + 0.05 * place) * rng.standard_normal(shape)
    for block in range(-(-shape[0] // hidden_size)):
        rows = slice(block * hidden_size, (block + 1) * hidden_size)
        values[rows] *= 1.0 + 0.3 * block
        if len(shape) == 1:
            values[rows] += 0.3 * (block + 1) * (-1) ** (block + place)
    return values


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def sequence(
    step: Step,
    weights: Weights,
    inputs: Array,
    lengths: Sequence[int],
    state: State,
    *,
    backward: bool = False,
    output_size: int | None = None,
) -> tuple[Array, State]:
    """Run one cell over rows of different lengths, each row alone.

    Args:
        step: the cell.
        weights: its weights.
        inputs: [B, T, I].
        lengths: valid steps of each row.
        state: tuple of [B, ...], the state before the first step.
        backward: go from each row's last valid step to its first.
        output_size: O; None takes the size of the state's first field.

    Returns:
        Outputs [B, T, O], zero past each row's length, and the tuple of final states.
    """
    outputs = np.zeros((*inputs.shape[:2], output_size or state[0].shape[1]))
    final = tuple(field.copy() for field in state)
    for row, length in enumerate(lengths):
        own: State = tuple(field[row] for field in state)
        for t in reversed(range(length)) if backward else range(length):
            outputs[row, t], own = step(weights, inputs[row, t], own)
        for field, value in zip(final, own, strict=True):
            field[row] = value
    return outputs, final


def stack(
    step: Step,
    weights: Sequence[Weights],
    inputs: Array,
    lengths: Sequence[int],
    states: Sequence[State],
    *,
    bidirectional: bool,
    output_size: int | None = None,
) -> tuple[Array, list[State]]:
    """Run layers of cells; weights and states lie layer 0 forward, layer 0 backward, layer 1 forward, ..."""
    directions = 2 if bidirectional else 1
    final = []
    for layer in range(len(weights) // directions):
        outputs = []
        for direction in range(directions):
            place = layer * directions + direction
            output, after = sequence(
                step, weights[place], inputs, lengths, states[place], backward=direction == 1, output_size=output_size
            )
            outputs.append(output)
            final.append(after)
        inputs = np.concatenate(outputs, axis=-1)
    return inputs, final
