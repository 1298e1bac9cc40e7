"""minGRU and minLSTM: what is left of a GRU and an LSTM when their gates may see the input alone."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import GatedLinearCell
from rnnzoo.numerics import widen

CLOSED = 50.0  # below minus this a gate is as good as closed, and its inverse may not overflow


class MinGRUCell(GatedLinearCell):
    """The minimal gated recurrent unit.

    z = σ(W_z x + b_z)    n = W_n x + b_n
    h' = (1 - z) ⊙ h + z ⊙ n

    Gate order z, n; ``input_weight`` [2·H, I], ``bias`` [2·H].

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of 1 - z, as which it forgets: that of z is its negative; 1 lets the memory last.

    Source: Feng et al. 2024, "Were RNNs All We Needed?", arXiv 2410.01201; its h̃ is n here, and the bias of z is ours.

    >>> MinGRUCell(input_size=3, hidden_size=5).initial_state(2).hidden.shape
    torch.Size([2, 5])
    """

    gate_count = 2
    gate_names: ClassVar[tuple[str, ...]] = ("z",)

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[:hidden_size], -forget_bias)

    def candidate(self, values: Tensor) -> Tensor:
        """Return n [..., H] of W_n x + b_n."""
        return values

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - z and z ⊙ n."""
        z, n = widen(projected).chunk(2, dim=-1)  # [..., H] each
        update = torch.sigmoid(z)
        return 1 - update, update * self.candidate(n)


class MinGRULogCell(MinGRUCell):
    """The minimal gated recurrent unit whose candidate is positive, which the paper computes by logarithms.

    z = σ(W_z x + b_z)    n = g(W_n x + b_n)    with g(u) = u + 1/2 for u ≥ 0, σ(u) for u < 0
    h' = (1 - z) ⊙ h + z ⊙ n

    The paper takes logarithms to scan without overflow. The recurrence itself is a mean and cannot overflow, so it is
    computed as it stands here: the same numbers, and exact for any state that is carried along, 0 and below included.

    Source: as `MinGRUCell`, appendix B. The paper starts from g(0) = 1/2; here the first state is 0.
    """

    gate_names = ()  # a part of g is a sigmoid too

    def candidate(self, values: Tensor) -> Tensor:
        """Return g(W_n x + b_n)."""
        return positive(values)


class MinLSTMCell(GatedLinearCell):
    """The minimal long short-term memory.

    f = σ(W_f x + b_f)    i = σ(W_i x + b_i)    n = W_n x + b_n
    h' = f / (f + i) ⊙ h + i / (f + i) ⊙ n

    Gate order f, i, n; ``input_weight`` [3·H, I], ``bias`` [3·H].

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Source: Feng et al. 2024, as `MinGRUCell`; its h̃ is n here. A gate is never below σ(-50) = 2e-22, so
    that the quotient is a number where both are closed.
    """

    gate_count = 3

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[:hidden_size], forget_bias)

    def candidate(self, values: Tensor) -> Tensor:
        """Return n [..., H] of W_n x + b_n."""
        return values

    def coefficients(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return f / (f + i) and i / (f + i) ⊙ n."""
        f, i, n = widen(projected).chunk(3, dim=-1)  # [..., H] each
        one_by_f, one_by_i = (1 + torch.exp((-gate).clamp(max=CLOSED)) for gate in (f, i))  # a sigmoid is 1/(1 + e⁻)
        keep = one_by_i / (one_by_i + one_by_f)
        return keep, (1 - keep) * self.candidate(n)


class MinLSTMLogCell(MinLSTMCell):
    """The minimal long short-term memory whose candidate is positive, which the paper computes by logarithms.

    f = σ(W_f x + b_f)    i = σ(W_i x + b_i)    n = g(W_n x + b_n)    with g(u) = u + 1/2 for u ≥ 0, σ(u) for u < 0
    h' = f / (f + i) ⊙ h + i / (f + i) ⊙ n

    Computed without logarithms of the state, as `MinGRULogCell`, where the source is given too.
    """

    def candidate(self, values: Tensor) -> Tensor:
        """Return g(W_n x + b_n)."""
        return positive(values)


def positive(values: Tensor) -> Tensor:
    """Return g(u) = u + 1/2 for u ≥ 0 and σ(u) below: continuous and above 0."""
    return torch.where(values >= 0, values + 0.5, torch.sigmoid(values))
