"""Long short-term memory whose input and state gate each other first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import StagedCell, draw_weights
from rnnzoo.cells.lstm import LSTMState
from rnnzoo.errors import InputError


class MogrifierCell(StagedCell):
    """The Mogrifier: x and h scale each other in turns, then enter an LSTM.

    round 1, 3, ...: x ← 2σ(Q_k h) ⊙ x    round 2, 4, ...: h ← 2σ(Q_k x) ⊙ h
    then i, f, g, o, c' and h' of `rnnzoo.cells.lstm.LSTMCell` with these x and h

    With r rounds, ``modulations`` holds Q_1 [I, H], Q_2 [H, I], Q_3 [I, H], ... With a rank k each Q is a product of
    two: Q_1 = left right is there as right [k, H], then left [I, k]. ``input_weight`` [4·H, I], ``recurrent_weight``
    [4·H, H] and ``bias`` [4·H], gate order i, f, g, o.

    Nothing of the input can be multiplied before the state is known: r + 2 products follow each other in a step (2r + 2
    with a rank), so this cell takes several times as long as an LSTM.

    Args:
        input_size: I.
        hidden_size: H.
        rounds: r; with 0 it is the LSTM.
        rank: k of the factors; None has full matrices.
        forget_bias: initial bias of the forget gate; 1 lets the memory last from the start.

    Raises:
        InputError: for negative `rounds`, or a `rank` that is not from 1 to min(I, H).

    Source: Melis, Kočiský & Blunsom 2020, "Mogrifier LSTM", arXiv 1909.01792; the paper's odd and even matrices Q and
    R are all Q here.
    """

    def __init__(
        self, *, input_size: int, hidden_size: int, rounds: int = 5, rank: int | None = None, forget_bias: float = 1.0
    ) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        if rounds < 0:
            raise InputError("MogrifierCell.rounds", expected="at least 0", got=str(rounds))
        most = min(input_size, hidden_size)
        if rank is not None and not 1 <= rank <= most:
            raise InputError("MogrifierCell.rank", expected=f"from 1 to {most}, the smaller size", got=str(rank))
        self.rounds = rounds
        self.rank = rank
        matrices: list[Tensor] = []
        for number in range(rounds):
            rows, columns = (hidden_size, input_size) if number % 2 else (input_size, hidden_size)
            sizes = [(rows, columns)] if rank is None else [(rank, columns), (rows, rank)]
            matrices += (torch.empty(size) for size in sizes)
        self.modulations = nn.ParameterList(matrices)
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight)
        for matrix in self.modulations:
            draw_weights(matrix)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)

    def project(self, inputs: Tensor) -> Tensor:
        """Return x as it is."""
        return inputs

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return LSTMState(self.zeros(*size), self.zeros(*size))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return the matrices of the rounds, W [4·H, I] and R [4·H, H]."""
        return (*self.modulations, self.input_weight, self.recurrent_weight)

    def operand(self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> Tensor:
        """Return the h or x that scales the other one in a round, or both when they enter the gates."""
        stride = 1 if self.rank is None else 2
        if stride == 2 and index < 2 * self.rounds and index % 2:
            return products[-1]  # [B, k], between the two factors
        done = min(index // stride, self.rounds)
        x, hidden = self.scaled(done, projected, products, state.hidden)
        takes_x = index == stride * self.rounds or (done < self.rounds and done % 2 == 1)
        return x if takes_x else hidden

    def combine(self, projected: Tensor, products: tuple[Tensor, ...], state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the four gates and the new state."""
        i, f, g, o = (products[-2] + products[-1] + self.bias).chunk(4, dim=-1)  # [B, H] each
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)

    def scaled(self, done: int, x: Tensor, products: tuple[Tensor, ...], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return x [B, I] and h [B, H] after so many rounds."""
        stride = 1 if self.rank is None else 2
        for number in range(done):
            scale = 2 * torch.sigmoid(products[stride * (number + 1) - 1])
            if number % 2:
                hidden = scale * hidden
            else:
                x = scale * x
        return x, hidden
