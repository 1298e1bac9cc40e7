"""How far gradients reach back in time: by layer and time lag, with the size of all gradients and what gates do.

Axes: B rows, N rows of one call of a cell's step, K lags, H hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rnnzoo.batches import Batch
from rnnzoo.cells.base import Cell
from rnnzoo.cells.wrappers import base_cell
from rnnzoo.diagnostics.gradient_tape import Call, cells_by_place, recording
from rnnzoo.errors import InputError
from rnnzoo.models.base import ZooModel
from rnnzoo.models.training import DEFAULT_GRADIENT_CLIP
from rnnzoo.models.transfer import recurrent_layers

LOW, HIGH = 0.05, 0.95  # beyond these a gate is saturated
REACHED = 0.25  # a curve goes on as long as this share of its rows does
DECAY = "|a|"
EQUATIONS = ("gates", "operand", "combine", "coefficients", "step")  # methods in which gates are computed


@dataclass(frozen=True)
class LagCurve:
    """The gradient norm of one layer by time lag; index 0 of each list is lag 1.

    It ends where fewer than a quarter of the rows go on, lest few long rows be read as a trend.

    Args:
        median: over the rows of the batch that are long enough.
        low: the tenth percentile of these rows.
        high: the ninetieth.
        rows: how many rows are long enough.
        per_step: the factor by which a step back changes the norm, on the geometric average from the median at lag 1
            to that at the last lag at which it is not 0, both of the rows that reach so far; None where nothing
            reaches lag 2.
    """

    median: list[float]
    low: list[float]
    high: list[float]
    rows: list[int]
    per_step: float | None


@dataclass(frozen=True)
class GateUse:
    """What a gate does: shares of its activations, over units, rows and steps.

    Args:
        gate: its letter, or ``sigmoid 1`` and so on where the cell does not name what it computes; ``|a|`` is what a
            linear recurrence keeps of h.
        below: share below 0.05.
        above: share above 0.95.
        mean: mean activation.
    """

    gate: str
    below: float
    above: float
    mean: float


@dataclass(frozen=True)
class GradientFlow:
    """What `measure_flow` found.

    Args:
        loss: mean loss of the batch, without dropout.
        curves: layer → gradient norm by lag.
        norms: ``all`` and layer → norm of the gradient of the mean loss with respect to the parameters.
        clipped: the same after clipping.
        scale: the number that clipping by norm multiplies every gradient with, those of the states at all lags among
            them; 1 where nothing is clipped, None where single numbers are clipped.
        gates: layer → its gates, empty for a cell without.
    """

    loss: float
    curves: dict[str, LagCurve]
    norms: dict[str, float]
    clipped: dict[str, float]
    scale: float | None
    gates: dict[str, list[GateUse]] = field(default_factory=dict)


def measure_flow(
    model: ZooModel, batch: Batch, *, lags: int | None = None, clip: float | None = None, by_value: bool = False
) -> GradientFlow:
    """Measure how the loss of a batch reaches back in time, without dropout, on the ``reference`` backend.

    For each row and layer, let t be the last step at which the loss of the row reaches the layer: through its output,
    or through its final state where that is used. What enters there is carried back through the recurrence of this
    layer alone,

        g_k = ‖ ∂L_t / ∂s_{t-k} ‖    with L_t the loss as far as it depends on what leaves the layer at step t,

    to the whole state s k steps earlier (h, and c where there is one). A backward direction counts its own steps.

    Args:
        model: any model with recurrent layers.
        batch: a batch with targets, on the model's device.
        lags: the largest k; None goes as far as the longest row.
        clip: the norm to which gradients are clipped; None takes that of `ZooModel`, 0 does not clip.
        by_value: `clip` is the largest absolute value of each number instead.

    Raises:
        InputError: if the model has no recurrent layers, `lags` is below 1, or no row of the batch is so long.
    """
    if lags is not None and lags < 1:
        raise InputError("lags", expected="at least 1", got=str(lags))
    if not recurrent_layers(model):
        raise InputError("model", expected="one with recurrent layers", got=f"a {type(model).__name__}")
    was_training = model.training
    model.eval()
    try:
        with recording(model) as tapes, torch.enable_grad():
            total, items = model.objective(model(batch), batch)
    finally:
        model.train(was_training)
    mean = total / items.clamp(min=1e-12)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    calls = [call for tape in tapes.values() for sequence in tape.sequences for call in sequence]
    tensors = [tensor for call in calls for tensor in (call.output, *call.state)]
    found = torch.autograd.grad(mean, [*named.values(), *tensors], retain_graph=True, allow_unused=True)
    entering = dict(zip(map(id, tensors), found[len(named) :], strict=True))
    curves: dict[str, LagCurve] = {}
    gates: dict[str, list[GateUse]] = {}
    cells = cells_by_place(model)
    used = {layer: [(run, last_steps(run, entering)) for run in tape.sequences] for layer, tape in tapes.items()}
    longest = max((int(last.max()) for runs in used.values() for _, last in runs if len(last)), default=0)
    if lags is not None and lags > longest:
        raise InputError(
            "lags", expected=f"at most {longest}, the longest that a sequence of this batch has", got=str(lags)
        )
    lags = max(1, longest) if lags is None else lags
    for layer, runs in used.items():  # `items` makes it the gradient of the row's loss, not of the batch's mean
        parts = [norms_by_lag(run, entering, last, lags) * float(items) for run, last in runs]
        curves[layer] = summarise_lags(torch.cat(parts, dim=1) if parts else torch.empty(lags, 0))
        gates[layer] = summarise_gates(cells[layer], runs)
    gradients = {name: each for name, each in zip(named, found, strict=False) if each is not None}
    norms, clipped = parameter_norms(gradients, cells, model, clip=clip, by_value=by_value)
    scale = None if by_value else clipped["all"] / max(norms["all"], 1e-12) if norms["all"] else 1.0
    return GradientFlow(mean.item(), curves, norms, clipped, scale, gates)


def last_steps(sequence: Sequence[Call], entering: Mapping[int, Tensor | None]) -> Tensor:
    """Return for each row the last step at which the loss reaches output or state [B]; -1 where it never does."""
    rows = max((len(call.output) for call in sequence), default=0)
    last = torch.full((rows,), -1)
    for place, call in enumerate(sequence):
        reached = torch.zeros(len(call.output), dtype=torch.bool)
        for tensor in (call.output, *call.state):
            gradient = entering[id(tensor)]
            if gradient is not None:
                reached |= (gradient != 0).flatten(1).any(1).cpu()
        last[: len(reached)] = torch.where(reached, place, last[: len(reached)])
    return last


def norms_by_lag(sequence: Sequence[Call], entering: Mapping[int, Tensor | None], last: Tensor, lags: int) -> Tensor:
    """Carry what enters at the last steps [B] back: the norms at lags 1 ... K [K, B], NaN before a row begins."""
    found = torch.full((lags, len(last)), float("nan"), dtype=torch.float64)
    outputs, gradients = [], []
    for place, call in enumerate(sequence):
        chosen = last[: len(call.output)] == place  # [N]
        for tensor in (call.output, *call.state):
            gradient = entering[id(tensor)]
            if gradient is not None and bool(chosen.any()):
                outputs.append(tensor)
                mask = chosen.to(gradient.device).reshape(-1, *[1] * (gradient.dim() - 1))
                gradients.append(torch.where(mask, gradient, 0.0))
    if not outputs:
        return found
    states = [tensor for call in sequence for tensor in call.state]
    carried = iter(torch.autograd.grad(outputs, states, gradients, retain_graph=True, allow_unused=True))
    for place, call in enumerate(sequence):
        parts = [next(carried) for _ in call.state]
        squares = torch.zeros(len(call.output), dtype=torch.float64)
        for part in parts:
            if part is not None:
                squares += part.detach().double().square().flatten(1).sum(1).cpu()
        lag = last[: len(squares)] - place  # [N]
        rows = ((lag >= 1) & (lag <= lags)).nonzero().squeeze(1)
        found[lag[rows] - 1, rows] = squares[rows].sqrt()
    return found


def summarise_lags(norms: Tensor) -> LagCurve:
    """Sum up norms [K, B] over the rows, as long as enough of them go on."""
    rows = (~norms.isnan()).sum(1)  # [K]
    reach = int((rows >= max(1.0, REACHED * float(rows[:1].sum()))).sum())
    low, median, high = (norms[:reach].nanquantile(share, dim=1).tolist() for share in (0.1, 0.5, 0.9))
    per_step = None
    last = max((lag for lag, value in enumerate(median) if value > 0), default=0)  # numbers below 1e-45 are 0
    if last > 0:
        both = norms[:, ~norms[last].isnan()]  # [K, B]
        first, far = both[0].quantile(0.5), both[last].quantile(0.5)
        per_step = float((far / first) ** (1 / last)) if first > 0 else None
    return LagCurve(median, low, high, rows[:reach].tolist(), per_step)


def summarise_gates(cell: Cell, used: Sequence[tuple[Sequence[Call], Tensor]]) -> list[GateUse]:
    """Sum up |a| and the gates of a cell over all steps up to each row's last."""
    decays: list[Tensor] = []
    kept: list[list[Tensor]] = []  # of each sigmoid in a step
    for sequence, last in used:
        for place, call in enumerate(sequence):
            valid = last[: len(call.output)] >= place  # [N]
            if call.decay is not None:
                decays.append(chosen_rows(call.decay, valid))
            kept += [[] for _ in call.sigmoids[len(kept) :]]
            for blocks, block in zip(kept, call.sigmoids, strict=False):
                blocks.append(chosen_rows(block, valid))
    names = own_names(cell, "gate_names")
    if len(names) != len(kept):
        names = tuple(f"sigmoid {number + 1}" for number in range(len(kept)))
    named = {DECAY: torch.cat(decays)} if decays else {}
    for name, blocks in zip(names, kept, strict=True):
        named.setdefault(name, torch.cat(blocks))
    return [
        GateUse(name, *(float(share.float().mean()) for share in (values < LOW, values > HIGH, values)))
        for name, values in named.items()
        if len(values)
    ]


