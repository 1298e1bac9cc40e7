"""The real-gated linear recurrent unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rnnzoo.cells.base import AffineCell, LinearCell, draw_weights
from rnnzoo.errors import InputError
from rnnzoo.numerics import widen

SHARPNESS = 8.0  # c of the paper
PAPER_BLOCKS = 16


class RGLRUCell(AffineCell, LinearCell):
    """The real-gated linear recurrent unit of Griffin.

    u = W x + b    r = σ(A u + b_r)    i = σ(G u + b_i)
    log a = -8 r ⊙ softplus(Λ)
    h' = a ⊙ h + √(1 - a²) ⊙ (i ⊙ u)

    A and G are block-diagonal with K blocks: ``gate_weight`` [2·K, H/K, H/K] holds the blocks of A, then those of G,
    ``gate_bias`` [2·H] both biases; ``input_weight`` [H, I], ``bias`` [H], ``decay`` is Λ [H].

    At the start exp(-8 softplus(Λ)), the decay of an open gate r, lies evenly in [0.9, 0.999].

    Args:
        input_size: I.
        hidden_size: H.
        block_count: K; None takes the 16 of the paper, or the largest power of two below that divides H.

    Raises:
        InputError: for a number of blocks that does not divide H.

    Source: De et al. 2024, "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language
    Models", arXiv 2402.19427, equations 1-4. The paper's cell takes u itself; its block around the cell has the
    product W x, and a convolution that is not here.
    """

    def __init__(self, *, input_size: int, hidden_size: int, block_count: int | None = None) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.block_count = math.gcd(PAPER_BLOCKS, hidden_size) if block_count is None else block_count
        if self.block_count < 1 or hidden_size % self.block_count:
            raise InputError(
                "RGLRUCell.block_count", expected=f"a divisor of the {hidden_size} units", got=str(block_count)
            )
        width = hidden_size // self.block_count
        self.input_weight = nn.Parameter(torch.empty(hidden_size, input_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))
        self.gate_weight = nn.Parameter(torch.empty(2 * self.block_count, width, width))
        self.gate_bias = nn.Parameter(torch.zeros(2 * hidden_size))
        draw_weights(self.input_weight)
        draw_weights(self.gate_weight.data.view(-1, width))
        rates = -torch.empty(hidden_size).uniform_(0.9, 0.999).log() / SHARPNESS  # softplus(Λ)
        self.decay = nn.Parameter(rates.expm1().log())

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and √(1 - a²) ⊙ (i ⊙ u)."""
        count, width = self.block_count, self.hidden_size // self.block_count
        blocks = projected.reshape(-1, count, width)  # [N, K, W], as all that follows: loops over W stay whole
        weights = self.gate_weight.unflatten(0, (2, count)).transpose(0, 1).flatten(1, 2)  # [K, 2·W, W]
        products = torch.bmm(blocks.transpose(0, 1), weights.transpose(1, 2))  # [K, N, 2·W]
        gates = widen(products.transpose(0, 1)) + self.gate_bias.view(2, count, width).transpose(0, 1).flatten(1)
        recurrence, entrance = torch.sigmoid(gates).chunk(2, dim=-1)
        rate = -SHARPNESS * F.softplus(widen(self.decay)).view(count, width)
        decay = torch.exp(rate * recurrence)  # a
        square = 1 - decay * decay
        above = square > 0
        root = torch.where(above, torch.where(above, square, 1.0).sqrt(), 0.0)  # no infinite slope at 0
        addition = root * (entrance * widen(blocks))
        return decay.reshape(projected.shape), addition.reshape(projected.shape)

    def readout(self, projected: Tensor, hidden: Tensor) -> Tensor:
        """Return h in the type of the inputs."""
        return hidden.to(projected.dtype)
