"""Where the rows of a batch lie if they lie one step after another: padding has no place there.

Axes: B rows of the batch, T steps, N rows of all steps.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from rnnzoo.lengths import length_mask, permute_rows, put_rows, take_rows
from rnnzoo.state import State, map_state


class Packing:
    """The order of packed rows: a step is the rows of the batch that have not ended, those that end last first.

    So the rows of a step are the first ones of the step before it. Where all have every step, rows stay in order.

    Args:
        rows: B.
        steps: T.
        lengths: [B], on a CPU; None where all rows are taken to the last step.
    """

    def __init__(self, rows: int, steps: int, lengths: Tensor | None) -> None:
        self.rows = rows
        self.counts = [rows] * steps  # rows of each step; none is 0
        self.order: Tensor | None = None
        if lengths is not None:
            self.padded_steps = steps
            self.order = lengths.argsort(descending=True, stable=True)  # [B]
            self.back = self.order.argsort()
            self.lengths = lengths.clamp(max=steps).index_select(0, self.order)
            mask = length_mask(self.lengths, int(self.lengths[0])).t()  # [T, B]
            self.counts = mask.sum(1).tolist()
            step, rank = mask.nonzero().unbind(1)
            self.index = self.order.index_select(0, rank) * steps + step  # [N], in the rows and steps [B · T]
        self.starts = [0, *accumulate(self.counts)]  # [T + 1], of each step in [N]
        # A history [B + N] of a field of the state begins with the field before the first step.
        self.afters = [rows + start for start in self.starts[:-1]]
        self.befores = [0, *self.afters[:-1]]

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and rows, (T, B)."""
        return len(self.counts), self.rows

    def pack(self, inputs: Tensor) -> Tensor:
        """Return the rows of all steps: [B, T, I] → [N, I]."""
        if self.order is None:
            return inputs.transpose(0, 1).flatten(0, 1)
        return take_rows(inputs.flatten(0, 1), self.index)

    def unpack(self, values: Tensor) -> Tensor:
        """Return padded rows, with zeros for the padding: [N, O] → [B, T, O]."""
        if self.order is None:
            return values.unflatten(0, (-1, self.rows)).transpose(0, 1)
        steps = self.padded_steps
        return put_rows(values, self.index, self.rows * steps).unflatten(0, (self.rows, steps))

    def sort(self, state: State) -> State:
        """Return a state [B, ...] with its rows in the order of the first step."""
        if self.order is None:
            return state
        order, back = self.order, self.back
        return map_state(lambda field: permute_rows(field, order, back), state)

    def unsort(self, state: State) -> State:
        """Return a state [B, ...] of sorted rows with its rows in the order of the batch."""
        if self.order is None:
            return state
        order, back = self.order, self.back
        return map_state(lambda field: permute_rows(field, back, order), state)

    def last(self, history: Tensor) -> Tensor:
        """Return of a field of the state the numbers after each row's last step: [B + N, ...] → [B, ...], sorted."""
        if self.order is None:
            return history[len(history) - self.rows :].clone()
        ends = torch.tensor([0, *self.afters], device="cpu").index_select(0, self.lengths)
        return history.index_select(0, ends + torch.arange(self.rows, device="cpu"))

    def before(self, history: Tensor, chunk: range) -> Tensor:
        """Return of a field of the state what the rows of some steps had before them: [B + N, ...] → [N', ...]."""
        steps = slice(chunk.start, chunk.stop)
        counts, befores, begin = self.counts[steps], self.befores[steps], self.starts[chunk.start]
        if (self.counts[chunk.start - 1] if chunk.start else self.rows) == counts[-1]:  # all of one size
            return history[befores[0] : befores[0] + len(counts) * counts[0]]
        shifts = torch.tensor(
            [before - start for before, start in zip(befores, self.starts[steps], strict=True)], device="cpu"
        )
        own = torch.arange(begin, self.starts[chunk.stop], device="cpu")
        return history.index_select(0, own + shifts.repeat_interleave(torch.tensor(counts, device="cpu")))

    def chunks(self, most: int | None) -> list[range]:
        """Return the steps in parts of `most` packed rows or fewer, or of one step; None makes one part."""
        steps = len(self.counts)
        if most is None:
            return [range(steps)]
        chunks, first = [], 0
        for step in range(1, steps + 1):
            if step == steps or self.starts[step + 1] - self.starts[first] > most:
                chunks.append(range(first, step))
                first = step
        return chunks


def keeps_padding(lengths: Tensor) -> bool:
    """Return whether rows of some lengths are better run to the last step than looked at."""
    return lengths.device.type != "cpu"


def pack_rows(inputs: Tensor, lengths: Tensor | None) -> tuple[Packing, Tensor | None]:
    """Return how rows of `inputs` [B, T, I] are packed, and a mask [N] of those that are no padding, if it is kept.

    Padding is kept on a GPU, which is not waited for.
    """
    rows, steps, _ = inputs.shape
    if lengths is None:
        return Packing(rows, steps, None), None
    if keeps_padding(lengths):
        return Packing(rows, steps, None), length_mask(lengths, steps).t().flatten()
    return Packing(rows, steps, lengths if int(lengths.min()) < steps else None), None
