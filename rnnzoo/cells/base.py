"""What a cell is: a projection of its input, a state, and one step.

Letters: B batch, I input, H hidden, O output, P projected input.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnnzoo.cells.views import with_computed_weights
from rnnzoo.errors import InputError, did_you_mean
from rnnzoo.numerics import wide
from rnnzoo.state import State


class HiddenState(NamedTuple):
    """The state of a cell that remembers its hidden vector alone."""

    hidden: Tensor  # [B, H]


class Run(Protocol):
    """What runs a cell: a backend, over all steps, or `run_one_step`."""

    def __call__(self, cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Return outputs and state."""
        ...


class Cell(nn.Module, ABC):
    """Any recurrence: a backend runs it over time, through `project` once and `step` for each step.

    Its state is a NamedTuple of tensors, batch first, of which one is ``hidden``, a vector a row: what an attention
    asks with. No row of a batch looks at another one, and nothing is remembered outside the state.

    Attributes:
        fixed_fields: fields of the state that no other layer may set (a normaliser): they start as the cell says.
        gate_names: letters of the sigmoids of a step, in the order in which it computes them, the same letter for a
            gate that it computes again; for reports alone. A subclass with equations of its own names its own.
        tanh_names: likewise of the hyperbolic tangents of a step: ``g`` or ``n`` for what may be written to the state.

    Args:
        input_size: I.
        hidden_size: H.
        output_size: O, the numbers that a step puts out; H unless the cell says otherwise.

    Raises:
        InputError: if a size is below 1.
    """

    fixed_fields: ClassVar[tuple[str, ...]] = ()
    gate_names: ClassVar[tuple[str, ...]] = ()
    tanh_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, input_size: int, hidden_size: int, output_size: int | None = None) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise InputError(f"{type(self).__name__}.{name}", expected="at least 1", got=str(size))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size if output_size is None else output_size

    def forward(self, inputs: Tensor, lengths: Tensor | None, state: State, *, run: Run) -> tuple[Tensor, State]:
        """Let `run` run this cell: the one way in which layers do, so that hooks act as on any other module.

        Weights that are computed from others (`torch.nn.utils.prune`, parametrizations) are parameters of the cell that
        `run` gets, see `rnnzoo.cells.views.with_computed_weights`.

        Args:
            inputs: [B, T, I]; [B, I] of one step.
            lengths: [B] valid steps of each row; None means all.
            state: the state before the first step.
            run: a backend, or `run_one_step`.

        Returns:
            Outputs [B, T, O], or [B, O] of one step, and the state after the last step.
        """
        return run(with_computed_weights(self), inputs, lengths, state)

    def zeros(self, *size: int, widened: bool = False) -> Tensor:
        """Return zeros on the device and in the type of the parameters, or in the `wide` one."""
        like = next(self.parameters())
        return like.new_zeros(size, dtype=wide(like.dtype) if widened else None)

    @abstractmethod
    def project(self, inputs: Tensor) -> Tensor:
        """Compute everything that does not need the state: [..., I] → [..., P], one product for all steps."""

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """Return the state before the first step, zeros on the device and dtype of the parameters."""

    @abstractmethod
    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step: projected input [B, P] and state → output [B, O] and state."""


def run_one_step(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Do one step of a cell: inputs [B, I] and state → outputs [B, O] and state."""
    return cell.step(cell.project(inputs), state)


class AffineCell(Cell, ABC):
    """A cell that projects its input by one product, W x + b, which a backend may make part by part.

    W is ``input_weight`` [P, I] and b is ``bias`` [P].
    """

    input_weight: nn.Parameter
    bias: nn.Parameter

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return W [P, I] and b [P]."""
        return self.input_weight, self.bias

    def project(self, inputs: Tensor) -> Tensor:
        """Return W x + b: [..., I] → [..., P]."""
        return F.linear(inputs, *self.affine())


class StagedCell(Cell, ABC):
    """A cell whose step is a few matrix products, one after the other, and row-wise functions before and after them.

    p_k = W_k a_k(x, p_1 ... p_{k-1}, s)    y, s' = combine(x, p_1 ... p_n, s)

    with the projected input x and the state s. All a_k (`operand`) and `combine` are pure, and no row of the batch
    looks at another one; they may use parameters of the cell that are small (peepholes, gains). This form is all that
    the ``fused`` backend needs: it takes the derivatives by itself. n may be 0. Code that asks how many rows there are
    asks ``x.shape[0]``: ``len(x)`` is one number, and what holds for one alone is not compiled.
    """

    @abstractmethod
    def product_weights(self) -> tuple[Tensor, ...]:
        """Return W_1 ... W_n: [P_k, K_k] each."""

    @abstractmethod
    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: State) -> Tensor:
        """Return what the product `index` multiplies, a_k [B, K_k], from the products before it, [B, P_j] each."""

    @abstractmethod
    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """Combine x [B, P] and all products with the state → output [B, O] and state."""

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step: product by product, then `combine`."""
        products: tuple[Tensor, ...] = ()
        for index, weight in enumerate(self.product_weights()):
            products = (*products, F.linear(self.operand(index, projected, products, state), weight))
        return self.combine(projected, products, state)


