"""Laws of a cell on a backend. The docstring of each is the law, as an error quotes it."""

from __future__ import annotations

import copy
import math
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from rnnzoo.layers.recurrent import Recurrent
from rnnzoo.lengths import length_mask
from rnnzoo.state import map_state, select_rows, where
from rnnzoo.testing.trial import (
    LENGTHS,
    ROWS,
    STEPS,
    DifferenceError,
    Result,
    Subject,
    Trial,
    draw,
    flatten,
    named,
    same,
    same_results,
    same_states,
)

EXACT = (0.0, 0.0)
CHUNKS = ((1, 3), (2, 0, 2))  # steps of each
GARBAGE = (1e6, math.inf, math.nan)  # on the padding
NEAR = (1e-3, 1e-3)  # float32 and float64
LOUD = 1e4  # inputs at which gates are shut or open, and what overflows does


def reference_is_equalled(subject: Subject, trial: Trial, same_trial: Trial) -> None:
    """Outputs, final states and all gradients are those of the reference backend."""
    same_results(trial.result, same_trial.result)


def fewer_digits_are_near(subject: Subject, trial: Trial, precise: Trial) -> None:
    """In float32 all is near to what it is in float64, and outputs are float32."""
    for name, got, expected in (
        ("outputs", trial.result.outputs, precise.result.outputs),
        *(
            (f"final {name}", got, expected)
            for (name, got), expected in zip(
                named(trial.result.final).items(), flatten(precise.result.final), strict=True
            )
        ),
        *((f"gradient of {name}", got, precise.result.gradients[name]) for name, got in trial.result.gradients.items()),
    ):
        same(name, got, expected.float(), NEAR)


def nothing_is_remembered(subject: Subject, trial: Trial) -> None:
    """The same call again gives the same, in training and evaluation, with a graph and without."""
    same("outputs", trial.run()[0].detach(), trial.result.outputs)
    for train in (False, True):
        trial.layer.train(train)
        with torch.no_grad():
            outputs, final = trial.run()
        same("outputs", outputs, trial.result.outputs)
        same_states("final", final, trial.result.final)


def padding_is_zero_and_holds_the_state(subject: Subject, trial: Trial) -> None:
    """Outputs past a row's length are exactly zero, and a row of length 0 returns the state that it got."""
    outputs, final = trial.result.outputs, trial.result.final
    size = (ROWS, STEPS, trial.layer.output_size)
    if outputs.shape != size or outputs.dtype != trial.inputs.dtype:
        raise DifferenceError(f"outputs {list(size)} {trial.inputs.dtype}, got {list(outputs.shape)} {outputs.dtype}")
    past = outputs[~length_mask(trial.rows, STEPS)]
    same("outputs past the length", past, torch.zeros_like(past), EXACT)
    empty = trial.rows == 0
    for (name, got), field in zip(named(final).items(), flatten(trial.state), strict=True):
        same(f"final {name} of empty rows", got[empty], field.detach()[empty], EXACT)


def padding_changes_nothing(subject: Subject, trial: Trial) -> None:
    """What stands on the padding changes no output, state or gradient, and gets a gradient of exactly zero."""
    padding = ~length_mask(trial.rows, STEPS)  # [B, T]
    if not padding.any():
        return
    expected = filled(trial, 0.0)
    for value in GARBAGE:
        found = filled(trial, value)
        same_results(found, expected, EXACT)
        past = found.gradients["inputs"][padding]
        same("gradient of inputs on the padding", past, torch.zeros_like(past), EXACT)


def rows_are_apart(subject: Subject, trial: Trial) -> None:
    """A row alone, cut to its length, gives what it gives in the batch."""
    for row, length in enumerate(trial.rows.tolist()):
        with torch.no_grad():
            own = select_rows(trial.state, torch.tensor([row]))
            outputs, final = trial.layer(trial.inputs[row : row + 1, :length], None, own)
        same(f"outputs of row {row}", outputs[0], trial.result.outputs[row, :length])
        same_states(f"final, of row {row},", final, select_rows(trial.result.final, torch.tensor([row])))


def chunks_are_the_whole(subject: Subject, trial: Trial) -> None:
    """Chunks with carried state give what the whole gives, gradients too."""
    if trial.layer.bidirectional:
        return
    for sizes in CHUNKS:
        state, outputs, start = trial.state, [], 0
        for size in sizes:
            lengths = None if trial.lengths is None else (trial.lengths - start).clamp(0, size)
            output, state = trial.layer(trial.inputs[:, start : start + size], lengths, state)
            outputs.append(output)
            start += size
        same_results(trial.differentiate(torch.cat(outputs, 1), state), trial.result)


