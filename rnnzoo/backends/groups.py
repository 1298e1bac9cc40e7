"""Ragged batches for dense kernels, run as several batches of rows of about equal length: less padding is computed."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnzoo.lengths import is_tracing, permute_rows
from rnnzoo.state import State, map_state, select_rows

COUNTS = (2, 4)  # groups; all of one size, so that few shapes are set up in oneDNN
FEWEST_ROWS = 16  # in a group: a product with fewer takes longer for each
FIXED_ROWS = 5  # a step of so many rows takes as long as what it takes for any number of them (by measurement)
WORTH = 0.92  # share of the steps of the whole batch below which groups are worth their trouble

Dense = Callable[[Tensor, Tensor | None, State], tuple[Tensor, State]]


def run_in_groups(run: Dense, inputs: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Run rows of about equal length together, where that is faster; the result is that of all rows at once.

    Args:
        run: (inputs [B, T, I], lengths [B] or None, state) → (outputs [B, T, O], final state).
        inputs: [B, T, I], right-padded.
        lengths: [B] valid steps of each row; None means T for all.
        state: the state before the first step.
    """
    if lengths is None or inputs.device.type != "cpu" or is_tracing():
        return run(inputs, lengths, state)
    count = group_count(sorted(lengths.tolist(), reverse=True))
    if count == 1:
        return run(inputs, lengths, state)
    steps = inputs.shape[1]
    order = lengths.argsort(descending=True, stable=True)
    back = order.argsort()
    outputs, states = [], []
    for part, rows in zip(permute_rows(inputs, order, back).chunk(count), order.chunk(count), strict=True):
        longest = max(1, int(lengths[rows[0]]))  # no backend runs no step
        found, after = run(part[:, :longest], lengths[rows], select_rows(state, rows))
        outputs.append(F.pad(found, (0, 0, 0, steps - longest)))
        states.append(after)
    final = map_state(lambda *fields: torch.cat(fields).index_select(0, back), *states)
    return permute_rows(torch.cat(outputs), back, order), final


def group_count(lengths: list[int]) -> int:
    """Return in how many groups rows of falling `lengths` are run fastest.

    >>> group_count([30] * 64), group_count([30] * 32 + [15] * 32), group_count([30, 1])
    (1, 2, 1)
    """
    rows = len(lengths)
    best, least = 1, WORTH * lengths[0] * (rows + FIXED_ROWS) if lengths else 0.0
    for count in COUNTS:
        size, left = divmod(rows, count)
        if left or size < FEWEST_ROWS:
            continue
        cost = sum(lengths[start] * (size + FIXED_ROWS) for start in range(0, rows, size))
        if cost < least:
            best, least = count, cost
    return best
