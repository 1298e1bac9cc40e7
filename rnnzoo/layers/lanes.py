"""Recurrent layers over lanes of a stream: the state comes from the chunk before, and is dropped where it must be.

Axes: B lanes, T steps, R runs without a reset inside, S steps of the longest run, I input, O output.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rnnzoo.cells.wrappers import RecurrentDropout
from rnnzoo.layers.recurrent import Recurrent, States
from rnnzoo.state import detach, map_state, select_rows, unflatten, where


def run_lanes(
    layers: Recurrent, inputs: Tensor, lengths: Tensor, resets: Tensor, state: States | None
) -> tuple[Tensor, States]:
    """Run layers over a chunk of each lane, from the initial state again wherever `resets` says so.

    The backend is called once: a chunk without a reset inside is run as it is, else each run between two resets
    becomes a row of its own.

    Args:
        layers: of one direction.
        inputs: [B, T, I].
        lengths: [B] valid steps.
        resets: [B, T] bool, true where the state before that step is the initial one.
        state: before the first step, where it is not reset; None takes the initial state.

    Returns:
        Outputs [B, T, O], zero at and past each length, and the state after each lane's last valid step.
    """
    batch_size, steps = resets.shape
    initial = layers.initial_state(batch_size)
    if state is None or steps == 0:
        state = initial if state is None else state
    else:
        state = where(resets[:, 0], initial, state)
    inside = resets & (torch.arange(steps, device=resets.device) < lengths.unsqueeze(1))  # [B, T]
    inside[:, :1] = False
    if not bool(inside.any()):
        full = bool((lengths == steps).all())
        return layers(inputs, None if full else lengths, state)
    inside[:, 0] = True  # each lane has a first run
    rows, starts = inside.nonzero(as_tuple=True)  # [R] each, lane by lane
    last = torch.ones_like(rows, dtype=torch.bool)  # the run is the last of its lane
    last[:-1] = rows[1:] != rows[:-1]
    stops = torch.where(last, lengths[rows], starts.roll(-1))  # [R]
    sizes = stops - starts
    places = torch.arange(int(sizes.max()), device=rows.device)  # [S]
    index = (starts.unsqueeze(1) + places).clamp(max=steps - 1)  # [R, S]
    parts = inputs[rows.unsqueeze(1), index]  # [R, S, I]
    before = where(starts > 0, layers.initial_state(len(rows)), select_rows(state, rows))
    found, after = layers(parts, sizes, before)  # [R, S, O]
    valid = places < sizes.unsqueeze(1)  # [R, S]
    target = (rows.unsqueeze(1).expand_as(index)[valid], index[valid])
    outputs = found.new_zeros(batch_size, steps, found.shape[-1]).index_put(target, found[valid])
    return outputs, select_rows(after, last.nonzero().squeeze(1))


def carry(layers: Recurrent, state: States) -> States:
    """Return the state that the next chunk begins with: cut from its graph, in the types of a first one, unmasked."""
    first = without_masks(layers, layers.initial_state(1))
    return map_state(lambda field, like: field.to(like.dtype), detach(without_masks(layers, state)), first)


def without_masks(layers: Recurrent, state: States) -> States:
    """Return a state without its dropout masks."""
    pairs = zip(layers.cells, state, strict=True)
    return tuple(each.inner if isinstance(cell, RecurrentDropout) else each for cell, each in pairs)


def resume(layers: Recurrent, carried: States) -> States:
    """Return a carried state as the layers take it, with new dropout masks."""
    pairs = zip(layers.cells, carried, strict=True)
    return tuple(cell.wrap(each) if isinstance(cell, RecurrentDropout) else each for cell, each in pairs)


def restore(layers: Recurrent, tensors: list[Tensor]) -> States:
    """Return the carried state whose tensors `flatten` gave."""
    template = without_masks(layers, layers.initial_state(1))
    return map_state(lambda field, like: field.to(like), unflatten(template, tensors), template)