def steps_are_the_whole(subject: Subject, trial: Trial) -> None:
    """Single steps give what the whole gives, gradients too."""
    if trial.layer.bidirectional or trial.lengths is not None:
        return
    state, outputs = trial.state, []
    for step in range(STEPS):
        output, state = trial.layer.step(trial.inputs[:, step], state)
        outputs.append(output)
    same_results(trial.differentiate(torch.stack(outputs, 1), state), trial.result)


def reset_row_is_a_fresh_start(subject: Subject, trial: Trial) -> None:
    """A row whose state is reset goes on as from a fresh start, the others as before; and the state matters."""
    if trial.lengths is not None:
        return
    reset = torch.tensor([True, False, True, False])
    with torch.no_grad():
        mixed, _ = trial.layer(trial.inputs, None, where(reset, trial.layer.initial_state(ROWS), trial.state))
        fresh, _ = trial.layer(trial.inputs)
    same("outputs of reset rows", mixed[reset], fresh[reset])
    same("outputs of other rows", mixed[~reset], trial.result.outputs[~reset])
    if torch.allclose(fresh, trial.result.outputs):
        raise DifferenceError("other outputs from another state, got the same")


def both_directions(subject: Subject, trial: Trial) -> None:
    """The backward direction is the cell on each row reversed within its own length."""
    if not trial.layer.bidirectional:
        return
    layer = subject.layers(bidirectional=True)
    backward: Recurrent = subject.layers()
    backward.cells[0].load_state_dict(layer.cells[1].state_dict())
    size = backward.output_size
    with torch.no_grad():
        outputs, final = layer(trial.inputs, trial.lengths)
        for row, length in enumerate(trial.rows.tolist()):
            expected, after = backward(trial.inputs[row : row + 1, :length].flip(1))
            same(f"outputs of row {row}", outputs[row, :length, size:], expected[0].flip(0))
            same_states(f"final, of row {row},", select_rows(final[1:], torch.tensor([row])), after)


def nothing_is_changed_in_place(subject: Subject, trial: Trial) -> None:
    """A run leaves inputs, state, lengths, parameters and buffers as they are."""
    held = {"inputs": trial.inputs, **named(trial.state), **trial.layer.state_dict()}
    copies = {name: value.detach().clone() for name, value in held.items()}
    trial.differentiate(*trial.run())
    for name, value in held.items():
        same(name, value.detach(), copies[name], EXACT)


def gradients_are_finite(subject: Subject, trial: Trial) -> None:
    """Outputs and gradients are finite, also of zeros from the initial state, and where inputs are large."""
    start = map_state(lambda field: field.detach().requires_grad_(), trial.layer.initial_state(ROWS))
    zeros = Trial(trial.layer, torch.zeros_like(trial.inputs).requires_grad_(), trial.lengths, start)
    loud = Trial(trial.layer, (LOUD * trial.inputs.detach()).requires_grad_(), trial.lengths, trial.state)
    for setting, each in (("", trial), (" of zeros", zeros), (" of large inputs", loud)):
        found = each.result
        values = {"outputs": found.outputs, **{f"gradient of {name}": grad for name, grad in found.gradients.items()}}
        for name, value in values.items():
            if not value.isfinite().all():
                raise DifferenceError(f"finite {name}{setting}, got {value[~value.isfinite()][0].item()}")


def nothing_is_nothing(subject: Subject, trial: Trial) -> None:
    """Without steps the state is handed back; without rows there are no outputs; no state is the initial state."""
    layer, lengths = trial.layer, None if trial.lengths is None else torch.zeros_like(trial.lengths)
    with torch.no_grad():
        outputs, final = layer(trial.inputs[:, :0], lengths, trial.state)
        same("outputs of no steps", outputs, trial.inputs.new_zeros(ROWS, 0, layer.output_size))
        same_states("final", final, trial.state, EXACT)
        rows = None if trial.lengths is None else trial.lengths[:0]
        outputs, _ = layer(trial.inputs[:0], rows)
        same("outputs of no rows", outputs, trial.inputs.new_zeros(0, STEPS, layer.output_size))
        outputs, final = layer(trial.inputs, trial.lengths)
        expected, after = layer(trial.inputs, trial.lengths, layer.initial_state(ROWS))
    same("outputs without a state", outputs, expected, EXACT)
    same_states("final", final, after, EXACT)


