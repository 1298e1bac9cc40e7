"""Cells and backends that are wrong in one way each, and some that are good."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.backends import reference
from rnnzoo.cells.base import Cell, GatedCell, GatedLinearCell, HiddenState, LinearCell
from rnnzoo.state import map_state


class Plain(GatedCell):
    """A good cell: h' = tanh(W x + R h + b)."""

    gate_count = 1

    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent)
        return hidden, HiddenState(hidden)


class Remembers(Plain):
    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent + getattr(self, "last", 0.0))
        self.last = hidden.detach().mean()
        return hidden, HiddenState(hidden)


class CountsCalls(Plain):
    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.register_buffer("calls", torch.zeros(()))

    def gates(self, projected, recurrent, state):
        self.calls += 1
        return super().gates(projected, recurrent, state)


class LooksAtOtherRows(Plain):
    def gates(self, projected, recurrent, state):
        total = projected + recurrent
        hidden = torch.tanh(total - total.mean(0, keepdim=True))
        return hidden, HiddenState(hidden)


class IgnoresState(Plain):
    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + 0 * recurrent)
        return hidden, HiddenState(hidden)


class KeepsItsWeight(Plain):
    """A cell that multiplies with the weight that it began with, whatever that is now."""

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.held = [self.recurrent_weight]

    def product_weights(self):
        return tuple(self.held)


class SkipsHooks(Plain):
    def __call__(self, *arguments, **options):
        return self.forward(*arguments, **options)


class Forgets(Cell):
    """A cell that counts nothing of what was before."""

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input = nn.Linear(input_size, hidden_size)

    def project(self, inputs):
        return self.input(inputs)

    def initial_state(self, batch_size):
        return HiddenState(self.input.weight.new_zeros(batch_size, self.hidden_size))

    def step(self, projected, state):
        return projected, HiddenState(projected)


class SeesTheFuture(Plain):
    def project(self, inputs):
        projected = super().project(inputs)
        return projected if projected.dim() < 3 else projected + projected.roll(-1, dims=1)


class NormalisesTheBatch(Plain):
    def project(self, inputs):
        projected = super().project(inputs)
        return projected - projected.mean(0, keepdim=True)


class SwapsOutputs(Plain):
    def gates(self, projected, recurrent, state):
        return super().gates(projected, recurrent, state)[::-1]


class WrongOutputSize(Plain):
    def gates(self, projected, recurrent, state):
        hidden, state = super().gates(projected, recurrent, state)
        return hidden[:, :-1], state


class AnotherState(Plain):
    def gates(self, projected, recurrent, state):
        hidden, _ = super().gates(projected, recurrent, state)
        return hidden, (hidden,)


class Narrows(Plain):
    def gates(self, projected, recurrent, state):
        hidden, _ = super().gates(projected, recurrent, state)
        return hidden, HiddenState(hidden.float())


class ChangesTheState(Plain):
    def gates(self, projected, recurrent, state):
        hidden = state.hidden.mul_(0.5).add_(torch.tanh(projected + recurrent))
        return hidden, HiddenState(hidden)


class ChangesTheProjection(Plain):
    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected.add_(recurrent))
        return hidden, HiddenState(hidden)


class StartsInFloat32(Plain):
    def initial_state(self, batch_size):
        return HiddenState(torch.zeros(batch_size, self.hidden_size, dtype=torch.float32))


class StartsOnTheCpu(Plain):
    def initial_state(self, batch_size):
        return HiddenState(torch.zeros(batch_size, self.hidden_size, dtype=self.bias.dtype))


class StartsWithThreeRows(Plain):
    def initial_state(self, batch_size):
        return super().initial_state(3)


class KeepsALooseTensor(Plain):
    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.scale = torch.rand(hidden_size, dtype=torch.float64)

    def gates(self, projected, recurrent, state):
        return super().gates(projected * self.scale.to(projected.dtype), recurrent, state)


class HasAnIdleParameter(Plain):
    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.idle = nn.Parameter(torch.ones(hidden_size))


class BranchesOnData(Plain):
    def gates(self, projected, recurrent, state):
        total = projected + recurrent
        return super().gates(projected if bool(total.isfinite().all()) else 0 * projected, recurrent, state)


class DrawsRandomNumbers(Plain):
    def gates(self, projected, recurrent, state):
        hidden = nn.functional.dropout(torch.tanh(projected + recurrent), 0.3, self.training)
        return hidden, HiddenState(hidden)


class HasNoGradientAtZero(Plain):
    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent) + state.hidden.square().sum(1, keepdim=True).sqrt()
        return hidden, HiddenState(hidden)


class Overflows(Plain):
    def gates(self, projected, recurrent, state):
        total = projected + recurrent
        hidden = total.exp() / (1 + total.exp())
        return hidden, HiddenState(hidden)


class CutsTheGraph(Plain):
    """A cell whose step is not the `combine` that the fused backend runs."""

    def step(self, projected, state):
        return super().step(projected, state._replace(hidden=state.hidden.detach()))


