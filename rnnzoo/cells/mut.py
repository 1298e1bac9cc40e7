"""The three cells that a search over ten thousand architectures found: MUT1, MUT2 and MUT3."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import AffineCell, HiddenState, StagedCell, draw_weights


class MutCell(StagedCell):
    """What the three have in common: a reset gate before the candidate's product, and an update gate.

    h' = z ⊙ n + (1 - z) ⊙ h

    Block order r, z, n, blocks that a cell lacks left out; one ``bias`` [3·H]. An open z takes the new value.

    Source: Jozefowicz, Zaremba & Sutskever 2015, "An Empirical Exploration of Recurrent Network Architectures".
    """

    gate_names = ("r", "z")
    tanh_names: ClassVar[tuple[str, ...]] = ("n",)

    def __init__(self, *, input_size: int, hidden_size: int, input_blocks: int, recurrent_blocks: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(input_blocks * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(recurrent_blocks * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(3 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight)

    def initial_state(self, batch_size: int) -> HiddenState:
        """Return zeros."""
        return HiddenState(self.zeros(batch_size, self.hidden_size))

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState) -> Tensor:
        """Return h, then r ⊙ h."""
        if index == 0:
            return state.hidden
        size = self.hidden_size
        return torch.sigmoid(projected[..., :size] + products[0][..., :size]) * state.hidden

    @abstractmethod
    def update(self, projected: Tensor, products: tuple[Tensor, ...]) -> Tensor:
        """Return what the update gate z [B, H] is the logistic function of."""

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState
    ) -> tuple[Tensor, HiddenState]:
        """Compute the update gate, the candidate (the last product is its own) and the new state."""
        gate = torch.sigmoid(self.update(projected, products))
        candidate = torch.tanh(projected[..., 2 * self.hidden_size :] + products[-1])
        hidden = state.hidden + gate * (candidate - state.hidden)
        return hidden, HiddenState(hidden)


class MUT1Cell(MutCell):
    """MUT1: the update gate sees the input alone, and the candidate is driven by tanh(x).

    r = σ(W_r x + R_r h + b_r)    z = σ(W_z x + b_z)
    n = tanh(R_n (r ⊙ h) + tanh(x) + b_n)
    h' = z ⊙ n + (1 - z) ⊙ h

    This adds an input to a state, so it is the paper's cell only where I = H: ``input_weight`` [2·H, I]. Elsewhere
    W_n x takes the place of that bare x, ``input_weight`` [3·H, I], which is another model. ``recurrent_weight`` is
    [2·H, H], the blocks r and n.

    Args:
        input_size: I.
        hidden_size: H.
        project_input: take W_n x even where I = H.

    Source: see `MutCell`.
    """

    def __init__(self, *, input_size: int, hidden_size: int, project_input: bool = False) -> None:
        projects = project_input or input_size != hidden_size
        super().__init__(input_size=input_size, hidden_size=hidden_size, input_blocks=2 + projects, recurrent_blocks=2)
        self.project_input = projects

    def project(self, inputs: Tensor) -> Tensor:
        """Return W_r x + b_r, W_z x + b_z and tanh(x) + b_n: [..., I] → [..., 3·H]."""
        size = 2 * self.hidden_size
        driven = F.linear(inputs, self.input_weight)  # [..., 3·H], or [..., 2·H] for a bare x
        bare = driven[..., size:] if self.project_input else inputs  # [..., H]
        return torch.cat((driven[..., :size], torch.tanh(bare)), dim=-1) + self.bias

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the reset gate and of the candidate, [H, H] each."""
        return self.recurrent_weight.split(self.hidden_size)

    def update(self, projected: Tensor, products: tuple[Tensor, ...]) -> Tensor:
        """Return W_z x + b_z."""
        return projected[..., self.hidden_size : 2 * self.hidden_size]


class MUT2Cell(MutCell):
    """MUT2: the reset gate sees the input through no weights.

    r = σ(x + R_r h + b_r)    z = σ(W_z x + R_z h + b_z)
    n = tanh(R_n (r ⊙ h) + W_n x + b_n)
    h' = z ⊙ n + (1 - z) ⊙ h

    This adds an input to a state, so it is the paper's cell only where I = H: ``input_weight`` [2·H, I], the blocks z
    and n. Elsewhere W_r x takes the place of that bare x, ``input_weight`` [3·H, I], which is another model (a GRU
    with the reset before the product). ``recurrent_weight`` is [3·H, H].

    Args:
        input_size: I.
        hidden_size: H.
        project_input: take W_r x even where I = H.

    Source: see `MutCell`.
    """

    def __init__(self, *, input_size: int, hidden_size: int, project_input: bool = False) -> None:
        projects = project_input or input_size != hidden_size
        super().__init__(input_size=input_size, hidden_size=hidden_size, input_blocks=2 + projects, recurrent_blocks=3)
        self.project_input = projects

    def project(self, inputs: Tensor) -> Tensor:
        """Return x + b_r, W_z x + b_z and W_n x + b_n: [..., I] → [..., 3·H]."""
        driven = F.linear(inputs, self.input_weight)  # [..., 3·H], or [..., 2·H] for a bare x
        return (driven if self.project_input else torch.cat((inputs, driven), dim=-1)) + self.bias

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of both gates [2·H, H] and of the candidate [H, H]."""
        return self.recurrent_weight.split((2 * self.hidden_size, self.hidden_size))

    def update(self, projected: Tensor, products: tuple[Tensor, ...]) -> Tensor:
        """Return W_z x + R_z h + b_z."""
        size = self.hidden_size
        return projected[..., size : 2 * size] + products[0][..., size:]


class MUT3Cell(AffineCell, MutCell):
    """MUT3: the update gate sees the squashed state.

    r = σ(W_r x + R_r h + b_r)    z = σ(W_z x + R_z tanh(h) + b_z)
    n = tanh(R_n (r ⊙ h) + W_n x + b_n)
    h' = z ⊙ n + (1 - z) ⊙ h

    ``input_weight`` [3·H, I], ``recurrent_weight`` [3·H, H]. The paper's cell at all sizes. Three products a step.

    Source: see `MutCell`.
    """

    gate_names = ("r", "z")
    tanh_names = ("tanh h", "n")

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size, input_blocks=3, recurrent_blocks=3)

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the weights of the reset gate, the update gate and the candidate, [H, H] each."""
        return self.recurrent_weight.split(self.hidden_size)

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: HiddenState) -> Tensor:
        """Return h, tanh(h), then r ⊙ h."""
        if index == 1:
            return torch.tanh(state.hidden)
        return super().operand(index, projected, products, state)

    def update(self, projected: Tensor, products: tuple[Tensor, ...]) -> Tensor:
        """Return W_z x + R_z tanh(h) + b_z."""
        return projected[..., self.hidden_size : 2 * self.hidden_size] + products[1]