def chosen_rows(block: Tensor, valid: Tensor) -> Tensor:
    """Return the numbers of a block [N, ...] in its valid rows, in one list; all if its first axis is no batch."""
    return (block[valid.to(block.device)] if len(block) == len(valid) else block).flatten()


def own_names(cell: Cell, attribute: str) -> tuple[str, ...]:
    """Return ``gate_names`` or ``tanh_names`` of the class that has the equations: a subclass may have others."""
    for kind in type(base_cell(cell)).__mro__:
        if attribute in vars(kind):
            return vars(kind)[attribute]
        if any(method in vars(kind) for method in EQUATIONS):
            return ()
    return ()


def parameter_norms(
    gradients: Mapping[str, Tensor], cells: Mapping[str, Cell], model: nn.Module, *, clip: float | None, by_value: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the norms of gradients before and after clipping, of all parameters and of each cell's."""
    limit = DEFAULT_GRADIENT_CLIP if clip is None else clip
    own = {id(parameter): place for place, cell in cells.items() for parameter in cell.parameters()}
    parameters = dict(model.named_parameters())
    groups: dict[str, list[Tensor]] = {"all": list(gradients.values()), **{place: [] for place in cells}}
    for name, gradient in gradients.items():
        if id(parameters[name]) in own:
            groups[own[id(parameters[name])]].append(gradient)
    norms = {name: norm_of(each) for name, each in groups.items()}
    if limit <= 0:
        return norms, dict(norms)
    if by_value:
        return norms, {name: norm_of([part.clamp(-limit, limit) for part in each]) for name, each in groups.items()}
    factor = min(1.0, limit / max(norms["all"], 1e-12))
    return norms, {name: norm * factor for name, norm in norms.items()}


def norm_of(tensors: Sequence[Tensor]) -> float:
    """Return the norm of all numbers together."""
    return float(sum(float(each.detach().double().square().sum()) for each in tensors)) ** 0.5
