"""The linear recurrent unit: a complex diagonal recurrence."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import LinearCell
from rnnzoo.errors import InputError
from rnnzoo.numerics import widen
from rnnzoo.state import State


class LRUState(NamedTuple):
    """A complex state as two real ones."""

    hidden: Tensor  # [B, H], the real part
    imaginary: Tensor  # [B, H]


class LRUCell(LinearCell):
    """The linear recurrent unit.

    λ = exp(-exp(ν) + i exp(θ))
    h' = λ ⊙ h + exp(γ) ⊙ (B x)    y = Re(C h') + D x

    h, λ, B and C are complex; every parameter is real. ``input_weight`` [3·H, I] holds Re B, Im B and D,
    ``output_weight`` [H, 2·H] holds Re C and Im C side by side, ``decay_log`` is ν, ``phase_log`` θ, ``scale_log`` γ.
    Nothing is squashed: put layers with nonlinear functions between several of them.

    At the start λ lies evenly in the ring of the given radii and angles, exp(γ) = √(1 - |λ|²); B, C and D are normal
    with variances 1/(2I), 1/H and 1/I.

    Args:
        input_size: I.
        hidden_size: H.
        min_radius: smallest |λ| at the start; near 1 for long dependencies.
        max_radius: largest |λ| at the start.
        max_phase: largest angle of λ at the start, in radians; small for long dependencies.

    Raises:
        InputError: unless 0 ≤ min_radius < max_radius ≤ 1 and 0 < max_phase.

    Source: Orvieto et al. 2023, "Resurrecting Recurrent Neural Networks for Long Sequences", arXiv 2303.06349. There D
    is diagonal, since inputs and outputs are of one size.
    """

    def __init__(
        self,
        *,
        input_size: int,
        hidden_size: int,
        min_radius: float = 0.0,
        max_radius: float = 1.0,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if not 0 <= min_radius < max_radius <= 1:
            raise InputError(
                "LRUCell radii", expected="0 ≤ min_radius < max_radius ≤ 1", got=f"{min_radius} and {max_radius}"
            )
        if max_phase <= 0:
            raise InputError("LRUCell.max_phase", expected="an angle above 0", got=str(max_phase))
        size = hidden_size
        squares = torch.empty(size).uniform_(min_radius**2, max_radius**2).clamp(1e-6, 1 - 1e-6)  # |λ|²
        angles = torch.empty(size).uniform_(0, max_phase).clamp(min=1e-6)
        self.decay_log = nn.Parameter((-0.5 * squares.log()).log())  # ν
        self.phase_log = nn.Parameter(angles.log())  # θ
        self.scale_log = nn.Parameter(0.5 * (1 - squares).log())  # γ
        self.input_weight = nn.Parameter(torch.randn(3 * size, input_size) / input_size**0.5)
        self.output_weight = nn.Parameter(torch.randn(size, 2 * size) / size**0.5)
        self.input_weight.data[: 2 * size] /= 2**0.5

    def project(self, inputs: Tensor) -> Tensor:
        """Return Re B x, Im B x and D x: [..., I] → [..., 3·H]."""
        return F.linear(inputs, self.input_weight)

    def initial_state(self, batch_size: int) -> LRUState:
        """Return zeros."""
        return LRUState(*(self.zeros(batch_size, self.hidden_size, widened=True) for _ in range(2)))

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return λ and exp(γ) ⊙ (B x), complex."""
        real, imaginary, _ = widen(projected).chunk(3, dim=-1)  # [..., H] each
        decay = torch.polar((-widen(self.decay_log).exp()).exp(), widen(self.phase_log).exp())  # [H]
        scale = widen(self.scale_log).exp()
        return decay.expand(real.shape), torch.complex(scale * real, scale * imaginary)

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return Re(C h) + D x."""
        parts = torch.cat([hidden.real, -hidden.imag], dim=-1).to(self.output_weight.dtype)  # [..., 2·H]
        return F.linear(parts, self.output_weight) + projected[..., 2 * self.hidden_size :]

    def unpack(self, state: State) -> Tensor:
        """Return the state as a complex tensor."""
        return torch.complex(widen(state.hidden), widen(state.imaginary))

    def pack(self, hidden: Tensor, state: State) -> LRUState:
        """Return a complex tensor as a state."""
        return LRUState(hidden.real, hidden.imag)