def hooks_run_once_a_call(subject: Subject, trial: Trial) -> None:
    """Forward pre-hooks and forward hooks of a cell run once for each call of its layer, on sequences and in steps."""
    if trial.layer.num_layers == 1:
        return
    layer = copy.deepcopy(trial.layer)
    seen: Counter[str] = Counter()
    for place, cell in enumerate(layer.cells):
        cell.register_forward_pre_hook(lambda *_, place=place: seen.update([f"pre-hook of cell {place}"]))
        cell.register_forward_hook(lambda *_, place=place: seen.update([f"hook of cell {place}"]))
    expected = {f"{kind} of cell {place}": 1 for place in range(len(layer.cells)) for kind in ("pre-hook", "hook")}
    calls = [("a call", lambda: layer(trial.inputs, trial.lengths, trial.state))]
    if not layer.bidirectional:
        calls.append(("a step", lambda: layer.step(trial.inputs[:, 0], trial.state)))
    for kind, call in calls:
        seen.clear()
        call()
        if seen != expected:
            raise DifferenceError(f"{expected} in {kind}, got {dict(seen)}")


def computed_weights_are_weights(subject: Subject, trial: Trial) -> None:
    """Weights that are computed from others, by hooks (pruned ones) or parametrizations, act and train as such."""
    if not trial.layer.bidirectional:
        return
    for kind, compute in (("pruned", prune_cell), ("parametrized", parametrize_cell)):
        expected, layer = (copy.deepcopy(trial.layer) for _ in range(2))
        factors = {}
        for place, (cell, plain) in enumerate(zip(layer.cells, expected.cells, strict=True)):
            for name, parameter in list(plain.named_parameters(recurse=False)):
                factor = draw(torch.Generator().manual_seed(place), *parameter.shape).gt(-0.5).to(parameter.dtype)
                factors[f"cells.{place}.{name}"] = factor
                compute(cell, name, factor)
                parameter.data.mul_(factor)
        other, plain_trial = (Trial(each, trial.inputs, trial.lengths, trial.state) for each in (layer, expected))
        for _ in range(2):  # a graph that is left over would be differentiated a second time
            result = other.differentiate(*other.run())
        named_as_before = {plain_name(name): gradient for name, gradient in result.gradients.items()}
        gradients = {name: gradient * factors.get(name, 1) for name, gradient in plain_trial.result.gradients.items()}
        try:
            same_results(result._replace(gradients=named_as_before), plain_trial.result._replace(gradients=gradients))
        except DifferenceError as error:
            raise DifferenceError(f"of {kind} weights {error}") from error


def prune_cell(cell: nn.Module, name: str, mask: Tensor) -> None:
    """Prune a weight of a cell."""
    prune.custom_from_mask(cell, name, mask)


def parametrize_cell(cell: nn.Module, name: str, factor: Tensor) -> None:
    """Multiply a weight of a cell by a constant, in a parametrization."""
    parametrize.register_parametrization(cell, name, Scaled(factor))


class Scaled(nn.Module):
    """w ↦ f ⊙ w.

    Args:
        factor: f.
    """

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """Scale a weight."""
        return self.factor * weight


def plain_name(name: str) -> str:
    """Return the name of a weight, given that of what it is computed from.

    >>> plain_name("cells.0.bias_orig"), plain_name("cells.0.parametrizations.bias.original")
    ('cells.0.bias', 'cells.0.bias')
    """
    return name.removesuffix("_orig").removesuffix(".original").replace(".parametrizations.", ".")


def filled(trial: Trial, value: float) -> Result:
    """Return what a run gives with `value` on the padding."""
    valid = length_mask(trial.rows, STEPS).unsqueeze(-1)  # [B, T, 1]
    inputs = torch.where(valid, trial.inputs, value).detach().requires_grad_()
    return Trial(trial.layer, inputs, trial.lengths, trial.state).result


BACKEND_LAWS = (
    nothing_is_changed_in_place,
    nothing_is_remembered,
    padding_is_zero_and_holds_the_state,
    padding_changes_nothing,
    rows_are_apart,
    chunks_are_the_whole,
    steps_are_the_whole,
    reset_row_is_a_fresh_start,
    both_directions,
    gradients_are_finite,
    nothing_is_nothing,
    hooks_run_once_a_call,
    computed_weights_are_weights,
)
SETTINGS = (  # lengths, layers, both directions
    *((lengths, 1, False) for lengths in LENGTHS.values()),
    (LENGTHS["lengths 0 1 4 3"], 2, True),
    (None, 2, False),
)
