"""Hierarchically gated recurrent networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import GatedLinearCell
from rnnzoo.errors import InputError
from rnnzoo.numerics import widen

EPSILON = 1e-6


class HGRNCell(GatedLinearCell):
    """The hierarchically gated recurrent cell: its forget gate has a lower bound, higher in higher layers.

    f = γ + (1 - γ) σ(W_f x + b_f)    n = silu(W_n x + b_n)    o = σ(W_o x + b_o)
    h' = f ⊙ h + (1 - f) ⊙ n
    y = w ⊙ RMSNorm(o ⊙ h')

    Gate order f, n, o; ``input_weight`` [3·H, I], ``bias`` [3·H], ``norm_weight`` is w [H].

    Args:
        input_size: I.
        hidden_size: H.
        lower_bound: γ, what is kept at the least in each step: near 0 in low layers, nearer to 1 in high ones.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Raises:
        InputError: unless 0 ≤ lower_bound < 1.

    Source: Qin, Yang & Zhong 2023, "Hierarchically Gated Recurrent Neural Network for Sequence Modeling", arXiv
    2311.04823. There h is complex and turned by an angle a unit in each step, γ is learnt for all layers together,
    LayerNorm stands for RMSNorm, and a linear map follows, which the next layer's input weights can stand in for.
    """

    gate_count = 3
    gate_names = ("f", "o")

    def __init__(
        self, *, input_size: int, hidden_size: int, lower_bound: float = 0.0, forget_bias: float = 1.0
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if not 0 <= lower_bound < 1:
            raise InputError("HGRNCell.lower_bound", expected="at least 0 and below 1", got=str(lower_bound))
        self.lower_bound = lower_bound
        self.norm_weight = nn.Parameter(torch.ones(hidden_size))
        nn.init.constant_(self.bias.data[:hidden_size], forget_bias)

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and (1 - f) ⊙ n."""
        f, n, _ = widen(projected).chunk(3, dim=-1)  # [..., H] each
        forget = self.lower_bound + (1 - self.lower_bound) * torch.sigmoid(f)
        return forget, (1 - forget) * F.silu(n)

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return w ⊙ RMSNorm(o ⊙ h)."""
        gated = torch.sigmoid(widen(projected.chunk(3, dim=-1)[2])) * hidden
        normed = gated * (gated.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        return (normed * self.norm_weight).to(projected.dtype)