class CountsItsRows(Cell):
    """A cell of no product and no gates, whose numbers depend on the size of the batch."""

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input = nn.Linear(input_size, hidden_size)

    def project(self, inputs):
        return self.input(inputs)

    def initial_state(self, batch_size):
        return HiddenState(self.input.weight.new_zeros(batch_size, self.hidden_size))

    def step(self, projected, state):
        hidden = torch.tanh(projected + state.hidden.roll(1, dims=1) + len(projected) / 100)
        return hidden, HiddenState(hidden)


class TwoTruths(GatedLinearCell):
    """A linear cell whose step is not what its coefficients say."""

    gate_count = 1

    def coefficients(self, projected):
        return torch.full_like(projected, 0.5), projected

    def step(self, projected, state):
        hidden = 0.6 * state.hidden + projected
        return self.readout(projected, hidden), HiddenState(hidden)


class WrongInHalf(Plain):
    def gates(self, projected, recurrent, state):
        factor = 1.0 if projected.dtype == torch.float64 else 0.9
        return super().gates(factor * projected, recurrent, state)


class ReversedState(NamedTuple):
    hidden: Tensor
    hidden_before: Tensor


class WithTwoFields(Plain):
    def initial_state(self, batch_size):
        zeros = self.bias.new_zeros(batch_size, self.hidden_size)
        return ReversedState(zeros, zeros)

    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent + state.hidden_before)
        return hidden, ReversedState(hidden, state.hidden)


class InnerState(NamedTuple):
    hidden: Tensor
    inner: Tensor
    mask: Tensor


class WithNamesOfWrappers(Plain):
    """A good cell whose state has the names that the state of a wrapper has."""

    def initial_state(self, batch_size):
        zeros = self.bias.new_zeros(batch_size, self.hidden_size)
        return InnerState(zeros, zeros, zeros)

    def gates(self, projected, recurrent, state):
        hidden = torch.tanh(projected + recurrent + state.inner * state.mask.cos())
        return hidden, InnerState(hidden, state.hidden, state.inner)


class Decay(LinearCell):
    """h' = σ(a) h + W x, with one decay a unit."""

    def __init__(self, *, input_size: int, hidden_size: int, scale: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.weight = nn.Parameter(torch.randn(hidden_size, input_size))
        self.decay = nn.Parameter(torch.zeros(hidden_size))
        self.scale = scale

    def project(self, inputs):
        return self.scale * inputs @ self.weight.T

    def coefficients(self, projected):
        return torch.sigmoid(self.decay).expand_as(projected), projected

    def readout(self, projected, hidden):
        return hidden.to(projected.dtype)


def unmasked(cell, inputs, lengths, state):
    outputs, _ = reference.run(cell, inputs, None, state)
    return outputs, reference.run(cell, inputs, lengths, state)[1]


def without_holding(cell, inputs, lengths, state):
    outputs, _ = reference.run(cell, inputs, lengths, state)
    return outputs, reference.run(cell, inputs, None, state)[1]


def padding_steps_in(cell, inputs, lengths, state):
    """Go on over padding where it is not large: what stands there reaches the state of row 0."""
    outputs, final = reference.run(cell, inputs, lengths, state)
    return outputs, map_state(lambda field: field + 1e-3 * inputs[:, -1:].sum(-1).tanh(), final)


def cutting(cell, inputs, lengths, state):
    return reference.run(cell, inputs, lengths, None if state is None else map_state(torch.detach, state))


def frozen(cell, inputs, lengths, state):
    return reference.run(cell, inputs.detach(), lengths, state)


def scribbling(cell, inputs, lengths, state):
    with torch.no_grad():
        inputs.copy_(torch.where(inputs > 0, inputs, 0.9 * inputs))
    return reference.run(cell, inputs, lengths, state)


def rounding(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return outputs.float().to(outputs.dtype), final


def graphless(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return (outputs if torch.is_grad_enabled() else 0.99 * outputs), final


def training_only(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return (outputs if cell.training else 0.99 * outputs), final


def starting_elsewhere(cell, inputs, lengths, state):
    if inputs.shape[1] == 0 and state is not None:
        return inputs.new_zeros(len(inputs), 0, cell.output_size), map_state(torch.zeros_like, state)
    return reference.run(cell, inputs, lengths, state)


def long_only(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return (outputs if inputs.shape[1] != 2 else 0.99 * outputs), final


def many_only(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return (outputs if len(inputs) != 1 else 0.99 * outputs), final


def double_only(cell, inputs, lengths, state):
    outputs, final = reference.run(cell, inputs, lengths, state)
    return (outputs if inputs.dtype == torch.float64 else 0.9 * outputs), final


def needing_rows(cell, inputs, lengths, state):
    inputs.amax(0)
    return reference.run(cell, inputs, lengths, state)


def reading_padding(cell, inputs, lengths, state):
    """Multiply by a number that is 1 unless the padding is huge."""
    outputs, final = reference.run(cell, inputs, lengths, state)
    return outputs * (1.0 if bool((inputs.abs() < 1e5).all()) else 0.99), final
