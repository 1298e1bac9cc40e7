"""torch's own recurrent kernels, on dense right-padded batches.

torch can pack ragged batches, but packing leaves the fast kernels (oneDNN on CPU takes equal lengths only, cuDNN's
persistent kernels too). Here the padding is computed and thrown away: outputs of earlier steps do not depend on it.
"""

from __future__ import annotations

import warnings
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.backends.base import backend
from rnnzoo.backends.groups import run_in_groups
from rnnzoo.cells.base import Cell, HiddenState
from rnnzoo.cells.elman import ElmanCell, IdentityElmanCell, ReluElmanCell
from rnnzoo.cells.gru import GRUCell
from rnnzoo.cells.lstm import LSTMCell, LSTMState
from rnnzoo.kernels import torch_private
from rnnzoo.lengths import last_valid, length_mask, zero_padding
from rnnzoo.state import State

# cuDNN copies the weights of a cell, which lie apart, in each call: some microseconds that no user can do without.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")

CLOSED = 1e4  # a pre-activation at which a sigmoid is exactly 0 or 1, with derivative 0, in every float type


def refusal(cell: Cell) -> str:
    """Return why this backend cannot run a cell, or an empty string if it can."""
    if type(cell) in (ElmanCell, ReluElmanCell, IdentityElmanCell, LSTMCell, GRUCell):
        return ""
    return f"torch has no kernel for {type(cell).__name__}"


@backend
def run(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run a cell over right-padded sequences with torch's kernels."""
    return run_in_groups(partial(run_dense, cell), inputs, lengths, state)


def run_dense(cell: Cell, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run all rows at once, whatever their lengths; the padding is zero."""
    if isinstance(cell, LSTMCell):
        return run_lstm(cell, inputs, lengths, state)
    hidden = state.hidden.unsqueeze(0)  # [1, B, H]
    if isinstance(cell, GRUCell):
        recurrent_bias = F.pad(cell.candidate_bias, (2 * cell.hidden_size, 0))
        weights = [cell.input_weight, cell.recurrent_weight, cell.bias, recurrent_bias]
        outputs, _ = torch.gru(inputs, hidden, weights, True, 1, 0.0, for_backward(), False, True)
    else:
        assert isinstance(cell, ElmanCell | ReluElmanCell)
        kernel = torch.rnn_tanh if isinstance(cell, ElmanCell) else torch.rnn_relu
        weights = [cell.input_weight, cell.recurrent_weight, cell.bias, torch.zeros_like(cell.bias)]
        outputs, _ = kernel(inputs, hidden, weights, True, 1, 0.0, for_backward(), False, True)
    final = final_hidden(outputs, lengths, state.hidden)
    return zero_padding(outputs, lengths), HiddenState(final)


def run_lstm(cell: LSTMCell, inputs: Tensor, lengths: Tensor | None, state: LSTMState) -> tuple[Tensor, LSTMState]:
    """Run an LSTM whose cell state stops at each row's length.

    The kernel returns the cell state after the last step of the batch only. One more input, 1 on the padding, with
    weights that shut the input gate and open the forget gate, makes it keep the state of the last valid step.
    """
    if (
        torch.is_autocast_enabled("cpu")
        and inputs.device.type == "cpu"
        and not multiplies(torch.get_autocast_dtype("cpu"))
    ):
        with torch.autocast("cpu", enabled=False):  # torch's LSTM would fail
            state = LSTMState(*(field.to(cell.bias.dtype) for field in state))
            outputs, final = run_lstm(cell, inputs.to(cell.bias.dtype), lengths, state)
        return outputs.to(torch.get_autocast_dtype("cpu")), final
    input_weight: Tensor = cell.input_weight
    ragged = lengths is not None and bool((lengths < inputs.shape[1]).any())
    if ragged:
        assert lengths is not None
        padding = ~length_mask(lengths, inputs.shape[1])  # [B, T]
        inputs = torch.cat([inputs, padding.unsqueeze(-1).to(inputs.dtype)], dim=-1)  # [B, T, I + 1]
        hold = input_weight.new_zeros(4, cell.hidden_size)
        hold[0], hold[1] = -CLOSED, CLOSED  # input gate, forget gate
        input_weight = torch.cat([input_weight, hold.reshape(-1, 1)], dim=-1)  # [4·H, I + 1]
    weights = [input_weight, cell.recurrent_weight, cell.bias, torch.zeros_like(cell.bias)]
    start = [state.hidden.unsqueeze(0), state.cell.unsqueeze(0)]  # [1, B, H] each
    outputs, _, cells = torch.lstm(inputs, start, weights, True, 1, 0.0, for_backward(), False, True)
    final = LSTMState(final_hidden(outputs, lengths, state.hidden), cells[0])
    return zero_padding(outputs, lengths if ragged else None), final


def multiplies(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies numbers of a narrow type on this processor."""
    name = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}.get(dtype, "")
    return not name or torch_private.supports(f"torch.ops.mkldnn.{name}")


def for_backward() -> bool:
    """Return whether a gradient may be asked for: cuDNN then wants its training mode, of a frozen cell too.

    Without dropout inside the kernel both modes compute the same.
    """
    return torch.is_grad_enabled()


def final_hidden(outputs: Tensor, lengths: Tensor | None, initial: Tensor) -> Tensor:
    """Return the hidden state after each row's last valid step [B, H]; the initial one for a row of length 0."""
    last = last_valid(outputs, lengths)
    return last if lengths is None else torch.where((lengths > 0).unsqueeze(1), last, initial)
