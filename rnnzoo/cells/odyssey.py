"""The LSTM with peepholes, and what is left of it when one part is taken away.

As in the paper, all of them have peepholes: a gate sees the memory that it acts on. The paper's "NP", without them, is
`rnnzoo.cells.lstm.LSTMCell`.

The letters are torch's: g for the paper's block input z, h for its output y. Block order i, f, g, o, the missing ones
left out. Each peephole is a vector [H] that starts at zero. Source of all: Greff, Srivastava, Koutník, Steunebrink &
Schmidhuber 2015, "LSTM: A Search Space Odyssey", arXiv 1503.04069; of the peepholes, Gers & Schmidhuber 2000.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from rnnzoo.cells.base import AffineCell, GatedCell, StagedCell, draw_weights
from rnnzoo.cells.lstm import LSTMState


class OdysseyCell(GatedCell):
    """What the variants have in common: blocks, peepholes, and a forget gate that starts open.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate, if there is one; 1 lets the memory last from the start.
    """

    blocks: ClassVar[str] = "ifgo"
    gate_count = 4
    input_peephole: Tensor  # p_i [H]
    forget_peephole: Tensor  # p_f [H]
    output_peephole: Tensor  # p_o [H]

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        add_peepholes(self, self.blocks)
        if "f" in self.blocks:
            start = self.blocks.index("f") * hidden_size
            nn.init.constant_(self.bias.data[start : start + hidden_size], forget_bias)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return LSTMState(self.zeros(*size), self.zeros(*size))


class PeepholeLSTMCell(OdysseyCell):
    """The LSTM of the paper ("vanilla"), with peepholes; the output gate sees the new memory.

    i = σ(W_i x + R_i h + p_i ⊙ c + b_i)    f = σ(W_f x + R_f h + p_f ⊙ c + b_f)
    g = tanh(W_g x + R_g h + b_g)    c' = f ⊙ c + i ⊙ g
    o = σ(W_o x + R_o h + p_o ⊙ c' + b_o)    h' = o ⊙ tanh(c')

    Args and source: see `OdysseyCell` and this module.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("g", "tanh c'")

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g, o = (projected + recurrent).chunk(4, dim=-1)  # [B, H] each
        kept = torch.sigmoid(f + self.forget_peephole * state.cell) * state.cell
        cell = kept + torch.sigmoid(i + self.input_peephole * state.cell) * torch.tanh(g)
        hidden = torch.sigmoid(o + self.output_peephole * cell) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class NoInputGateCell(OdysseyCell):
    """Without an input gate ("NIG"): i = 1.

    c' = f ⊙ c + g    with f, g, o and h' as in `PeepholeLSTMCell`

    Block order f, g, o.
    """

    blocks = "fgo"
    gate_count = 3
    gate_names = ("f", "o")
    tanh_names = ("g", "tanh c'")

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        f, g, o = (projected + recurrent).chunk(3, dim=-1)  # [B, H] each
        cell = torch.sigmoid(f + self.forget_peephole * state.cell) * state.cell + torch.tanh(g)
        hidden = torch.sigmoid(o + self.output_peephole * cell) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class NoForgetGateCell(OdysseyCell):
    """Without a forget gate ("NFG"): f = 1, as in the LSTM of 1997.

    c' = c + i ⊙ g    with i, g, o and h' as in `PeepholeLSTMCell`

    Block order i, g, o. The memory is not bounded.
    """

    blocks = "igo"
    gate_count = 3
    gate_names = ("i", "o")
    tanh_names = ("g", "tanh c'")

    def __init__(self, *, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, g, o = (projected + recurrent).chunk(3, dim=-1)  # [B, H] each
        cell = state.cell + torch.sigmoid(i + self.input_peephole * state.cell) * torch.tanh(g)
        hidden = torch.sigmoid(o + self.output_peephole * cell) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class NoOutputGateCell(OdysseyCell):
    """Without an output gate ("NOG"): o = 1.

    h' = tanh(c')    with i, f, g and c' as in `PeepholeLSTMCell`

    Block order i, f, g.
    """

    blocks = "ifg"
    gate_count = 3
    gate_names = ("f", "i")
    tanh_names = ("g", "tanh c'")

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g = (projected + recurrent).chunk(3, dim=-1)  # [B, H] each
        kept = torch.sigmoid(f + self.forget_peephole * state.cell) * state.cell
        cell = kept + torch.sigmoid(i + self.input_peephole * state.cell) * torch.tanh(g)
        hidden = torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class NoInputActivationCell(OdysseyCell):
    """Without an input activation ("NIAF"): g is linear.

    g = W_g x + R_g h + b_g    with i, f, o, c' and h' as in `PeepholeLSTMCell`

    Block order i, f, g, o.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("tanh c'",)

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g, o = (projected + recurrent).chunk(4, dim=-1)  # [B, H] each
        kept = torch.sigmoid(f + self.forget_peephole * state.cell) * state.cell
        cell = kept + torch.sigmoid(i + self.input_peephole * state.cell) * g
        hidden = torch.sigmoid(o + self.output_peephole * cell) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class NoOutputActivationCell(OdysseyCell):
    """Without an output activation ("NOAF"): the memory is put out as it is.

    h' = o ⊙ c'    with i, f, g, o and c' as in `PeepholeLSTMCell`

    Block order i, f, g, o. The output is not bounded: keep the learning rate low.
    """

    gate_names = ("f", "i", "o")
    tanh_names = ("g",)

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, f, g, o = (projected + recurrent).chunk(4, dim=-1)  # [B, H] each
        kept = torch.sigmoid(f + self.forget_peephole * state.cell) * state.cell
        cell = kept + torch.sigmoid(i + self.input_peephole * state.cell) * torch.tanh(g)
        hidden = torch.sigmoid(o + self.output_peephole * cell) * cell
        return hidden, LSTMState(hidden, cell)


class CoupledGatesCell(OdysseyCell):
    """Input and forget gate coupled ("CIFG"): f = 1 - i, what is written replaces what was there.

    c' = (1 - i) ⊙ c + i ⊙ g    with i, g, o and h' as in `PeepholeLSTMCell`

    Block order i, g, o.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of f = σ(-...), so that b_i starts at its negative.
    """

    blocks = "igo"
    gate_count = 3
    gate_names = ("i", "o")
    tanh_names = ("g", "tanh c'")

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        nn.init.constant_(self.bias.data[:hidden_size], -forget_bias)

    def gates(self, projected: Tensor, recurrent: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Compute the gates and the new state."""
        i, g, o = (projected + recurrent).chunk(3, dim=-1)  # [B, H] each
        written = torch.sigmoid(i + self.input_peephole * state.cell)
        cell = state.cell + written * (torch.tanh(g) - state.cell)
        hidden = torch.sigmoid(o + self.output_peephole * cell) * torch.tanh(cell)
        return hidden, LSTMState(hidden, cell)


class FullRecurrenceState(NamedTuple):
    """The state of an LSTM whose gates see each other's last values."""

    hidden: Tensor  # [B, H]
    cell: Tensor  # [B, H]
    input_gate: Tensor  # [B, H]
    forget_gate: Tensor  # [B, H]
    output_gate: Tensor  # [B, H]


class FullGateRecurrenceCell(AffineCell, StagedCell):
    """Full gate recurrence ("FGR"): all gates see all gates of the step before.

    i' = σ(W_i x + R_i h + p_i ⊙ c + Q_ii i + Q_if f + Q_io o + b_i)
    f' = σ(W_f x + R_f h + p_f ⊙ c + Q_fi i + Q_ff f + Q_fo o + b_f)
    g = tanh(W_g x + R_g h + b_g)    c' = f' ⊙ c + i' ⊙ g
    o' = σ(W_o x + R_o h + p_o ⊙ c' + Q_oi i + Q_of f + Q_oo o + b_o)    h' = o' ⊙ tanh(c')

    ``input_weight`` [4·H, I], ``recurrent_weight`` [4·H, H] and ``bias`` [4·H], blocks i, f, g, o; ``gate_weight`` Q
    [3·H, 3·H] (orthogonal at the start), rows and columns i, f, o. The gates before the first step are zero, and no
    bridge sets them.

    Args:
        input_size: I.
        hidden_size: H.
        forget_bias: initial bias of the forget gate.
    """

    gate_names = ("i", "f", "o")
    tanh_names = ("g", "tanh c'")

    fixed_fields = ("input_gate", "forget_gate", "output_gate")
    input_peephole: Tensor  # p_i [H]
    forget_peephole: Tensor  # p_f [H]
    output_peephole: Tensor  # p_o [H]

    def __init__(self, *, input_size: int, hidden_size: int, forget_bias: float = 1.0) -> None:
        super().__init__(input_size=input_size, hidden_size=hidden_size)
        self.input_weight = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.recurrent_weight = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.gate_weight = nn.Parameter(torch.empty(3 * hidden_size, 3 * hidden_size))  # Q
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        draw_weights(self.input_weight, self.recurrent_weight, self.gate_weight)
        nn.init.constant_(self.bias.data[hidden_size : 2 * hidden_size], forget_bias)
        add_peepholes(self, "ifo")

    def initial_state(self, batch_size: int) -> FullRecurrenceState:
        """Return zeros."""
        size = (batch_size, self.hidden_size)
        return FullRecurrenceState(*(self.zeros(*size) for _ in range(5)))

    def product_weights(self) -> tuple[Tensor, ...]:
        """Return R [4·H, H] and Q [3·H, 3·H]."""
        return self.recurrent_weight, self.gate_weight

    def operand(
        self, index: int, projected: Tensor, products: tuple[Tensor, ...], state: FullRecurrenceState
    ) -> Tensor:
        """Return h, then the gates of the step before, i, f, o."""
        if index == 0:
            return state.hidden
        return torch.cat((state.input_gate, state.forget_gate, state.output_gate), dim=-1)  # [B, 3·H]

    def combine(
        self, projected: Tensor, products: tuple[Tensor, ...], state: FullRecurrenceState
    ) -> tuple[Tensor, FullRecurrenceState]:
        """Compute the gates and the new state."""
        i, f, g, o = (projected + products[0]).chunk(4, dim=-1)  # [B, H] each
        add_i, add_f, add_o = products[1].chunk(3, dim=-1)
        input_gate = torch.sigmoid(i + add_i + self.input_peephole * state.cell)
        forget_gate = torch.sigmoid(f + add_f + self.forget_peephole * state.cell)
        cell = forget_gate * state.cell + input_gate * torch.tanh(g)
        output_gate = torch.sigmoid(o + add_o + self.output_peephole * cell)
        hidden = output_gate * torch.tanh(cell)
        return hidden, FullRecurrenceState(hidden, cell, input_gate, forget_gate, output_gate)


def add_peepholes(cell: OdysseyCell | FullGateRecurrenceCell, blocks: str) -> None:
    """Give a cell a peephole [H], zero, for each of the gates i, f and o among its blocks."""
    for letter, name in (("i", "input"), ("f", "forget"), ("o", "output")):
        if letter in blocks:
            cell.register_parameter(f"{name}_peephole", nn.Parameter(torch.zeros(cell.hidden_size)))