class GatedCell(AffineCell, StagedCell, ABC):
    """A cell in which the hidden state enters by one matrix product and the rest is pointwise.

    The gates are stacked in ``gate_count`` blocks of H rows: ``input_weight`` [G·H, I], ``recurrent_weight`` [G·H, H]
    and one ``bias`` [G·H] for both. Only `gates` is left to write.

    Input weights are drawn from U(-1/√I, 1/√I), recurrent weights are orthogonal block by block, biases are zero.
    """

    gate_count: int

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        rows = self.gate_count * hidden_size
        self.input_weight = nn.Parameter(torch.empty(rows, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(rows, hidden_size))
        self.bias = nn.Parameter(torch.zeros(rows))
        draw_weights(self.input_weight, self.recurrent_weight)

    def initial_state(self, batch_size: int) -> State:
        """Return zeros."""
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return R [G·H, H]."""
        return (self.recurrent_weight,)

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: State) -> Tensor:
        """Return h."""
        return state.hidden

    @abstractmethod
    def gates(self, projected: Tensor, recurrent: Tensor, state: State) -> tuple[Tensor, State]:
        """Combine W x + b and R h, both [B, G·H], with the state, pointwise → output [B, H] and state."""

    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        """Compute the gates from the one product."""
        return self.gates(projected, products[0], state)


class LinearCell(Cell, ABC):
    """A cell that is linear in its hidden state: the gates see the input alone, so that time can be scanned.

    h' = a ⊙ h + b    with a and b free of h, real or complex; y = readout(x, h')
    """

    def initial_state(self, batch_size: int) -> State:
        """Return zeros, in float32 or wider: a sum over a thousand steps needs the digits."""
        return HiddenState(self.zeros(batch_size, self.hidden_size, widened=True))

    @abstractmethod
    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b, [..., N] each, for projected inputs [..., P] of one step or of all."""

    @abstractmethod
    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return the outputs [..., O] of hidden states [..., N] after the step."""

    def unpack(self, state: State) -> Tensor:
        """Return the hidden state as the one tensor h [B, N] that is scanned."""
        return state.hidden

    def pack(self, hidden: Tensor, state: State) -> State:
        """Return `state` with h [B, N] in it."""
        return state._replace(hidden=hidden)

    def project_sequence(self, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
        """Project all steps [B, T, I] of rows of `lengths` [B] at once.

        Returns:
            What `coefficients` and `readout` need of each step, [B, T, P], and the state whose fields besides h are
            those after each row's last step. A cell that looks at earlier inputs has to write this by itself, and
            `step` with it.
        """
        return self.project(inputs), state

    def step(self, projected: Tensor, state: State) -> tuple[Tensor, State]:
        """Do one step of the recurrence."""
        decay, addition = self.coefficients(projected)
        hidden = decay * self.unpack(state) + addition
        return self.readout(projected, hidden), self.pack(hidden, state)


class GatedLinearCell(AffineCell, LinearCell, ABC):
    """A linear cell whose gates are one product of the input: only `coefficients`, and maybe `readout`, is left.

    The gates are stacked in ``gate_count`` blocks of H rows: ``input_weight`` [G·H, I], drawn from U(-1/√I, 1/√I), and
    ``bias`` [G·H] of zeros.
    """

    gate_count: int

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(self.gate_count * hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(self.gate_count * hidden_size))
        draw_weights(self.input_weight)

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return h in the type of the inputs."""
        return hidden.to(projected.dtype)


def draw_weights(input_weight: Tensor, *recurrent_weights: Tensor) -> None:
    """Draw input weights [.., I] from U(-1/√I, 1/√I) and recurrent ones orthogonal, square block by square block."""
    bound = input_weight.shape[1] ** -0.5
    nn.init.uniform_(input_weight, -bound, bound)
    for weight in recurrent_weights:
        for block in weight.data.split(weight.shape[1]):
            nn.init.orthogonal_(block)


def check_options(name: str, kind: type[Cell], options: Mapping[str, Any]) -> None:
    """Refuse options that a cell does not have.

    Raises:
        InputError: naming the options that there are.
    """
    known = [key for key in inspect.signature(kind).parameters if key not in ("input_size", "hidden_size")]
    for key in options:
        if key not in known:
            listed = f"one of {', '.join(known)}" if known else "no options"
            raise InputError(f"options of cell {name!r}", expected=listed, got=repr(key), fix=did_you_mean(key, known))
