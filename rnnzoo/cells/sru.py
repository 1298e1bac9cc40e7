"""Simple recurrent units."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import LinearCell
from rnnzoo.numerics import widen


class SRUCell(LinearCell):
    """The simple recurrent unit, whose gates see the input alone.

    n = W_n x    f = σ(W_f x + b_f)    r = σ(W_r x + b_r)
    c' = f ⊙ c + (1 - f) ⊙ n
    y = r ⊙ tanh(c') + α (1 - r) ⊙ x̂    with α = √(1 + 2 exp(b))

    x̂ is x, or W_x x where I is not H. α evens out the variances of both ways at the start, where b is the bias of r.
    Gate order n, f, r, x̂: ``input_weight`` [3·H, I] or [4·H, I]; ``bias`` [2·H] of f and r. The memory c is the
    state's ``hidden``.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.
        highway_bias: b, the initial bias of r; below 0, more of the input passes by.

    Source: Lei et al. 2017, "Simple Recurrent Units for Highly Parallelizable Recurrence", arXiv 1709.02755: the
    recurrence and the tanh of version 1, the initial weights U(-√(3/I), √(3/I)) and α of the final version, whose
    gates see c too and would not let time be scanned. The forget bias is ours.
    """

    gate_names = ("f", "r")
    tanh_names = ("tanh c'",)

    def __init__(
        self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0, highway_bias: float = 0.0
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        blocks = 3 if input_size == hidden_size else 4
        self.highway_scale = (1 + 2 * torch.tensor(highway_bias, device="cpu").exp().item()) ** 0.5  # α
        self.input_weight = nn.Parameter(torch.empty(blocks * hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(2 * hidden_size))
        bound = (3 / input_size) ** 0.5
        nn.init.uniform_(self.input_weight, -bound, bound)
        nn.init.constant_(self.bias.data[:hidden_size], forget_bias)
        nn.init.constant_(self.bias.data[hidden_size:], highway_bias)

    def project(self, inputs: Tensor) -> Tensor:
        """Return all products and x̂: [..., I] → [..., 4·H]."""
        passed = self.input_size == self.hidden_size
        projected = F.linear(
            inputs, self.input_weight, F.pad(self.bias, (self.hidden_size, 0 if passed else self.hidden_size))
        )
        return torch.cat([projected, inputs.to(projected.dtype)], dim=-1) if passed else projected

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and (1 - f) ⊙ n."""
        n, f, _, _ = widen(projected).chunk(4, dim=-1)  # [..., H] each
        forget = torch.sigmoid(f)
        return forget, (1 - forget) * n

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return r ⊙ tanh(c) + α (1 - r) ⊙ x̂."""
        _, _, r, passed = widen(projected).chunk(4, dim=-1)
        reset = torch.sigmoid(r)
        return (reset * torch.tanh(hidden) + self.highway_scale * (1 - reset) * passed).to(projected.dtype)
